"""Layers with bfloat16 weights against their arithmetic in numpy, to the bit, and with instructions emulated in C."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from native_operators import ACTIVATIONS, LIBRARY, Group, attention, block, erf_gelu, normed, run

from fastembed_rt import native
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
BF16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
INSTRUCTIONS = Path(__file__).parent / "emulated" / "instructions.h"


class Bf16Group:
    """A group of random layers: what the operator gets, and what it has to compute."""

    def __init__(self, random: np.random.Generator, inputs: int, outputs: tuple[int, ...]) -> None:
        self.values = [random.normal(0, 0.1, (inputs, width)).astype(BF16) for width in outputs]
        self.biases = [random.normal(0, 1, width).astype(np.float32) for width in outputs]

    def tensors(self) -> list[Array]:
        return [one for both in zip(self.values, self.biases, strict=True) for one in both]

    def attributes(self, prefix: str) -> dict[str, Any]:
        return {f"{prefix}_layers": len(self.values)}

    def __call__(self, x: Array) -> Array:
        return rounded(x).astype(np.float64) @ self.weight().astype(np.float64) + np.concatenate(self.biases)

    def weight(self) -> Array:
        return np.concatenate(self.values, axis=1).astype(np.float32)


def rounded(x: Array) -> Array:
    """To bfloat16, half to even; small numbers to multiples of 2^-63."""
    near: Array = x.astype(np.float32).astype(BF16).astype(np.float32)
    small = np.abs(x) < 2.0**-56
    return np.where(small, np.rint(x.astype(np.float64) * 2.0**63) * 2.0**-63, near).astype(np.float32)


def add(sums: Array, terms: Array) -> Array:
    """float32 + float64, rounded once to float32.

    By way of the float64 beside the sum that is odd, of the two where it is not exact (Boldo and Melquiond 2008,
    doi:10.1109/TC.2007.70819): rounded twice, half could come of less than half.
    """
    left = sums.astype(np.float64)
    total: Array = left + terms
    part = total - left
    off = (left - (total - part)) + (terms - part)
    even = total.view(np.int64) % 2 == 0
    return np.where((off != 0) & even, np.nextafter(total, np.copysign(np.inf, off)), total).astype(np.float32)


def in_pairs(x: Array, weight: Array) -> Array:
    """Sums of products of (rows, K) and (K, N) as VDPBF16PS adds them: of each two k the second first."""
    sums = np.zeros((len(x), weight.shape[1]), np.float32)
    for k in range(0, len(weight) + 1, 2):
        for own in (k + 1, k):
            if own < len(weight):
                sums = add(sums, np.outer(x[:, own], weight[own]))
    return sums


def in_tiles(x: Array, weight: Array) -> Array:
    """As TDPBF16PS adds them: 32 k at a time, the even ones and the odd ones each by themselves."""
    sums = np.zeros((len(x), weight.shape[1]), np.float32)
    for first in range(0, len(weight), 32):
        parts = [np.zeros_like(sums), np.zeros_like(sums)]
        for k in range(first, min(first + 32, len(weight))):
            parts[k % 2] = add(parts[k % 2], np.outer(x[:, k], weight[k]))
        sums = sums + (parts[0] + parts[1])
    return sums


Sums = Callable[[Array, Array], Array]


def emulated(directory: Path, macro: str) -> Path:
    """The operators with kernels for instructions in plain C, whatever the processor."""
    flags = (*build.AVX2, "-O1", f"-D{macro}", "-include", str(INSTRUCTIONS))
    names = [name for name in build.KERNELS if name != "kernels_avx2"]
    same = [f"-Wl,--defsym={name}=kernels_avx2" for name in names]
    return build.build(directory / f"{macro.lower()}.so", {"kernels_avx2": flags}, same)


@pytest.fixture(scope="module")
def dot_in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulated(tmp_path_factory.mktemp("dot"), "BF16_DOT_IN_C")


@pytest.fixture(scope="module")
def tiles_in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulated(tmp_path_factory.mktemp("tiles"), "TILES_IN_C")


def test_x(tiles_in_c: Path, dot_in_c: Path) -> None:
    for rows, inputs, outputs in [(1, 4, (1,)), (7, 24, (24, 24, 24)), (9, 33, (17,)), (65, 48, (50, 7)), (37, 130, (70,))]:
        random = np.random.default_rng(rows)
        group = Bf16Group(random, inputs, outputs)
        x = random.normal(0, 3, (rows, inputs)).astype(np.float32)
        for lib, sums in ((LIBRARY, in_pairs), (dot_in_c, in_pairs), (tiles_in_c, in_tiles)):
            found = run("Bf16Linear", {"x": x}, group.tensors(), library=lib, **group.attributes("linear"))
            expected = sums(rounded(x), group.weight()) + np.concatenate(group.biases)
            np.testing.assert_array_equal(found, expected, err_msg=f"{lib} {rows}")
