"""A child of a process that forked while one of its threads registered operators."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiled_once import compile_once

from fastembed_rt.native import build

SOURCE = Path(__file__).with_suffix(".c")
needs_gcc = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc on Linux")


def status_of_child(directory: Path, *libraries: Path) -> int:
    """Its status when it has registered them too, 14 where it waited too long; see forked.c."""
    program = directory / "forked"
    flags = ["-std=gnu11", "-O1", "-Wall", f"-I{build.SOURCES}"]
    assert compile_once(["gcc", *flags, "-o", str(program), str(SOURCE), "-ldl", "-lpthread"]) == 0
    done = subprocess.run([program, *libraries], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
