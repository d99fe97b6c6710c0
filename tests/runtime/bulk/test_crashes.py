"""A job that ends at any step, in any way: what is there then is never wrong, and the next run completes it.

Each step that reaches the disk fails in its turn: as a full disk, which the run sees; as kill -9, after which nothing
is cleaned up; and as a loss of power, which undoes what was not yet told to last.
"""

from __future__ import annotations

import errno
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bulk_jobs import BAD, Counting, execute, write_jsonl
from exports import contents

from fastembed_rt.bulk import job
from fastembed_rt.bulk.store import Content, Digest, Directory, put

TEXTS = ["a", "b", "", "a dog", BAD, "c", "d", "e", "a", "f"]
FORMATS = pytest.mark.parametrize("part_format", ["parquet", "arrow", "npy"])


class Killed(BaseException):
    """kill -9: no code of the run takes notice of it."""


class Failing(Directory):
    """A directory in which one step fails, counted from 0; later ones too."""

    def __init__(self, path: Path, at: int, failure: Callable[[], BaseException]) -> None:
        super().__init__(path)
        self.steps, self._at, self._failure = 0, at, failure
        self.dead = False
        self.undo: list[tuple[Path, Callable[[], object]]] = []  # what is not yet told to last, by its folder

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self._at:
            self.dead = True
            raise self._failure()

    def _fill(self, path: Path, content: Content) -> Digest:
        try:
            self._step()
        except BaseException:
            whole = io.BytesIO()
            size = put(content, whole).size
            path.write_bytes(whole.getvalue()[: size // 2])  # half of it
            raise
        made = super()._fill(path, content)
        self.undo.append((path.parent, lambda: path.unlink(missing_ok=True)))
        return made

    def _rename(self, unfinished: Path, target: Path) -> None:
        self._step()
        before = target.read_bytes() if target.exists() else None
        super()._rename(unfinished, target)
        self.undo.append((target.parent, lambda: target.unlink() if before is None else target.write_bytes(before)))

    def _unlink(self, path: Path) -> None:
        self._step()
        before = path.read_bytes()
        super()._unlink(path)
        self.undo.append((path.parent, lambda: path.write_bytes(before)))

    def _sync_folder(self, folder: Path) -> None:
        self._step()
        super()._sync_folder(folder)
        self.undo = [(each, undo) for each, undo in self.undo if each != folder]

    def lose_power(self, folders: list[Path]) -> None:
        """Undo what was done in these folders since they were last told to last."""
        for folder, undo in reversed(self.undo):
            if folder in folders and folder.is_dir():
                undo()


class Unclean(Failing):
    """One whose run cannot tidy up, because it is gone."""

    def write(self, name: str, content: Content) -> Digest:
        try:
            return super().write(name, content)
        except Killed:
            target = self.path / name
            if target.parent.is_dir():  # what `write` has removed on its way out is put back
                (target.parent / f".{target.name}.0123abcd.unfinished").write_bytes(b"half")
            raise


def settings(part_format: str) -> dict[str, Any]:
    return {} if part_format == "npy" else {"on_error": "null"}


def job_of(tmp_path: Path, part_format: str) -> Path:
    texts = [text for text in TEXTS if text != BAD or part_format != "npy"]
    return write_jsonl(tmp_path / "in.jsonl", texts)


def whole(tmp_path: Path, part_format: str) -> dict[str, bytes]:
    execute([job_of(tmp_path, part_format)], tmp_path / "whole", format=part_format, **settings(part_format))
    return contents(tmp_path / "whole")


def assert_sound_if_complete(directory: Path) -> None:
    """`_SUCCESS` is never there without all that it promises."""
    store = Directory(directory)
    complete = job.Complete.read(store)
    assert complete is None or complete.damaged(store, 0) == []


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def steps(
    tmp_path: Path, kind: type[Failing], part_format: str, failure: Callable[[], BaseException]
) -> Iterator[Failing]:
    """A job that ended at its first step, at its second, ..., until it did not end any more."""
    for at in itertools.count():
        store = kind(tmp_path / f"stopped-{at}", at, failure)
        try:
            execute([tmp_path / "in.jsonl"], store, format=part_format, **settings(part_format))
        except (OSError, Killed):
            assert store.dead
            yield store
        else:
            assert at > 30
            return


@FORMATS
def test_a_full_disk_at_any_step_leaves_what_a_resumed_run_completes(tmp_path: Path, part_format: str) -> None:
    wanted = whole(tmp_path, part_format)
    for store in steps(tmp_path, Failing, part_format, full_disk):
        assert_sound_if_complete(store.path)
        execute([tmp_path / "in.jsonl"], store.path, format=part_format, **settings(part_format))
        assert contents(store.path) == wanted, store.path


@FORMATS
def test_a_kill_at_any_step_leaves_what_a_resumed_run_completes(tmp_path: Path, part_format: str) -> None:
    wanted = whole(tmp_path, part_format)
    for store in steps(tmp_path, Unclean, part_format, Killed):
        assert_sound_if_complete(store.path)
        execute([tmp_path / "in.jsonl"], store.path, format=part_format, **settings(part_format))
        assert contents(store.path) == wanted, store.path


@pytest.mark.parametrize("lost", ["parts", "records", "both"])
def test_a_loss_of_power_at_any_step_takes_no_part_that_a_record_speaks_of(tmp_path: Path, lost: str) -> None:
    wanted = whole(tmp_path, "parquet")
    for store in steps(tmp_path, Unclean, "parquet", Killed):
        work = store.path / job.WORK
        folders = {"parts": [store.path], "records": [work, work / "00000-of-00001"]}
        store.lose_power(folders.get(lost, [*folders["parts"], *folders["records"]]))
        assert_sound_if_complete(store.path)
        records = job.Progressed(Directory(store.path), 0, 1).records() if store.path.exists() else {}
        for record in records.values():
            assert Directory(store.path).digest(record.file) == record.digest
        execute([tmp_path / "in.jsonl"], store.path, on_error="null")
        assert contents(store.path) == wanted, store.path


class Forgetful(Unclean):
    """A store that does not tell folders to last."""

    def _sync_folder(self, folder: Path) -> None:
        self._step()


def test_without_fsync_of_folders_a_loss_of_power_would_be_noticed(tmp_path: Path) -> None:
    """The test above can fail: records then speak of parts that are gone."""
    whole(tmp_path, "parquet")
    gone = 0
    for store in steps(tmp_path, Forgetful, "parquet", Killed):
        store.lose_power([store.path])
        records = job.Progressed(Directory(store.path), 0, 1).records() if store.path.exists() else {}
        gone += sum(Directory(store.path).digest(record.file) != record.digest for record in records.values())
    assert gone


def test_a_resumed_run_encodes_nothing_twice(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(40)]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    first, second = Counting(), Counting()
    store = Failing(tmp_path / "out", 22, full_disk)
    with pytest.raises(OSError, match="No space left"):
        execute([source], store, counting=first)
    there = job.Progressed(Directory(store.path), 0, 1).records()
    assert 0 < len(there) < 10
    execute([source], store.path, counting=second)
    done = {text for record in there.values() for text in texts[record.start : record.stop]}
    assert second.texts == [text for text in texts if text not in done]
    third = Counting()
    execute([source], store.path, counting=third)
    assert third.texts == []
