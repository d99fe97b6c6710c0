"""Commands in a program that PyInstaller or the like built, where `sys.executable` is that program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastembed_rt import cli
from fastembed_rt.errors import FastembedRtError
from fastembed_rt.run import devices
from fastembed_rt.system.interpreter import interpreter


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
    assert devices.interpreter is interpreter
    with pytest.raises(FastembedRtError, match="has none to start; run it with an installed fastembed-rt"):
        devices.interpreter("device_ids with several GPUs")
