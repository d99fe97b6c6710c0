"""The operators with kernels for instructions that few processors have, which instructions_in_c.h has in plain C."""

from __future__ import annotations

from pathlib import Path

from fastembed_rt.native import build

HEADER = Path(__file__).with_suffix(".h")


def alone(name: str) -> tuple[str, ...]:
    """Flags of the linker with which the kernels `name` stand in for all others: they are the ones that run."""
    return tuple(f"-Wl,--defsym={other}={name}" for other in build.KERNELS if other != name)


def kernels(macro: str) -> dict[str, tuple[str, ...]]:
    """Of `build`: the kernels for the instructions that `macro` names in the header."""
    return {"kernels_avx2": (*build.AVX2, "-O1", f"-D{macro}", "-include", str(HEADER))}


def library(directory: Path, macro: str) -> Path:
    """The operators with those kernels."""
    return build.build(directory / f"{macro.lower()}.so", kernels(macro), alone("kernels_avx2"))
