"""The operators with kernels for instructions that few processors have, which instructions_in_c.h has in plain C."""

from __future__ import annotations

from pathlib import Path

from fastembed_rt.native import build

HEADER = Path(__file__).with_suffix(".h")
OTHERS = [name for name in build.KERNELS if name != "kernels_avx2"]
# The one set of kernels stands in for all others: whatever the processor, it is the one that runs.
ALIASES = tuple(f"-Wl,--defsym={name}=kernels_avx2" for name in OTHERS)


def kernels(macro: str) -> dict[str, tuple[str, ...]]:
    """Of `build`: the kernels for the instructions that `macro` names in the header."""
    return {"kernels_avx2": (*build.AVX2, "-O1", f"-D{macro}", "-include", str(HEADER))}


def library(directory: Path, macro: str) -> Path:
    """The operators with those kernels."""
    return build.build(directory / f"{macro.lower()}.so", kernels(macro), ALIASES)
