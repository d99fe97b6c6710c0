"""Our operators for CUDA under onnxruntime's CUDA provider: whether they run, and the algorithms that they chose.

Which algorithm a product takes is timed when the first session is loaded, and decides the last bits of vectors. It is
kept in the user's cache by device and cuBLASLt, so that later processes on this machine neither time again nor compute
other bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ..errors import ProviderUnavailableError
from ..native import cuda
from ..system import user_cache
from . import nvidia
from .providers import available_providers, load_onnxruntime

FOLDER = "cuda"
PROVIDER = "CUDAExecutionProvider"
MARK = b"fastembed_rt algorithms 2\n"  # of the file's first line; its second is the sha256 of what follows


def why_not(precision: str, device: int = 0) -> str | None:
    """Why the operators do not run on a device in a precision; None where they do."""
    if precision not in cuda.OLDEST:
        return cuda.why_not_on(0, precision)
    return _why_not_open() or cuda.why_not_on(cuda.capability(cuda.library(), device), precision)


def opened() -> Path:
    """The library that sessions register, its own libraries open.

    Raises:
        ProviderUnavailableError: they do not run here.
    """
    why = _why_not_open()
    if why is not None:
        raise ProviderUnavailableError(f"the operators of target {cuda.TARGET!r} do not run here: {why}")
    return cuda.library()


@cache
def _why_not_open() -> str | None:
    if not cuda.library().is_file():
        return cuda.open_libraries(cuda.library(), "")
    if PROVIDER not in available_providers():
        return "this onnxruntime has no provider for CUDA"
    onnxruntime = load_onnxruntime()
    nvidia.preload(onnxruntime)
    major = str(getattr(onnxruntime, "cuda_version", "") or "").partition(".")[0]
    # The one that onnxruntime itself has open, where it says which.
    names = [cuda.cublaslt(major)] if major else [cuda.cublaslt(name) for name in ("13", "12")]
    reasons = [cuda.open_libraries(cuda.library(), name) for name in names]
    return None if None in reasons else reasons[0]


@contextmanager
def remembered(device: int) -> Iterator[None]:
    """Sessions made inside take what earlier processes chose, and what they choose is kept.

    A file that is damaged, or a directory that cannot be written, costs the timing, no failure.
    """
    library = cuda.library()
    file = _file(device)
    known = read(file)
    if known:
        cuda.learn(library, device, known)
    yield
    chosen = cuda.choices(library, device)
    if chosen != known:
        with contextlib.suppress(OSError):
            write(file, chosen)


def read(file: Path) -> bytes:
    """The choices in a file; none where it is not there or not whole."""
    try:
        content = file.read_bytes()
    except OSError:
        return b""
    mark, digest, choices = (*content.split(b"\n", 2), b"", b"")[:3]
    if mark + b"\n" != MARK or digest != hashlib.sha256(choices).hexdigest().encode():
        return b""
    return choices


def write(file: Path, choices: bytes) -> None:
    """Put choices into a file, at once: who reads it finds the old ones or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(MARK + hashlib.sha256(choices).hexdigest().encode() + b"\n" + choices)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _file(device: int) -> Path:
    """By model of the card, version of cuBLASLt, and of what is written."""
    facts = f"{nvidia.device_name(device)}\n{cuda.version(cuda.library())}\n{MARK.decode()}"
    return user_cache.folder(FOLDER) / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.algorithms"
