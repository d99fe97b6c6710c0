"""Commands in a program that PyInstaller or the like built, where `sys.executable` is that program."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from fastembed_rt import cli
from fastembed_rt.errors import FastembedRtError
from fastembed_rt.run import devices


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a program; nothing may start it again, as it would start itself without an end."""
    start = subprocess.Popen.__init__

    def refuse(self: subprocess.Popen[bytes], command: list[str], *rest: object, **options: object) -> None:
        assert command[0] != sys.executable, f"starts itself again: {command}"
        start(self, command, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


def test_bench_says_that_there_is_no_python_to_start(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(model_dir)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastembed-rt: error: bench starts Python in processes of its own")
    assert error.count("\n") == 1


def test_doctor_looks_at_what_is_inside(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "no problem found" in printed
    assert "CPUExecutionProvider" in printed


def test_several_gpus_are_refused() -> None:
    with pytest.raises(FastembedRtError, match=r"device_ids with several GPUs starts Python .* has none to start"):
        devices._Worker(0, {}, queue.SimpleQueue(), weakref.WeakMethod(threading.Event().set))


def test_several_workers_of_a_server_are_refused(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(model_dir), "--workers", "2", "--port", "0"]) == 1
    assert "serve with several workers starts Python in processes of its own" in capsys.readouterr().err
