"""The folder in memory in which the workers of one server have their packed weights: once, instead of once a worker."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..run import shared_weights

IN_MEMORY = Path("/dev/shm")
NAME = "fastembed-rt-{}-"
OURS = re.compile(r"fastembed-rt-(\d+)-.*")
COARSE = 0.1  # seconds by which a file's time may lie behind the clock


@contextlib.contextmanager
def folder() -> Iterator[Path | None]:
    """A folder that goes at the end; None where there is none to be had, or the environment names one.

    What servers have left that were killed is removed.
    """
    if shared_weights.VARIABLE in os.environ or sys.platform != "linux":
        yield None
        return
    try:
        _remove_left()
        made = Path(tempfile.mkdtemp(prefix=NAME.format(os.getpid()), dir=IN_MEMORY))
    except OSError:  # not there, or not to be written to: each worker has weights of its own
        yield None
        return
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def forget(made: Path, before: float) -> None:
    """Remove what was used last before this time, in seconds of time.time: weights of models that were replaced.

    Who still reads them keeps them.
    """
    for file in made.iterdir():
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < before - COARSE:
                file.unlink()


def _remove_left() -> None:
    for left in IN_MEMORY.iterdir():
        found = OURS.fullmatch(left.name)
        with contextlib.suppress(OSError):
            if found and left.stat().st_uid == os.geteuid() and not Path(f"/proc/{found[1]}").exists():
                shutil.rmtree(left, ignore_errors=True)
