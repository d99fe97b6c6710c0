"""Sessions of one process beside one that captures a CUDA graph: what each does is no matter of the other.

onnxruntime captures in CUDA's global mode. Until it is done, whatever might disturb a capture (memory, page locks,
waits, copies, the end of a captured graph) fails in every thread of the process, for models and devices that have
nothing to do with it, and the capture fails with it; but not in threads that say that they know better. Those here do:
no session touches another's stream, and a session's own captures hold up its other runs (cuda.py).
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .providers import load_onnxruntime

THREAD_LOCAL = 1  # cudaStreamCaptureMode: captures of other threads forbid this one nothing
_threads = threading.local()
_opened: dict[str, Any] = {}


@contextmanager
def apart() -> Iterator[None]:
    """Inside, this thread is not held up by captures of others."""
    before = _exchanged(THREAD_LOCAL)
    try:
        yield
    finally:
        if before is not None:
            _exchanged(before)


def stand_apart() -> None:
    """The same for good, for a thread of our own."""
    if not getattr(_threads, "apart", False):
        _threads.apart = _exchanged(THREAD_LOCAL) is not None


def cuda_runtime() -> Any:
    """CUDA's runtime library, which onnxruntime has loaded; None where its name is not known."""
    major = (getattr(load_onnxruntime(), "cuda_version", "") or "").partition(".")[0]
    name = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    if name not in _opened:
        with suppress(OSError):
            _opened[name] = ctypes.CDLL(name)
    return _opened.get(name)


def forget_error(runtime: Any) -> None:
    """Of a call that failed: CUDA keeps it for this thread, and onnxruntime would take it for one of its kernels."""
    runtime.cudaGetLastError()


def _exchanged(mode: int) -> int | None:
    """The mode that this thread had; None where CUDA is not there, or does not tell."""
    runtime, given = cuda_runtime(), ctypes.c_int(mode)
    if runtime is None:
        return None
    if runtime.cudaThreadExchangeStreamCaptureMode(ctypes.byref(given)):
        forget_error(runtime)
        return None
    return given.value
