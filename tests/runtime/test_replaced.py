"""What opens long after a model was loaded is what was checked then: for bulk, a child, a route, a device's worker."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import save_sentence_transformers, save_transformers
from exports import quick

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt.errors import IntegrityError
from fastembed_rt.files import ModelFiles
from fastembed_rt.manifest import Manifest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="open files can be replaced on POSIX systems only")

# sys.argv: the directory as it is to be opened, another model's, the change, and all that open something afterwards.
SCRIPT = """
import os, shutil, sys
from pathlib import Path
import numpy as np
from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import IntegrityError
directory, other, change, chosen = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
texts = [f"the cat {k} sleeps" for k in range(300)]
options = {"threads": 2, "target": "portable" if "route" in chosen else "cpu", "max_batch_tokens": 64}
uses = {
    "bulk": lambda model: model.encode(texts),
    "route": lambda model: model.encode_query(texts),
    "tokenizer": lambda model: model.count_tokens(texts),
    "fork": lambda model: model.encode(texts),
    "device": lambda model: model.encode(texts),
}
with EmbeddingModel(directory, **options) as model:
    wanted = {use: uses[use](model) for use in chosen}  # of the first model, while it is there
where = directory.resolve()
if change == "chdir":
    os.chdir(directory.parent)
    directory = Path(directory.name)
if "device" in chosen:
    options["device_ids"] = [0, 1]
model = EmbeddingModel(directory, **options)
first = model.encode("the cat")
if change == "chdir":
    os.chdir("/")
elif change == "unlink":
    shutil.rmtree(where)
elif change == "rename":
    where.rename(where.with_name("elsewhere"))
elif change == "link":
    directory.unlink()
    directory.symlink_to(other)
elif change == "export":
    from fastembed_rt_export.pipeline import ExportOptions, export
    export(str(other.with_name("checkpoint")), ExportOptions(output=where, force=True, verify=False))
elif change == "written":
    shutil.copytree(other, where, dirs_exist_ok=True, copy_function=shutil.copyfile)
def say(use):
    try:
        found = uses[use](model)
    except IntegrityError as error:
        print(f"{use}: {type(error).__name__} {error}", flush=True)
        return
    same = np.array_equal(found, wanted[use]) and np.array_equal(model.encode("the cat"), first)
    print(f"{use}: {'same' if same else 'different'}", flush=True)
for use in chosen:
    if use in ("fork", "device"):
        child = os.fork()
        if child == 0:
            say(use)
            os._exit(0)
        os.waitpid(child, 0)
    else:
        say(use)
"""
CHANGES = ["chdir", "unlink", "rename", "link", "export"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one` and `two`: models of the same files' names and other weights, with the checkpoints they are made of."""
    root = tmp_path_factory.mktemp("replaced")
    for seed, name in enumerate(("one", "two")):
        quick(save_sentence_transformers(root / name / "checkpoint", seed=seed), root / name / "model")
    return root


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with encoders of their own for queries and documents."""
    root = tmp_path_factory.mktemp("routed")
    for seed, name in enumerate(("one", "two")):
        quick(save_asymmetric(root / name / "checkpoint", seed=seed), root / name / "model")
    return root


def save_asymmetric(directory: Path, seed: int) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    chains = {}
    for k, role in enumerate(("query", "document")):
        weights = save_transformers(directory.with_name(f"{directory.name}-{role}"), seed=10 * seed + k + 1)
        module = Transformer(str(weights))
        chains[role] = [module, Pooling(module.get_embedding_dimension(), "mean")]
    router = Router(chains, default_route="document")
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(directory), create_model_card=False)
    return directory


@pytest.fixture
def run(run_script: Any, tmp_path: Path) -> Any:
    def run(source: Path, change: str, *uses: str) -> dict[str, str]:
        for name in ("one", "two"):
            shutil.copytree(source / name, tmp_path / name)
        opened = tmp_path / "one" / "model"
        if change == "link":
            opened = tmp_path / "current"
            opened.symlink_to(tmp_path / "one" / "model")
        done = run_script(SCRIPT, opened, tmp_path / "two" / "model", change, *uses, timeout=120)
        assert done.returncode == 0, done.stderr
        said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        assert list(said) == list(uses), done.stdout
        return said

    return run


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_goes_on_with_the_files_that_it_was_loaded_from(run: Any, exported: Path, change: str) -> None:
    # The child first: what it opens is not open in the parent yet, nor afterwards.
    said = run(exported, change, "fork", "tokenizer", "bulk")
    assert said == {"fork": "same", "tokenizer": "same", "bulk": "same"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_route_that_loads_later_is_that_of_the_model_that_was_loaded(run: Any, routed: Path, change: str) -> None:
    assert run(routed, change, "route") == {"route": "same"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_childs_workers_are_those_of_the_model_or_an_error(run: Any, exported: Path, change: str) -> None:
    said = run(exported, change, "device")["device"]
    if change in ("chdir", "link"):  # the directory is where it was
        assert said == "same"
    else:
        assert said.startswith("IntegrityError") and "was moved or replaced since the model was loaded" in said


def test_files_that_are_written_to_in_place_are_an_error_where_they_are_opened_again(run: Any, exported: Path) -> None:
    for said in run(exported, "written", "fork", "bulk").values():
        assert said.startswith("IntegrityError") and "was written to since the model was loaded" in said


@pytest.mark.parametrize("target", [None, "cpu"])
def test_weights_that_a_session_has_mapped_are_an_error_once_they_are_written_to(
    exported: Path, tmp_path: Path, target: str | None
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(exported / "one" / "model", directory)
    with EmbeddingModel(directory, target=target) as model:
        wanted = model.encode("the cat")
        for record in model.variant.weights:
            os.utime(directory / record.file)
        np.testing.assert_array_equal(model.encode("the cat"), wanted)  # its time alone has changed
        for record in model.variant.weights:
            with (directory / record.file).open("r+b") as file:
                file.write(bytes(record.size))
        for _ in range(2):
            with pytest.raises(IntegrityError, match="was written to since the model was loaded"):
                model.encode("the cat")


def held(described: Manifest, directory: Path) -> ModelFiles:
    return ModelFiles(directory, described.files)


def test_only_the_contents_count(exported: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(exported / "one" / "model", directory)
    described = manifest.read(directory)
    files = held(described, directory)
    name = described.tokenizer.file
    content = (directory / name).read_bytes()
    os.utime(directory / name)
    assert files.read(name) == content
    (directory / name).write_bytes(b" " + content)
    with pytest.raises(IntegrityError, match="was written to since"):
        files.read(name)
    (directory / "model.onnx").unlink()
    assert not files.in_place(["model.onnx"])
    with pytest.raises(IntegrityError, match="is missing"):
        held(described, directory)


def test_descriptors_go_with_the_model(exported: Path) -> None:
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("no /proc")

    def open_now() -> int:
        return sum("one/model" in os.readlink(entry) for entry in listing.iterdir() if entry.is_symlink())  # noqa: PTH115

    before = open_now()
    model = EmbeddingModel(exported / "one" / "model")
    assert open_now() > before
    wanted = model.encode("a cat")
    model.close()
    del model
    until = time.monotonic() + 20
    while open_now() > before and time.monotonic() < until:
        time.sleep(0.01)  # a thread that loaded it may still be on its last step
    assert open_now() == before
    assert np.isfinite(wanted).all()


def test_threads_read_one_file_at_a_time_where_reading_moves_a_position(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "pread")  # as on Windows
    seek = os.lseek

    def slowly(*arguments: int) -> int:
        found = seek(*arguments)
        time.sleep(0.001)  # another thread's turn
        return found

    monkeypatch.setattr(os, "lseek", slowly)
    content = np.random.default_rng(0).bytes(3 << 20)
    (tmp_path / "weights").write_bytes(content)
    record = manifest.FileRecord(file="weights", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    files = ModelFiles(tmp_path, [record])
    with ThreadPoolExecutor(4) as pool:
        assert all(found == content for found in pool.map(files.read, ["weights"] * 8))


def test_descriptors_that_were_closed_from_outside_are_opened_anew_and_never_closed_again(
    exported: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(exported / "one" / "model", directory)
    files = held(manifest.read(directory), directory)
    content = files.read("tokenizer.json")
    (tmp_path / "mine").write_text("not a model's")
    taken = list(files._descriptors.values())
    for descriptor in taken:
        os.close(descriptor)  # as os.closerange does in a daemon
    mine = [os.open(tmp_path / "mine", os.O_RDONLY) for _ in taken]
    assert set(mine) & set(taken)
    assert files.read("tokenizer.json") == content
    (directory / "model.onnx").rename(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="closed from outside"):
        files.read("model.onnx")
    del files
    gc.collect()
    for descriptor in mine:
        os.close(descriptor)  # an error where somebody did so before


def test_a_file_that_cannot_be_opened_is_not_called_missing(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    directory = exported / "one" / "model"
    described = manifest.read(directory)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(IntegrityError, match=r"cannot be opened \(Too many open files\); raise the limit"):
        held(described, directory)
