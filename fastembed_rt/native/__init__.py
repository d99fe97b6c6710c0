"""Our own operators for onnxruntime's CPU provider: INT8 layers and attention in C, see src/.

They are compiled when the package is built, for Linux on x86-64; elsewhere graphs made of stock operators run.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

LIBRARY = "fastembed_rt_operators.so"  # as build.py names it, which stands alone
DOMAIN = "fastembed_rt"
SWITCH = "FASTEMBED_RT_KERNELS"  # environment: name of the kernels to take instead of the best ones


def library() -> Path:
    """Where the compiled operators are, if they are."""
    return Path(__file__).parent / LIBRARY


@cache
def kernels() -> str | None:
    """Which kernels run on this processor: avx512vnni, avxvnni or avx2; None where none do."""
    path = library()
    if not path.is_file():
        return None
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:  # of another system
        return None
    function = loaded.fastembed_rt_kernels
    function.restype = ctypes.c_char_p
    return function().decode() or None


def why_not() -> str | None:
    """Why the operators do not run here; None where they do."""
    if kernels() is not None:
        return None
    if not library().is_file():
        return "they were not compiled with this installation (Linux on x86-64 with a C compiler compiles them)"
    return "this processor has none of AVX512-VNNI, AVX-VNNI, AVX2 with FMA"
