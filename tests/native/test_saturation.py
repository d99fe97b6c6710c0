"""Integer sums at the ends of their range, where an instruction that adds products of bytes in 16 bits would saturate.

The last test runs these and others again with the kernels that every processor has, whose weights are packed for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from native_operators import Group, model, open_session, run

from fastembed_rt import native
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
OLDEST = list(build.kernels_of())[-1].removeprefix("kernels_")
AGAIN = ("test_saturation.py", "test_operators.py", "test_shared_weights.py", "test_shared_files.py")

# Weights (inputs, outputs), from nothing that saturates to nothing that does not.
WEIGHTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "small": lambda random, shape: random.integers(-64, 65, shape),
    "just fits": lambda _, shape: np.where(np.arange(shape[1]) % 2, 64, -64) * np.ones((shape[0], 1), np.int64),
    "one too many": lambda _, shape: np.where(np.arange(shape[0]) % 2, 64, 65)[:, None] * np.ones(shape, np.int64),
    "trained": lambda random, shape: np.clip(np.rint(random.normal(0, 30, shape)), -127, 127),
    "even": lambda random, shape: random.integers(-128, 128, shape),
    "ends": lambda random, shape: random.choice([-128, 127], shape),
    "highest": lambda _, shape: np.full(shape, 127),
    "lowest": lambda _, shape: np.full(shape, -128),
    "a column": lambda _, shape: np.where(np.arange(shape[1]) == shape[1] // 2, 127, 1) * np.ones((shape[0], 1)),
    "a step": lambda _, shape: np.where(np.arange(shape[0]) // 4 == shape[0] // 8, -128, 1)[:, None] * np.ones(shape),
}


def group_of(inputs: int, widths: Sequence[int], weights: str, zero: int) -> Group:
    random = np.random.default_rng(0)
    group = Group(random, inputs, widths, zero=zero)
    group.values = tuple(WEIGHTS[weights](random, (inputs, width)).astype(np.int8) for width in widths)
    return group


def rows_of(group: Group, inputs: int) -> Array:
    """Of the largest integers, of the least, of both, and of any."""
    low, high = -group.zero * float(group.scale), (255 - group.zero) * float(group.scale)
    random = np.random.default_rng(1)
    ends = [np.full(inputs, high), np.full(inputs, low), np.where(np.arange(inputs) % 2, high, low)]
    return np.concatenate([ends, random.uniform(low, high, (8, inputs))]).astype(np.float32)


@pytest.mark.parametrize("zero", [0, 200])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("inputs", "widths"), [(3, [5, 7, 9]), (37, [20, 12]), (384, [12, 12, 8]), (1100, [20, 12])])
def test_sums_are_exact(inputs: int, widths: list[int], weights: str, zero: int) -> None:
    group = group_of(inputs, widths, weights, zero)
    group.scales = tuple(np.ones_like(scales) for scales in group.scales)
    group.biases = [np.zeros_like(bias) for bias in group.biases]
    group.scale = np.float32(1)  # sums come out as they are, and as the nearest float beyond 2^24
    x = rows_of(group, inputs).round()
    found = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    sums = x.astype(np.int64) @ np.concatenate(group.values, axis=1).astype(np.int64)
    np.testing.assert_array_equal(found, sums.astype(np.float32))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("inputs", "widths"), [(37, [20, 12]), (384, [12, 12, 8]), (1100, [20, 12])])
def test_tails_meet_the_whole_weights(inputs: int, widths: list[int], weights: str) -> None:
    group = group_of(inputs, widths, weights, 100)
    group.tails = True
    x = 1.5 * rows_of(group, inputs)
    found = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    np.testing.assert_allclose(found, group(x), rtol=1e-5, atol=1e-5 * float(np.abs(group(x)).max()))


@pytest.mark.parametrize("change", [(100, 100, 99, 101), (127, 1, 126, 2), (127, 1, 127, 2), (-128, -128, -127, -128)])
def test_layers_that_differ_in_a_pair_keep_their_own(change: tuple[int, int, int, int]) -> None:
    first, second = group_of(64, [16], "trained", 128), group_of(64, [16], "trained", 128)
    first.values[0][8:10, 3], second.values[0][8:10, 3] = change[:2], change[2:]
    x = rows_of(first, 64)
    sessions = [
        open_session(model("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear")))
        for group in (first, second)
    ]
    for group, session in zip((first, second), sessions, strict=True):
        (found,) = session.run(["y"], {"x": x})
        np.testing.assert_allclose(found, group(x), rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(native.kernels() == OLDEST, reason="these are the kernels that ran")
def test_all_of_this_with_the_oldest_kernels() -> None:
    environment = {
        **os.environ,
        native.SWITCH: OLDEST,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    files = [str(Path(__file__).with_name(name)) for name in AGAIN]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
