"""Our own operators for onnxruntime's CUDA provider: products through cuBLASLt, normalizations, means; see src/cuda/.

They are plain C, compiled with the package on Linux, and find cuBLASLt and the driver when they are opened. Where they
do not run, graphs of target cuda do.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

from . import COMPILE

LIBRARY = "fastembed_rt_cuda_operators.so"  # as build.py names it, which stands alone
DOMAIN = "fastembed_rt.cuda"
TARGET = "cuda-native"  # of graphs that they are in
DRIVER = "libcuda.so.1"
OLDEST = {"fp16": 75, "bf16": 80, "fp8": 89}  # compute capability that has products of a precision


def library() -> Path:
    """Where the compiled operators are, if they are."""
    return Path(__file__).parent / LIBRARY


def cublaslt(major: str) -> str:
    """The file name of cuBLASLt for CUDA "12" or "13"."""
    return f"libcublasLt.so.{major}"


@cache
def loaded(path: Path) -> ctypes.CDLL:
    """The library at a path, its functions declared.

    Raises:
        OSError: it does not load.
        AttributeError: it is of another version.
    """
    found = ctypes.CDLL(str(path))
    found.fastembed_rt_cuda_open.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
    found.fastembed_rt_cuda_open.restype = ctypes.c_char_p
    found.fastembed_rt_cuda_capability.argtypes = [ctypes.c_int]
    found.fastembed_rt_cuda_version.restype = ctypes.c_size_t
    found.fastembed_rt_cuda_choices.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    found.fastembed_rt_cuda_choices.restype = ctypes.c_size_t
    found.fastembed_rt_cuda_learn.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    found.fastembed_rt_cuda_learn.restype = None
    return found


def open_libraries(path: Path, cublaslt_file: str, driver_file: str = DRIVER, *, stand_ins: bool = False) -> str | None:
    """Have the operators at a path open cuBLASLt and the driver, once a process; None, or why they cannot.

    `stand_ins`: these compute on the host, and the operators belong to the CPU's provider.
    """
    if not path.is_file():
        if sys.platform != "linux":
            return "there are none for this system yet"
        return f"they were not compiled with this installation; {COMPILE}"
    try:
        found = loaded(path)
    except OSError as error:
        return f"{path.name} does not load: {error}"
    except AttributeError:  # left in a source tree
        return f"{path.name} is of another version; compile it again (python -m fastembed_rt.native.build)"
    why: bytes = found.fastembed_rt_cuda_open(cublaslt_file.encode(), driver_file.encode(), int(stand_ins))
    return why.decode(errors="replace") or None


def capability(path: Path, device: int) -> int:
    """Compute capability of a device, 90 for 9.0, when the libraries are open; -1 where it does not tell."""
    return int(loaded(path).fastembed_rt_cuda_capability(device))


def why_not_on(capability: int, precision: str) -> str | None:
    """Why the operators do not run on a card of this compute capability; None where they do."""
    oldest = OLDEST.get(precision)
    if oldest is None:
        *others, last = OLDEST
        return f"they are for {', '.join(others)} and {last}, not {precision}"
    if capability < oldest:
        has = f"this card has {capability // 10}.{capability % 10}" if capability >= 0 else "the card tells none"
        return f"{precision} wants compute capability {oldest // 10}.{oldest % 10}, {has}"
    return None


def version(path: Path) -> int:
    """cuBLASLt's own number, 130000 for 13.0; 0 before it is open."""
    return int(loaded(path).fastembed_rt_cuda_version())


def choices(path: Path, device: int) -> bytes:
    """Which algorithm each product has on a device: bytes for `learn`, of the same cuBLASLt on the same model."""
    found = loaded(path)
    room = int(found.fastembed_rt_cuda_choices(device, None, 0))
    buffer = ctypes.create_string_buffer(max(room, 1))
    size = min(int(found.fastembed_rt_cuda_choices(device, buffer, room)), room)
    return buffer.raw[:size]


def learn(path: Path, device: int, choices: bytes) -> None:
    """Take what an earlier process chose; what this one chose already stays."""
    loaded(path).fastembed_rt_cuda_learn(device, choices, len(choices))
