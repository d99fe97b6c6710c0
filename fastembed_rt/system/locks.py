"""Locks between processes, on files: the operating system's, which end with whoever holds them, however that ends.

A lock file that lies about says nothing; only a lock on it does. They also hold between threads of one process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HELD, BUSY, NONE = "held", "busy", "none"  # by us; by somebody else; the file system has no locks, or is read-only
POLL = 0.05  # seconds between two tries: waiting in the system call would hold up Ctrl-C on Windows
# What a system says where somebody else has the lock; anything else means that there are no locks.
TAKEN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, waiting: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Hold the lock on a file until the block ends, if it is to be had: gives HELD, BUSY or NONE.

    Args:
        path: the lock file, made where it is missing; whoever holds its lock may delete it.
        wait: until it is free; else BUSY where it is not.
        waiting: called once before a wait.
    """
    descriptor, state = None, BUSY
    try:
        while state == BUSY:
            if descriptor is None:
                descriptor = _opened(path)
            state = NONE if descriptor is None else _taken(descriptor)
            if descriptor is not None and state == HELD and not _still(descriptor, path):
                # Deleted by its holder between our opening and our locking: another file has the name, or none.
                os.close(descriptor)
                descriptor, state = None, BUSY
            elif state == BUSY:
                if not wait:
                    break
                waiting()
                waiting = lambda: None  # noqa: E731
                time.sleep(POLL)
        yield state
    finally:
        if descriptor is not None:
            if state == HELD:
                _release(descriptor)
            os.close(descriptor)


def _opened(path: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # the latter where the directory is read-only
        with contextlib.suppress(OSError):
            return os.open(path, flags, 0o666)
    return None


def _still(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


if sys.platform == "win32":
    import msvcrt

    def _taken(descriptor: int) -> str:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return BUSY if error.errno in TAKEN else NONE
        return HELD

    def _release(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _taken(descriptor: int) -> str:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return BUSY if error.errno in TAKEN else NONE
        return HELD

    def _release(descriptor: int) -> None:
        # Not left to close: a child that was forked meanwhile has the descriptor too, and would keep the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
