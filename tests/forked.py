"""A child of a process that forked while one of its threads was at work that the child does too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from compiled_once import compile_once

from fastembed_rt.native import build

SOURCE = Path(__file__).with_suffix(".c")
needs_gcc = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc on Linux")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def status_beside(work: Callable[[Callable[[], None]], object]) -> int:
    """Status of a child that works while a thread of its parent does, 14 where it waited too long.

    `work` calls what it is given where the process is to fork.
    """
    parent, inside, forked = os.getpid(), threading.Event(), threading.Event()

    def here() -> None:
        if os.getpid() == parent:
            inside.set()
            forked.wait(30)

    thread = threading.Thread(target=work, args=(here,))
    thread.start()
    try:
        assert inside.wait(30)
        child = os.fork()
        if child == 0:  # nothing of pytest's may run here
            signal.alarm(3)
            code = 1
            try:
                work(here)
                code = 0
            finally:
                os._exit(code)
    finally:
        forked.set()
        thread.join()
    return os.waitpid(child, 0)[1]


def status_of_child(directory: Path, *libraries: Path) -> int:
    """The same of registering operators, in C; see forked.c."""
    program = directory / "forked"
    flags = ["-std=gnu11", "-O1", "-Wall", f"-I{build.SOURCES}"]
    assert compile_once(["gcc", *flags, "-o", str(program), str(SOURCE), "-ldl", "-lpthread"]) == 0
    done = subprocess.run([program, *libraries], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
