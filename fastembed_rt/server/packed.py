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
NEW, NAME = ".fastembed-rt-server-", "fastembed-rt-server-"
OURS = re.compile(re.escape(NAME) + "[a-z0-9_]{8}")
COARSE = 0.1  # seconds by which a file's time may lie behind the clock


@contextlib.contextmanager
def folder() -> Iterator[Path | None]:
    """A folder that goes at the end; None where there is none to be had, or the environment names one.

    What servers have left that were killed is removed: a folder that no process has locked. Numbers of processes would
    not tell, where containers share memory.
    """
    if shared_weights.VARIABLE in os.environ or sys.platform != "linux":
        yield None
        return
    try:
        _remove_left()
        new = Path(tempfile.mkdtemp(prefix=NEW, dir=IN_MEMORY))
        held = _locked(new)
        made = new.rename(IN_MEMORY / new.name.removeprefix("."))  # found by others from here on, and locked
    except OSError:  # not there, or not to be written to: each worker has weights of its own
        yield None
        return
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def keep(made: Path) -> None:
    """Make it again where somebody has removed it."""
    with contextlib.suppress(OSError):
        made.mkdir(mode=0o700, exist_ok=True)


def forget(made: Path, before: float) -> None:
    """Remove what was used last before this time, in seconds of time.time: weights of models that were replaced.

    Who still reads them keeps them.
    """
    with contextlib.suppress(OSError):
        for file in made.iterdir():
            if file.stat().st_mtime < before - COARSE:
                file.unlink()


def _locked(place: Path) -> int:
    """A descriptor that locks a folder; BlockingIOError where another has it."""
    import fcntl  # not on Windows

    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


def _remove_left() -> None:
    for left in IN_MEMORY.iterdir():
        with contextlib.suppress(OSError):
            if OURS.fullmatch(left.name) and left.stat().st_uid == os.geteuid():
                held = _locked(left)
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)
