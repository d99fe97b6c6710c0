"""The hash of a checkpoint's files: every change shows, and what has not changed is not read again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastembed_rt.cache import contents
from fastembed_rt.errors import ModelNotFoundError

FILES = {
    "config.json": "{}",
    "modules.json": json.dumps([{"path": "", "type": "T"}, {"path": "onnx/1_Pooling", "type": "P"}]),
    "onnx/1_Pooling/config.json": "{}",
    "model.safetensors": "weights",
    "vocab.bpe": "words",
}
UNREAD = {
    ".git/HEAD": "x",
    "checkpoint-500/model.safetensors": "x",
    "openvino/openvino_model.bin": "x",
    "onnx/model.onnx": "x",
    "optimizer.pt": "x",
    "events.out.tfevents.1": "x",
    "tf_model.h5": "x",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoint", FILES)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    real = vars(contents)["sha256_file"]

    def reading(path: Path) -> str:
        names.append(path.name)
        found: str = real(path)
        return found

    monkeypatch.setattr(contents, "sha256_file", reading)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as long written."""
    monkeypatch.setattr(contents, "SETTLED", -3600.0)


def taken(root: Path) -> str:
    return contents.fingerprint(root, root.parent / "hashes")


@pytest.mark.usefixtures("settled")
def test_files_that_have_not_changed_are_read_once(root: Path, read: list[str]) -> None:
    first = taken(root)
    assert sorted(read) == sorted(Path(name).name for name in FILES)
    read.clear()
    assert taken(root) == first
    assert read == []
    (root / "vocab.bpe").write_text("others")
    assert taken(root) != first
    assert read == ["vocab.bpe"]


def test_files_written_just_now_are_read_again_since_they_may_be_written_within_a_step_of_the_clock(
    root: Path, read: list[str]
) -> None:
    assert taken(root) == taken(root)
    assert len(read) == 2 * len(FILES)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", FILES)
def test_a_change_that_keeps_size_and_modification_time_is_seen(root: Path, name: str) -> None:
    first = taken(root)
    path = root / name
    before = path.stat()
    time.sleep(0.02)  # a step of the file system's clock
    path.write_text(FILES[name].swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert taken(root) != first or FILES[name].swapcase() == FILES[name]


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda r: (r / "vocab.bpe").unlink(),
    "added": lambda r: (r / "added_tokens.json").write_text("{}"),
    "renamed": lambda r: (r / "vocab.bpe").rename(r / "merges.txt"),
    "replaced": lambda r: (r / "new").write_text("heights") and (r / "new").replace(r / "model.safetensors"),
    "in a folder that modules.json names": lambda r: (r / "onnx/1_Pooling/config.json").write_text("[]"),
    "exchanged": lambda r: write(r, {"config.json": "weights", "model.safetensors": "{}"}),
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(root: Path, change: str) -> None:
    first = taken(root)
    CHANGES[change](root)
    assert taken(root) != first


@pytest.mark.usefixtures("settled")
def test_what_no_export_reads_does_not_count(root: Path, read: list[str]) -> None:
    first = taken(root)
    read.clear()
    write(root, UNREAD)
    assert taken(root) == first
    assert read == []


@pytest.mark.usefixtures("settled")
def test_links_are_followed_and_one_that_leads_back_ends(root: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"config.json": "{}", "weights": "w"})
    (root / "2_Dense").symlink_to(outside)
    (root / "vocab.txt").symlink_to(outside / "weights")
    (root / "loop").symlink_to(root)
    (root / "broken.json").symlink_to(tmp_path / "nowhere")
    first = taken(root)
    (outside / "weights").write_text("W")
    second = taken(root)
    (outside / "config.json").write_text("[]")
    assert len({first, second, taken(root)}) == 3


@pytest.mark.usefixtures("settled")
def test_a_directory_by_another_way_or_copied_has_the_same_hash(root: Path, tmp_path: Path, read: list[str]) -> None:
    first = taken(root)
    read.clear()
    (tmp_path / "link").symlink_to(root)
    assert taken(tmp_path / "link") == first
    assert read == []
    assert taken(Path(shutil.copytree(root, tmp_path / "copy"))) == first
    assert read != []


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("note", ["", "{", "[]", '{"files": 1}', '{"files": {"config.json": [[1], 2, 3]}}'])
def test_a_damaged_memory_costs_reading_and_nothing_else(root: Path, read: list[str], note: str) -> None:
    first = taken(root)
    (kept,) = (root.parent / "hashes").iterdir()
    kept.write_text(note)
    read.clear()
    assert taken(root) == first
    assert len(read) == len(FILES)
    assert taken(root) == first
    assert len(read) == len(FILES)


@pytest.mark.usefixtures("settled")
def test_a_memory_that_cannot_be_written_is_done_without(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert contents.fingerprint(root, tmp_path / "file" / "hashes") == taken(root)


def test_a_directory_that_went_away_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        taken(tmp_path / "gone")
