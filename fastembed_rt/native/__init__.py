"""Our own operators for onnxruntime's CPU provider: INT8 and bfloat16 layers and attention in C, see src/.

They are compiled when the package is built, for the systems that build.py names; elsewhere graphs made of stock
operators run.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..machine import is_built_whole

LIBRARY = "fastembed_rt_operators.so"  # as build.py names it, which stands alone
SYSTEMS = {"linux": "Linux", "darwin": "macOS"}  # which have kernels, on these processors; as build.py has them
NAMES = {**SYSTEMS, "win32": "Windows"}
MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")
DOMAIN = "fastembed_rt"
# Without pip's cache, which may have a wheel that was made without a compiler; a failure is an error that says why.
AGAIN = (
    "FASTEMBED_RT_NATIVE=1 pip install --force-reinstall --no-deps --no-cache-dir --no-binary fastembed-rt fastembed-rt"
)
COMPILE = f"install a C compiler (gcc 9, clang 11, or later) if there is none, and then: {AGAIN}"
COMPILE_ALL = f"install a newer C compiler (gcc 11, clang 12, or later; CC names it) and then: {AGAIN}"
BUILD_AGAIN = (
    f"build the program again where the package has fastembed_rt/native/{LIBRARY}, and keep fastembed_rt out of "
    "archives: PyInstaller, cx_Freeze and Nuitka take it by themselves"
)
UNPACK = "install the package into a folder, or build with shiv, whose programs unpack themselves"
BF16 = {"amx": "AMX", "avx512bf16": "AVX512-BF16"}  # kernels -> their instructions for products of bfloat16 numbers
SWITCH = "FASTEMBED_RT_KERNELS"  # environment: name of the kernels to take instead of the best ones


def library() -> Path:
    """Where the compiled operators are, if they are."""
    return Path(__file__).parent / LIBRARY


def kernels() -> str | None:
    """Which kernels run on this processor, None where none do.

    amx, avx512bf16, avx512vnni, avxvnni or avx2 on x86-64; neoni8mm, neondotprod or neon on Arm.
    """
    return _examined(library())[0]


def bf16_products() -> str:
    """What bfloat16 numbers are multiplied with here; "" where our operators do not run."""
    name = kernels()
    return "" if name is None else BF16.get(name, "float32 products")


def why_not() -> str | None:
    """Why the operators do not run here; None where they do."""
    return _examined(library())[1]


def left_out() -> str:
    """Name of the kernels that are best on this processor and that the compiler of this library did not know; or ""."""
    if kernels() is None:
        return ""
    found = ctypes.CDLL(str(library())).fastembed_rt_left_out
    found.restype = ctypes.c_char_p
    name: bytes = found()
    return name.decode()


def remedy() -> str:
    """What makes the operators run here, or the best of them; "" where they do, or nothing does."""
    if left_out():
        return COMPILE_ALL
    if library().is_file():
        return COMPILE if "of another version" in (why_not() or "") else ""
    if not _has_kernels(sys.platform, platform.machine()):
        return ""
    if is_built_whole():
        return BUILD_AGAIN
    return COMPILE if _archive(library()) is None else UNPACK


def share_packed(folder: str) -> bool:
    """Have weights that are packed from now on lie in files of this folder, or with "" in memory of this process.

    All processes that name the same folder have them in memory once. False: this system does not, or the name is too
    long.
    """
    return bool(ctypes.CDLL(str(library())).fastembed_rt_share_packed(os.fsencode(folder)))


def unshared() -> int:
    """Layers packed since the last call that were to be in the folder, and for which there was no room in it."""
    return int(ctypes.CDLL(str(library())).fastembed_rt_unshared())


def trim() -> None:
    """Give back memory that calls of the operators have left for the next ones, where there is some."""
    if kernels() is not None:
        ctypes.CDLL(str(library())).fastembed_rt_trim()


class TokenizerFunctions(NamedTuple):
    """Of one kind of tokenizer in C, for text/quick.py and what is built on it."""

    read: Any  # the vocabulary of a tokenizer.json, src/vocabulary.c
    merges: Any  # likewise, where there are some
    new: Any
    free: Any
    encode_few: Any  # nothing else of Python runs meanwhile
    encode_many: Any


def wordpiece() -> TokenizerFunctions | None:
    """The functions of src/wordpiece.c, on whichever processor; None where no library was compiled."""
    return _tokenizer("wordpiece", "words", "ppp q spqs ipip p ii")


def unigram() -> TokenizerFunctions | None:
    """Likewise of src/unigram.c."""
    return _tokenizer("unigram", "scored", "ppp q sppq q sqsq sp ii p")


def bpe() -> TokenizerFunctions | None:
    """Likewise of src/bpe.c."""
    return _tokenizer("bpe", "words", "ppp q ppq spp sq iii pp")


@cache
def _tokenizer(kind: str, vocabulary: str, new: str) -> TokenizerFunctions | None:
    """`new` are the types that one is made of: pointers, strings of bytes, numbers of 64 and of 32 bits."""
    types = {"p": ctypes.c_void_p, "s": ctypes.c_char_p, "q": ctypes.c_int64, "i": ctypes.c_int32}

    def function(of: ctypes.CDLL, name: str, result: Any, given: str) -> Any:
        found = getattr(of, f"fastembed_rt_{name}")
        found.restype, found.argtypes = result, [types[letter] for letter in given.replace(" ", "")]
        return found

    try:
        many, few = ctypes.CDLL(str(library())), ctypes.PyDLL(str(library()))
        return TokenizerFunctions(
            function(many, f"vocabulary_{vocabulary}", types["q"], "pqpppp"),
            function(many, "vocabulary_merges", types["q"], "pqppp"),
            function(many, f"{kind}_new", types["p"], new),
            function(many, f"{kind}_free", None, "p"),
            function(few, f"{kind}_rows", None, "ps qq p qq p"),
            function(many, f"{kind}_rows", None, "ps qq p qq p"),
        )
    except (OSError, AttributeError):  # none, of another system, or left in a source tree
        return None


def _followed() -> None:
    """Never called: tools that build programs put into them what is imported somewhere; these they take for modules."""
    from . import fastembed_rt_cuda_operators, fastembed_rt_operators  # type: ignore[attr-defined]  # noqa: F401


@cache
def _examined(path: Path) -> tuple[str | None, str | None]:
    """Name of the kernels of a library that run here, or None and why not.

    The library checks itself first: kernels that compute something else on this machine than they should do not run.
    """
    if not path.is_file():
        return None, _why_missing(sys.platform, platform.machine(), frozen=is_built_whole(), archive=_archive(path))
    try:
        loaded = ctypes.CDLL(str(path))
        found, wrong = loaded.fastembed_rt_kernels, loaded.fastembed_rt_selfcheck
        _ = loaded.fastembed_rt_share_packed, loaded.fastembed_rt_unshared, loaded.fastembed_rt_left_out
        _ = loaded.fastembed_rt_trim
    except OSError as error:  # of another system
        return None, f"{path.name} does not load: {error}"
    except AttributeError:  # left in a source tree
        return None, f"{path.name} is of another version; compile it again (python -m fastembed_rt.native.build)"
    found.restype = wrong.restype = ctypes.c_char_p
    name, what = found().decode(), wrong().decode()
    if not name:
        return None, "this processor has none of AVX512-VNNI, AVX-VNNI, AVX2 with FMA"
    if what:
        return None, f"the {name} kernels fail their self-check: {what} comes out wrong on this machine; report it"
    return name, None


def _why_missing(system: str, machine: str, *, frozen: bool = False, archive: Path | None = None) -> str:
    """Why an installation has no library, or a program that was built whole, or an archive that Python imports from."""
    if frozen and _has_kernels(system, machine):
        return f"{LIBRARY} was left out of this program when it was built"
    if archive is not None and _has_kernels(system, machine):
        return f"the package lies in {archive.name}, and no library can be loaded out of an archive"
    if _has_kernels(system, machine):
        return "they were not compiled with this installation: there was no C compiler then, or it failed"
    return f"there are no kernels for {NAMES.get(system, system)} on {machine} yet"


def _archive(path: Path) -> Path | None:
    """The file that a path leads into, such as a zipapp; None: there is none."""
    return next((parent for parent in path.parents if parent.is_file()), None)


def _has_kernels(system: str, machine: str) -> bool:
    """Whether there are any to be compiled."""
    return system in SYSTEMS and machine in MACHINES
