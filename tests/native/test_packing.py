"""Weights are packed to the bit, whatever the shapes, and those of a session that is there are found again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from instructions_in_c import library
from native_operators import LIBRARY, FloatGroup, Group, model, open_session

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
BF16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)

# Layers that begin at a panel and within one, and end within one; inputs that end within a step of any processor.
SHAPES = [(1, (1, 16)), (3, (5, 32, 11)), (6, (16, 7, 40)), (18, (3, 13, 64)), (37, (48, 1, 17)), (64, (16, 32))]


class Bf16Group(FloatGroup):
    dtype = BF16


def made(kind: str, inputs: int, outputs: tuple[int, ...]) -> Any:
    """Layers whose outputs for rows of one 1 are their weights: of all sizes, and with zeros."""
    random = np.random.default_rng(inputs)
    if kind == "Quant":
        group: Any = Group(random, inputs, outputs, zero=3)
        group.values = tuple(random.integers(-128, 128, (inputs, width)).astype(np.int8) for width in outputs)
        group.scale, group.scales = np.float32(1), [np.ones(width, np.float32) for width in outputs]
    else:
        group = (Bf16Group if kind == "Bf16" else FloatGroup)(random, inputs, outputs)
        for values in group.values:
            powers = 2.0 ** random.integers(-70, -40, values.shape)
            odd, none = random.random((2, *values.shape)) < 0.02
            values[odd] = (values.astype(np.float64) * powers).astype(values.dtype)[odd]
            values[none] = 0
    group.biases = [np.zeros(width, np.float32) for width in outputs]
    return group


def opened(kind: str, group: Any, of: Path) -> onnxruntime.InferenceSession:
    x = np.eye(len(group.values[0]), dtype=np.float32)
    return open_session(model(f"{kind}Linear", {"x": x}, group.tensors(), **group.attributes("linear")), library=of)


def products(session: onnxruntime.InferenceSession, group: Any) -> Array:
    """What is computed for rows of one 1."""
    (found,) = session.run(["y"], {"x": np.eye(len(group.values[0]), dtype=np.float32)})
    result: Array = found
    return result


def weights_of(group: Any) -> Array:
    """As they are packed: small bfloat16 numbers are multiples of 2^-63."""
    weights: Array = np.concatenate(group.values, axis=1).astype(np.float32)
    if group.values[0].dtype == BF16:
        near = np.rint(weights.astype(np.float64) * 2.0**63) * 2.0**-63
        weights = np.where(np.abs(weights) < 2.0**-56, near, weights).astype(np.float32)
    return weights


@pytest.fixture(scope="module", params=["here", "BF16_DOT_IN_C", "TILES_IN_C"])
def operators(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With kernels of every way to pack."""
    return LIBRARY if request.param == "here" else library(tmp_path_factory.mktemp("packing"), request.param)


@pytest.fixture
def folder(operators: Path, tmp_path: Path) -> Iterator[Path]:
    """Of weights that are shared while the test runs."""
    if sys.platform != "linux":
        pytest.skip("weights are shared on Linux alone")
    share = ctypes.CDLL(str(operators)).fastembed_rt_share_packed
    assert share(bytes(tmp_path))
    yield tmp_path
    assert share(b"")


@pytest.mark.parametrize("kind", ["Quant", "Bf16", "Fp32"])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_each_weight_is_where_its_product_reads_it(
    kind: str, inputs: int, outputs: tuple[int, ...], operators: Path, folder: Path
) -> None:
    group = made(kind, inputs, outputs)
    session = opened(kind, group, operators)
    np.testing.assert_array_equal(products(session, group), weights_of(group))
    del session
    assert not mapped(folder)
    # Nobody has them now: the next session finds the file, takes it for these weights, and makes no other.
    session = opened(kind, group, operators)
    np.testing.assert_array_equal(products(session, group), weights_of(group))
    assert (len(mapped(folder)), len(list(folder.iterdir()))) == (1, 1)


def mapped(folder: Path) -> list[str]:
    """The folder's files in this process's memory."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return sorted({line.split(maxsplit=5)[5] for line in lines if f"{folder}/" in line})


@pytest.mark.parametrize("kind", ["Quant", "Bf16", "Fp32"])
def test_weights_that_differ_in_one_place_are_never_those_of_another_session(kind: str, operators: Path) -> None:
    inputs, outputs = 37, (19, 33, 16)
    first = made(kind, inputs, outputs)
    sessions = [opened(kind, first, operators)]
    # A corner of each layer, within whole steps and beside them.
    for part, row, column in [(0, 0, 0), (0, 36, 18), (1, 35, 0), (1, 8, 20), (1, 36, 30), (2, 3, 15), (2, 36, 0)]:
        other = made(kind, inputs, outputs)
        other.values[part][row, column] = 7 if first.values[part][row, column] != 7 else 5
        sessions[1:] = [opened(kind, other, operators)]
        np.testing.assert_array_equal(products(sessions[1], other), weights_of(other))
    np.testing.assert_array_equal(products(sessions[0], first), weights_of(first))


def test_bfloat16_weights_beyond_all_bounds_make_their_output_none(operators: Path) -> None:
    group = made("Bf16", 18, (5, 32, 11))
    group.values[1][7, 20] = group.values[2][17, 10] = 2.0**112
    expected = weights_of(group)
    expected[:, [25, 47]] = np.nan
    sessions = [opened("Bf16", group, operators) for _ in range(2)]
    for session in sessions:
        np.testing.assert_array_equal(products(session, group), expected)
