"""Our operators for CUDA under onnxruntime's CUDA provider: whether they run, and the algorithms that they chose.

Which algorithm a product takes is timed when the first session is loaded, and decides the last bits of vectors. It is
kept in the user's cache by model of the card and cuBLASLt, so that later processes on this machine, and those of other
cards of that model, neither time again nor compute other bits. The driver's version is no part of the key: algorithms
are cuBLASLt's own code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import ProviderUnavailableError
from ..native import cuda
from ..system import user_cache
from ..system.locks import locked
from . import nvidia
from .providers import available_providers, load_onnxruntime

FOLDER = "cuda"
PROVIDER = "CUDAExecutionProvider"
MARK = b"fastembed_rt algorithms 3\n"  # of the file's first line; its second is the sha256 of what follows


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


@dataclass(frozen=True)
class Known:
    """What is kept: the choices, and the graphs (their files' sha256) whose products are all among them."""

    choices: bytes = b""
    graphs: frozenset[str] = frozenset()


@contextmanager
def remembered(device: int, graph: str) -> Iterator[None]:
    """A session of a graph made inside takes what earlier processes chose, and what it chooses is kept.

    Of processes, and threads, that load a graph for the first time one times its products, while the others wait: two
    cards that share the texts of one call would compute other bits if each timed by itself. A file that is damaged, or
    a directory that cannot be written, costs the timing, no failure.

    Args:
        device: the GPU's number.
        graph: sha256 of its file.
    """
    library, file = cuda.library(), _file(device)
    lock = file.with_suffix(".lock")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if graph in read(file).graphs else locked(lock) as held:
        before = read(file)
        cuda.learn(library, device, before.choices)
        yield
        with nullcontext() if held is not None else locked(lock):
            now = before if held is not None else read(file)
            cuda.learn(library, device, now.choices)  # of others meanwhile
            made = Known(cuda.choices(library, device), now.graphs | {graph})
            if made != now:
                with contextlib.suppress(OSError):
                    write(file, made)


def read(file: Path) -> Known:
    """What is in a file; nothing where it is not there or not whole."""
    try:
        content = file.read_bytes()
    except OSError:
        return Known()
    mark, digest, rest = (*content.split(b"\n", 2), b"", b"")[:3]
    if mark + b"\n" != MARK or digest != hashlib.sha256(rest).hexdigest().encode():
        return Known()
    graphs, choices = rest.split(b"\n", 1)
    return Known(choices, frozenset(json.loads(graphs)))


def write(file: Path, known: Known) -> None:
    """Put it into a file, at once: who reads it finds the old or the new."""
    rest = json.dumps(sorted(known.graphs)).encode() + b"\n" + known.choices
    user_cache.write_whole(file, MARK + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


def _file(device: int) -> Path:
    """By model of the card, version of cuBLASLt, and of what is written."""
    facts = f"{nvidia.device_name(device)}\n{cuda.version(cuda.library())}\n{MARK.decode()}"
    return user_cache.folder(FOLDER) / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.algorithms"
