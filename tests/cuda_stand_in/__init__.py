"""cuBLASLt and the CUDA driver in one library that computes on the host: the operators for CUDA run without a card.

Products are plain loops with algorithms that add up in different orders; kernels are those of the .cu files, compiled
by g++ (on_host.h). The operators belong to the CPU's provider then.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

from compiled_once import compile_once

from fastembed_rt.native import build as build_module

HERE = Path(__file__).parent
NAME = "stand_in.so"


def build(into: Path, zig: Sequence[str] | None = None, sources: Path = build_module.SOURCES / "cuda") -> Path:
    """Compile the library into a directory, with the kernels' own sources; its path.

    `zig`: a Python that has ziglang, and flags, to compile for another processor. `sources`: where the .cu files are.
    """
    gcc, cpp_compiler = (
        (["gcc"], ["g++"]) if zig is None else ([zig[0], "-m", "ziglang", tool, *zig[1:]] for tool in ("cc", "c++"))
    )
    flags = [
        "-O2",
        "-U_FORTIFY_SOURCE",  # some compilers' own: it lets no longjmp change stacks
        "-fPIC",
        "-Wall",
        "-Wno-unknown-pragmas",
        "-ffp-contract=off",
        f"-I{HERE}",
        f"-I{sources}",
    ]
    c, cpp, library = into / "cublaslt.o", into / "driver.o", into / NAME
    for command in (
        [*gcc, "-std=gnu11", *flags, "-c", str(HERE / "cublaslt.c"), "-o", str(c)],
        [*cpp_compiler, "-std=c++17", *flags, "-c", str(HERE / "driver.cpp"), "-o", str(cpp)],
        [*cpp_compiler, "-shared", "-o", str(library), str(c), str(cpp), "-lm"],
    ):
        assert compile_once(command) == 0, command
    return library


def names(table: str) -> list[str]:
    """The functions that the operators look for: of lt_names or cuda_names in libraries.c."""
    text = (build_module.SOURCES / "cuda" / "libraries.c").read_text(encoding="utf-8")
    found = re.search(rf"{table}\[\] = \{{(.*?)\}};", text, re.DOTALL)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def functions(library: Path) -> ctypes.CDLL:
    """What tests set and ask: stand_in_*; the same object that the operators have open."""
    found = ctypes.CDLL(str(library))
    found.stand_in_set_cost.argtypes = found.stand_in_set_cost_of_few.argtypes = [ctypes.c_int, ctypes.c_double]
    found.stand_in_products.restype = ctypes.c_long
    found.stand_in_fp8_products.restype = ctypes.c_long
    return found
