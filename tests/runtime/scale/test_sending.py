"""A model's files packed, and unpacked where neither their directory nor the hub is: once, whole, and no others."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from exports import contents

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import ModelNotFoundError
from fastembed_rt.scale import Embed, sending
from fastembed_rt.scale.sending import Archive, Sent, packed, unpacked
from fastembed_rt.system import leftovers

TEXTS = ["a dog runs", "the house is red"]


@pytest.fixture
def home(model_dir: Path, tmp_path: Path) -> Path:
    """A model directory of links, as the hub's cache has them, that a test may take away."""
    made = tmp_path / "home"
    made.mkdir()
    for file in model_dir.iterdir():
        (made / file.name).symlink_to(file)
    (made / "notes.txt").write_text("not of the model")
    return made


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine's temporary directory."""
    found = tmp_path / "tmp"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


def test_what_was_sent_works_where_the_directory_is_not(home: Path, model_dir: Path) -> None:
    with EmbeddingModel(model_dir) as model:
        wanted = model.encode(TEXTS)
    embed = Embed(home)
    archive = pickle.loads(pickle.dumps(packed(embed)))
    assert packed(embed) == archive  # the same, whenever it is packed
    shutil.rmtree(home)
    sent = pickle.loads(pickle.dumps(embed.replaced(find=Sent(archive.key))))
    with pytest.raises(ModelNotFoundError, match="no model was sent to this machine"):
        sent(pa.table({"text": TEXTS}))
    place = archive.unpack()
    found = sent(pa.table({"text": TEXTS}))["embedding"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
    assert sent.model.path == place.resolve()
    with pytest.raises(ModelNotFoundError, match="no such directory here"):
        pickle.loads(pickle.dumps(embed))(pa.table({"text": TEXTS}))
    with pytest.raises(ModelNotFoundError, match="is gone"):
        packed(embed)


def test_only_what_runs_is_packed(home: Path, model_dir: Path, there: Path) -> None:
    place = packed(Embed(home)).unpack()
    found, whole = contents(place), contents(model_dir)
    assert found.items() < whole.items()
    assert {"manifest.json", "tokenizer.json"} < found.keys()
    assert "model.onnx.lock" not in found
    assert place.parent.parent.parent == there
    assert place.parent.parent.stat().st_mode & 0o077 == 0


def test_it_is_unpacked_once_and_never_half(home: Path) -> None:
    archive = packed(Embed(home))
    asked = []

    def read() -> Archive:
        asked.append(1)
        return archive

    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(lambda _: unpacked(archive.key, read), range(8)))
    assert (len(places), len(asked)) == (1, 1)

    def fails() -> Archive:
        raise OSError("the network is down")

    with pytest.raises(OSError, match="network"):
        unpacked("other", fails)
    assert sorted(path.name for path in sending.folder().iterdir() if path.is_dir()) == [archive.key]


def test_nothing_is_written_outside() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../elsewhere"))
    with pytest.raises(tarfile.OutsideDestinationError):
        Archive(stream.getvalue(), "key").unpack()
    assert not (sending.folder().parent / "elsewhere").exists()


@pytest.mark.parametrize("taken", ["tokenizer.json", "sizes.json", "all of them", "half of one"])
def test_a_model_of_which_a_cleaner_took_a_file_is_unpacked_again(home: Path, taken: str) -> None:
    embed = Embed(home)
    archive = packed(embed)
    place = archive.unpack()
    sent = embed.replaced(find=Sent(archive.key))
    sent(pa.table({"text": TEXTS}))
    before = contents(place)
    if taken == "half of one":
        (place / "tokenizer.json").write_bytes(before["tokenizer.json"][:100])
    for file in place.parent.rglob("*"):
        if file.is_file() and taken in (file.name, "all of them"):
            file.unlink()
    with pytest.raises(ModelNotFoundError, match="files are gone; send it again"):
        Sent(archive.key)()
    assert archive.unpack() == place == Sent(archive.key)()
    assert contents(place) == before
    assert [path.name for path in sending.folder().iterdir() if path.is_dir()] == [archive.key]


def test_what_was_unpacked_is_new_to_those_who_clean_up(home: Path) -> None:
    begin = time.time()
    place = packed(Embed(home)).unpack()
    assert min(file.stat().st_mtime for file in place.parent.rglob("*")) > begin - 60


def test_what_a_killed_process_left_goes_at_the_next_unpacking(home: Path) -> None:
    archive = packed(Embed(home))
    dead = sending.folder() / f"{archive.key}.0123abcd"
    (dead / "model").mkdir(parents=True)
    working = sending.folder() / f"{'0' * 32}.0123abcd"
    working.mkdir()
    with leftovers.held(working):
        archive.unpack()
        assert sorted(path.name for path in sending.folder().iterdir() if path.is_dir()) == sorted(
            [archive.key, working.name]
        )
