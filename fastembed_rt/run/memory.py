"""Memory of this process: what it had at most; giving back what is free.

Batches of ever other sizes leave holes between what lives longer, and glibc keeps what is free above and between: the
resident set of a process that encodes texts of random length crept up to twice what it needs, and on from there.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

SECONDS = 1.0  # at least between two trims: one takes about 5 ms


class Trimmer:
    """Trims now and then; other C libraries than glibc have nothing to trim."""

    def __init__(self) -> None:
        self._next = 0.0

    def after_bulk(self) -> None:
        """Give back what is free, unless that was done a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS
        trim = _malloc_trim()
        if trim is not None:
            trim(0)


def peak() -> int | None:
    """Most resident bytes of this process so far; None where the system does not tell."""
    try:
        # Not getrusage on Linux: its maximum outlives exec and would be the parent's.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is None:  # musl
        return None
    function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return function  # type: ignore[no-any-return]
