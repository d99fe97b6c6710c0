"""Memory of this process: what it had at most; giving back what is free.

Batches of ever other sizes leave holes between what lives longer, and glibc keeps what is free above and between: the
resident set of a process that encodes texts of random length crept up to twice what it needs, and on from there.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import native

SECONDS = 1.0  # at least between two trims: one takes about 5 ms
GROWN = 192 << 20  # bytes by which a long job may grow before it trims, or a quarter of what it has
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt
_MAPPED_AT_MOST = 32 << 20  # bytes; glibc takes no higher threshold
_CPUS_A_HEAP = 4  # threads of so many share one without waiting for each other; glibc has eight for each CPU


class Trimmer:
    """Trims now and then: what our operators keep, and glibc; other C libraries have nothing to trim."""

    keeping = False  # see `keep_free`

    def __init__(self) -> None:
        self._next = 0.0
        self._most = 0  # resident bytes up to which what is free is kept

    def after_bulk(self) -> None:
        """Give back what is free, unless that was done a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS
        if self.keeping and resident() <= self._most:
            return
        give_back()
        if self.keeping:
            now_resident = resident()
            self._most = now_resident + max(GROWN, now_resident // 4)


def share_heaps() -> None:
    """Have the threads of this process share a few heaps: for long jobs, before their threads begin.

    glibc gives each thread a heap of its own. Those of the model, the tokenizer, the reader and the writer then each
    keep room for the most that one ever had. One heap has room for the most that all had together. Where the user has
    said how many (MALLOC_ARENA_MAX), that holds.
    """
    mallopt = _function("mallopt")
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_ARENA_MAX, max((os.cpu_count() or 1) // _CPUS_A_HEAP, 1))


def keep_free(mapped: int) -> None:
    """Have this process keep what is free for its next texts, as long as it does not grow: for long jobs.

    To trim after each few thousand texts gives back what the next ones need, tens of megabytes back and forth. Instead,
    arrays of `mapped` bytes and more are mapped one by one, so that they leave no holes, and a trim comes when the
    process has grown since the last one.
    """
    Trimmer.keeping = True
    mallopt = _function("mallopt")
    if mallopt is not None and mapped > 0:
        mallopt(_MMAP_THRESHOLD, min(mapped, _MAPPED_AT_MOST))
        # To set one threshold ends glibc's own choice of both, and this one stays at 128 KB: each batch would give its
        # memory back, and the next one fault it in again.
        mallopt(_TRIM_THRESHOLD, GROWN)


def resident() -> int:
    """Resident bytes of this process now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def give_back() -> None:
    """Give back what is free; takes about 5 ms."""
    native.trim()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


def outside(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Zeros outside the heap: what lives long there leaves holes around it, and what is freed here is given back."""
    count = math.prod(shape)
    size = max(count * np.dtype(dtype).itemsize, 1)
    own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # Windows has none
    return np.frombuffer(mmap.mmap(-1, size, **own), dtype, count).reshape(shape)


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
    function = _function("malloc_trim")
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return function  # type: ignore[no-any-return]


def _function(name: str) -> Any:
    """Of glibc; None elsewhere. musl has a mallopt that does nothing, and no malloc_trim."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "malloc_trim") else None
