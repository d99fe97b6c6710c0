"""Runs that were killed: what they leave is removed by the next one, and what is being written is not touched."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from exports import contents, quick
from signals import of_a_terminal
from test_cli import StandInModel, environment, give_stdin  # type: ignore[import-not-found]

from fastembed_rt import cli
from fastembed_rt.cli import embed
from fastembed_rt.system import leftovers
from fastembed_rt_export.directory.whole import atomic_directory

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks and signals of Unix")
ANY = re.compile(r"\..*\.part")
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts an `embed` into out.npy that waits for its input, once its unfinished file is there."""
    script = (
        "import sys, test_cli; from fastembed_rt import cli; from fastembed_rt.cli import embed\n"
        "embed.open_model = test_cli.StandInModel\n"
        "sys.exit(cli.main(['embed', 'MODEL', *sys.argv[1:]]))"
    )
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, ignored: int | None = None) -> subprocess.Popen[bytes]:
        before = set(tmp_path.iterdir())
        first = "" if ignored is None else f"import signal; signal.signal({int(ignored)}, signal.SIG_IGN)\n"
        with of_a_terminal():
            process = subprocess.Popen(
                [sys.executable, "-c", first + script, "-o", str(tmp_path / "out.npy"), *words],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(b"text\n" * 5000)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while set(tmp_path.iterdir()) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def run(target: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """An `embed` of one text in this process."""
    monkeypatch.setattr(embed, "open_model", StandInModel)
    give_stdin(monkeypatch, b"text\n")
    return cli.main(["embed", "MODEL", "-o", str(target), "--quiet"])


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, cli.TERMINATED, b"terminated"), (signal.SIGHUP, cli.HANGUP, b"the terminal is gone")],
)
def test_a_signal_that_ends_the_run_leaves_no_half_file(
    start: Start, tmp_path: Path, number: int, code: int, said: bytes
) -> None:
    process = start()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (code, b"fastembed-rt: error: " + said + b"\n")
    assert list(tmp_path.iterdir()) == []


def test_a_hangup_that_is_ignored_stays_so(start: Start, tmp_path: Path) -> None:
    """nohup fastembed-rt embed ... goes on when the terminal is closed."""
    process = start(ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert np.load(tmp_path / "out.npy").shape == (5000, 4)


def test_the_next_run_removes_what_a_killed_one_left(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start()
    process.kill()  # nothing can be done about it in there
    process.wait()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    assert run(tmp_path / "other.npy", monkeypatch) == 0  # another output's is nobody's business
    assert len(list(tmp_path.glob(".out.npy.*.part"))) == 1
    assert run(tmp_path / "out.npy", monkeypatch) == 0
    assert list(tmp_path.glob(".*")) == []


def test_the_next_run_does_not_touch_what_a_living_one_writes(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("--force")
    assert run(tmp_path / "out.npy", monkeypatch) == 0
    assert np.load(tmp_path / "out.npy").shape == (1, 4)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert np.load(tmp_path / "out.npy").shape == (5000, 4)
    assert list(tmp_path.glob(".*")) == []


def test_only_names_that_embed_gives_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {".out.npy.part", ".out.npy.notes.part", ".out.npy.0123abcd.part.bak", "out.npy.0123abcd.part"}
    for name in (*kept, ".out.npy.0123abcd.part"):
        (tmp_path / name).write_text("something")
    (tmp_path / ".out.npy.89abcdef.part").symlink_to(tmp_path / "elsewhere")
    assert run(tmp_path / "out.npy", monkeypatch) == 0
    found = {path.name for path in tmp_path.iterdir()} - {"out.npy", "out.npy.json"}
    assert found == {*kept, ".out.npy.89abcdef.part"}


def test_an_export_removes_what_a_killed_one_left_and_no_living_ones(tmp_path: Path) -> None:
    (tmp_path / ".model.abcd1234.partial").mkdir()
    (tmp_path / ".model.abcd1234.partial" / "model.onnx").write_text("half")
    (tmp_path / ".model2.abcd1234.partial").mkdir()
    with atomic_directory(tmp_path / "model") as first:
        (first / "manifest.json").write_text("1")
        assert {path.name for path in tmp_path.glob(".*")} == {first.name, ".model2.abcd1234.partial"}
        with atomic_directory(tmp_path / "model") as second:
            assert first.is_dir()
            (second / "manifest.json").write_text("2")
        shutil.rmtree(tmp_path / "model")
    assert (tmp_path / "model" / "manifest.json").read_text() == "1"


def test_an_export_killed_between_two_renames_is_undone(pair: object, tmp_path: Path) -> None:
    """The directory aside is the only copy of the model then."""
    checkpoint: Path = pair.checkpoint  # type: ignore[attr-defined]
    quick(checkpoint, tmp_path / "model")
    before = contents(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.abcd1234.old")
    (tmp_path / ".model.abcd1234.partial").mkdir()
    with pytest.raises(RuntimeError, match="stop"), atomic_directory(tmp_path / "model", force=True):
        raise RuntimeError("stop")
    assert contents(tmp_path / "model") == before
    assert list(tmp_path.glob(".*")) == []


def test_what_is_removed_between_its_making_and_its_locking_is_made_again(tmp_path: Path) -> None:
    made: list[Path] = []

    def fresh() -> Path:
        made.append(tmp_path / f".{len(made)}.part")
        return made[-1]

    def create(path: Path) -> None:
        path.touch()
        if len(made) == 1:
            leftovers.remove_left_behind(tmp_path, ANY)

    with leftovers.unfinished(fresh, create) as path:
        leftovers.remove_left_behind(tmp_path, ANY)
        assert path == made[1]
        assert path.exists()
    leftovers.remove_left_behind(tmp_path, ANY)
    assert not path.exists()


def test_a_name_that_is_used_again_is_not_taken_for_the_file_that_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".a.part"
    path.touch()
    true = leftovers._lock

    def late(given: Path, *, wait: bool) -> int | None:
        lock = true(given, wait=wait)
        if not wait:  # between this sweeper's opening and locking, another one removes the file and a writer comes
            path.unlink()
            path.touch()
        return lock

    monkeypatch.setattr(leftovers, "_lock", late)
    leftovers.remove_left_behind(tmp_path, ANY)
    assert path.exists()


def test_many_writers_and_sweepers_lose_nothing(tmp_path: Path) -> None:
    """Every file stays there for as long as it is held, whoever sweeps."""
    lost: list[Path] = []

    def work(number: int) -> None:
        for turn in range(100):
            leftovers.remove_left_behind(tmp_path, ANY)
            name = tmp_path / f".{number}.{turn}.part"

            with leftovers.unfinished(lambda name=name: name, Path.touch) as path:  # type: ignore[misc]
                time.sleep(0)
                if not path.exists():
                    lost.append(path)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    leftovers.remove_left_behind(tmp_path, ANY)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_between_a_name_and_its_file_leaves_nothing(tmp_path: Path) -> None:
    """The end of a run may come at any step, also when the file is there and nobody knows it yet."""

    def create(path: Path) -> None:
        path.touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), leftovers.unfinished(lambda: tmp_path / ".1.part", create):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    names = iter([tmp_path / ".1.part", tmp_path / ".2.part"])
    (tmp_path / ".1.part").write_text("another's")
    with leftovers.unfinished(lambda: next(names), lambda path: path.open("xb").close()) as path:
        assert path.name == ".2.part"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(".1.part", "another's")]
