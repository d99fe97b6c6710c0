"""Unfinished outputs: who writes one holds a lock on it, and what nobody holds a dead process has left behind.

A lock ends with its process, however that ends, and is seen from other containers, where a process number means
nothing. Where there are no such locks (Windows, some network file systems) nothing is taken for left behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl

    LOCKS = True
except ImportError:  # Windows
    LOCKS = False


@contextlib.contextmanager
def unfinished(fresh: Callable[[], Path], create: Callable[[Path], object]) -> Iterator[Path]:
    """What `create` makes, a file or a directory, under a name of `fresh` that nothing else has.

    It is held until the block ends, and removed then if it still has that name.
    """
    names: list[Path] = []
    lock: int | None = None
    try:
        while True:
            path = fresh()
            names.append(path)  # before there is anything: a signal in between leaves nothing behind either
            try:
                create(path)
            except FileExistsError:  # somebody else's
                names.pop()
                continue
            lock = _lock(path, wait=True)
            if path.exists() and (lock is None or _is(lock, path)):
                break
            if lock is not None:  # taken for left behind, and removed, between its making and its locking: make another
                os.close(lock)
                lock = None
        yield path
    finally:
        for path in names:
            remove(path)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file or directory that is there already until the block ends, where that is possible."""
    lock = _lock(path, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def left_behind(folder: Path, pattern: re.Pattern[str]) -> Iterator[list[Path]]:
    """The entries of a folder whose whole names match and that no process works on; held until the block ends."""
    entries: list[Path] = []
    with contextlib.suppress(OSError):  # no such folder, or one whose entries are not ours to see
        entries = sorted(folder.iterdir())
    found: list[Path] = []
    with contextlib.ExitStack() as locks:
        for path in entries:
            if pattern.fullmatch(path.name) and not path.is_symlink():
                lock = _lock(path, wait=False)
                if lock is None:
                    continue
                locks.callback(os.close, lock)
                if _is(lock, path):  # or it was removed meanwhile, and the name is another's
                    found.append(path)
        yield found


def remove_left_behind(folder: Path, pattern: re.Pattern[str]) -> None:
    """Delete them; what cannot be deleted stays."""
    with left_behind(folder, pattern) as found:
        for path in found:
            remove(path)


def remove(path: Path) -> None:
    """Delete a file or a directory, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _lock(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock on a file or directory; None where there is none to be had."""
    if not LOCKS:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # somebody works on it, or the file system has no locks
        os.close(descriptor)
        return None
    return descriptor


def _is(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
