"""Layers with bfloat16 weights against their arithmetic in numpy, to the bit, and with instructions emulated in C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from instructions_in_c import library
from native_operators import ACTIVATIONS, LIBRARY, FloatGroup, Group, add, attention, block, normed, run

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
BF16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)


class Bf16Group(FloatGroup):
    """Of layers that round what they read."""

    dtype = BF16

    def __call__(self, x: Array) -> Array:
        return super().__call__(rounded(x))


def rounded(x: Array) -> Array:
    """To bfloat16, half to even; small numbers to multiples of 2^-63."""
    near: Array = x.astype(np.float32).astype(BF16).astype(np.float32)
    small = np.abs(x) < 2.0**-56
    return np.where(small, np.rint(x.astype(np.float64) * 2.0**63) * 2.0**-63, near).astype(np.float32)


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


@pytest.fixture(scope="module")
def dot_in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("dot"), "BF16_DOT_IN_C")


@pytest.fixture(scope="module")
def tiles_in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("tiles"), "TILES_IN_C")


SHAPES = [(1, 4, (1,)), (7, 24, (24, 24, 24)), (33, 33, (17,)), (65, 48, (50, 7)), (16, 130, (70,)), (50, 64, (80,))]


def in_this_order(library: Path, group: Bf16Group, x: Array, sums: Sums) -> None:
    expected = sums(rounded(x), group.weight()) + np.concatenate(group.biases)
    for threads in (1, 2):
        found = run("Bf16Linear", {"x": x}, group.tensors(), threads, library=library, **group.attributes("linear"))
        np.testing.assert_array_equal(found, expected)
    for row in {0, len(x) // 2, len(x) - 1}:  # alone: nothing depends on other rows
        alone = run("Bf16Linear", {"x": x[[row]]}, group.tensors(), library=library, **group.attributes("linear"))
        np.testing.assert_array_equal(alone, expected[[row]])


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_sums_are_made_in_the_order_of_the_instructions(
    rows: int, inputs: int, outputs: tuple[int, ...], dot_in_c: Path, tiles_in_c: Path
) -> None:
    random = np.random.default_rng(rows)
    group, x = Bf16Group(random, inputs, outputs), random.normal(0, 3, (rows, inputs)).astype(np.float32)
    in_this_order(LIBRARY, group, x, in_tiles if native.kernels() == "amx" else in_pairs)
    in_this_order(dot_in_c, group, x, in_pairs)
    in_this_order(tiles_in_c, group, x, in_tiles)


def test_inputs_are_rounded_half_to_even_and_never_to_subnormals(dot_in_c: Path, tiles_in_c: Path) -> None:
    one = Bf16Group(np.random.default_rng(0), 1, (1,))
    one.values, one.biases = [np.ones((1, 1), BF16)], [np.zeros(1, np.float32)]
    halves = np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16 | 0x8000
    x = np.concatenate([halves, halves - 1, halves + 1]).view(np.float32)
    small = np.float32(2.0) ** np.arange(-149, -50, dtype=np.float32) * np.float32(1.37)
    x = np.concatenate([x, -x, small, -small, np.array([0, 2.0**111, -3.3e33], np.float32)])[:, None]
    for library_ in (LIBRARY, dot_in_c, tiles_in_c):
        found = run("Bf16Linear", {"x": x}, one.tensors(), library=library_, **one.attributes("linear"))
        np.testing.assert_array_equal(found, rounded(x))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e34, -3e38])
def test_what_is_no_number_or_beyond_all_bounds_makes_its_row_none(
    value: float, dot_in_c: Path, tiles_in_c: Path
) -> None:
    random = np.random.default_rng(3)
    group, x = Bf16Group(random, 40, (24,)), random.normal(0, 3, (20, 40)).astype(np.float32)
    for library_ in (LIBRARY, dot_in_c, tiles_in_c):
        sound = run("Bf16Linear", {"x": x}, group.tensors(), library=library_, **group.attributes("linear"))
        spoiled = x.copy()
        spoiled[7, 33] = np.float32(value)
        found = run("Bf16Linear", {"x": spoiled}, group.tensors(), library=library_, **group.attributes("linear"))
        assert np.isnan(found[7]).all()
        np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(sound, 7, axis=0))


def test_weights_are_small_numbers_too(dot_in_c: Path, tiles_in_c: Path) -> None:
    """Products of the smallest ones are subnormal, which instructions make 0 and a multiplication does not."""
    random = np.random.default_rng(1)
    group = Bf16Group(random, 64, (16,))
    group.values = [(group.values[0].astype(np.float64) * 2.0 ** random.integers(-140, -50, (64, 16))).astype(BF16)]
    group.biases = [np.zeros(16, np.float32)]
    x = (random.normal(0, 1, (17, 64)) * 2.0 ** random.integers(-149, -50, (17, 64))).astype(np.float32)
    for library_, sums in ((LIBRARY, in_pairs), (dot_in_c, in_pairs), (tiles_in_c, in_tiles)):
        if library_ != LIBRARY or native.kernels() != "amx":
            found = run("Bf16Linear", {"x": x}, group.tensors(), library=library_, **group.attributes("linear"))
            np.testing.assert_array_equal(found, sums(rounded(x), rounded(group.weight())))


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
def test_feed_forward(gated: bool, activation: str, tiles_in_c: Path) -> None:
    random = np.random.default_rng(5)
    hidden, width, rows = 112, 33, 70
    up = Bf16Group(random, width, (hidden, hidden) if gated else (hidden,))
    down = Bf16Group(random, hidden, (width,))
    x = random.normal(0, 2, (rows, width)).astype(np.float32)
    wide = up(x)
    function = ACTIVATIONS[activation]
    inner = function(wide[:, :hidden]) * wide[:, hidden:] if gated else function(wide)
    expected = down(inner)
    # A number near the middle between two may be rounded either way: 2^-8 of it, weighed as the others are.
    bound = 2.0**-8 * np.abs(inner) @ np.abs(down.weight()) + 1e-4
    attributes = {"activation": activation, "gated": int(gated), **up.attributes("up"), **down.attributes("down")}
    constants = [*up.tensors(), *down.tensors()]
    for library_ in (LIBRARY, tiles_in_c):
        found = run("Bf16FeedForward", {"x": x}, constants, library=library_, **attributes)
        off = np.abs(found - expected)
        assert (off <= bound).all()
        assert off.mean() < 0.02 * bound.mean()
        np.testing.assert_array_equal(found, run("Bf16FeedForward", {"x": x}, constants, 2, library_, **attributes))
        last = run("Bf16FeedForward", {"x": x[-1:]}, constants, library=library_, **attributes)
        np.testing.assert_array_equal(found[-1:], last)


def test_a_whole_attention_block(dot_in_c: Path, tiles_in_c: Path) -> None:
    random = np.random.default_rng(0)
    heads, size, width = 3, 8, 24
    lengths = [5, 1, 40, 90, 2]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    x = random.normal(0, 2, (int(starts[-1]), width)).astype(np.float32)
    first, second = Bf16Group(random, width, (24, 24, 24)), Bf16Group(random, width, (width,))
    weight, bias = (random.normal(1, 0.2, width).astype(np.float32) for _ in range(2))
    query, key, value = np.split(first(x), 3, axis=1)
    mixed = attention(query, key, value, starts, heads, heads)
    expected = normed(second(mixed) + x, weight, bias, 1e-6, rms=False)
    attributes = {
        **{**first.attributes("input"), **second.attributes("output")},
        **{"heads": heads, "kv_heads": heads, "size": size, "residual": 1, "norm": 1, "norm_bias": 1, "epsilon": 1e-6},
    }
    feeds, constants = {"x": x, "starts": starts}, [*first.tensors(), *second.tensors(), x, weight, bias]
    found = {
        library_: run("Bf16Attention", feeds, constants, library=library_, **attributes)
        for library_ in (LIBRARY, dot_in_c, tiles_in_c)
    }
    for vectors in found.values():
        off = np.abs(vectors - expected)
        assert off.max() < 0.02  # of values around 1: a step of what the output projection reads is 2^-8
        assert off.mean() < 1e-3
    if native.kernels() != "amx":
        np.testing.assert_array_equal(found[LIBRARY], found[dot_in_c])


def test_rows_of_a_table() -> None:
    random = np.random.default_rng(2)
    table = random.normal(0, 1, (40, 19)).astype(BF16)
    ids = random.integers(0, 40, 70)
    found = run("Bf16Embedding", {"ids": ids}, [table])
    np.testing.assert_array_equal(found, table[ids].astype(np.float32))
    with pytest.raises(Exception, match="token id 40 is not in the vocabulary of 40"):
        run("Bf16Embedding", {"ids": np.array([3, 40])}, [table])
    with pytest.raises(Exception, match=r"values is float32 \(40, 19\) and has to be bfloat16 \(any, any\)"):
        run("Bf16Embedding", {"ids": ids}, [table.astype(np.float32)])


def test_groups_that_make_no_sense_are_refused() -> None:
    group = Bf16Group(np.random.default_rng(0), 16, (16,))
    x = np.zeros((2, 16), np.float32)
    infinite = [group.values[0].copy(), group.biases[0]]
    infinite[0][3, 3] = np.inf
    cases: list[tuple[list[Array], dict[str, Any], str]] = [
        (infinite, {}, "linear_values has elements that are not finite"),
        ([group.values[0].astype(np.float32), group.biases[0]], {}, "has to be bfloat16"),
        (group.tensors(), {"linear_layers": 4}, "linear_layers is 4 and has to be from 1 to 3"),
        (group.tensors()[:1], {}, "."),
    ]
    for constants, change, message in cases:
        with pytest.raises(Exception, match=message):
            run("Bf16Linear", {"x": x}, constants, **(group.attributes("linear") | change))


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("extras", [{}, {"outliers": 2, "smooth": True, "tails": True, "dither": True}])
def test_int8_has_the_same_bits_in_tiles(
    rows: int, inputs: int, outputs: tuple[int, ...], extras: dict[str, Any], tiles_in_c: Path
) -> None:
    random = np.random.default_rng(rows)
    group = Group(random, inputs, outputs, **extras)
    x = (random.laplace(0, 1, (rows, inputs)) ** 3).astype(np.float32)
    best = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    tiles = run("QuantLinear", {"x": x}, group.tensors(), library=tiles_in_c, **group.attributes("linear"))
    np.testing.assert_array_equal(tiles, best)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "width", "hidden"), [(1, 24, 96), (47, 48, 64), (150, 33, 112)])
def test_int8_feed_forward_and_attention_have_the_same_bits_in_tiles(
    rows: int, width: int, hidden: int, gated: bool, tiles_in_c: Path
) -> None:
    random = np.random.default_rng(rows)
    up = Group(random, width, (hidden, hidden) if gated else (hidden,), smooth=True, dither=True)
    down = Group(random, hidden, (width,), outliers=3, smooth=True, tails=True)
    x = random.normal(0, 2, (rows, width)).astype(np.float32)
    attributes = {"activation": "gelu", "gated": int(gated), **up.attributes("up"), **down.attributes("down")}
    constants = [*up.tensors(), *down.tensors()]
    best = run("QuantFeedForward", {"x": x}, constants, **attributes)
    np.testing.assert_array_equal(run("QuantFeedForward", {"x": x}, constants, 2, tiles_in_c, **attributes), best)
    for shape in ((), ([200, 5, 70], 12, 32)):  # all heads at once, and one at a time
        feeds, constants, attributes, _ = block(random, *shape)
        best = run("QuantAttention", feeds, constants, **attributes)
        np.testing.assert_array_equal(run("QuantAttention", feeds, constants, 2, tiles_in_c, **attributes), best)


def test_emulated_kernels_find_themselves_right(dot_in_c: Path, tiles_in_c: Path) -> None:
    for path, name in ((dot_in_c, "avx2"), (tiles_in_c, "amx")):
        loaded = ctypes.CDLL(str(path))
        loaded.fastembed_rt_kernels.restype = loaded.fastembed_rt_selfcheck.restype = ctypes.c_char_p
        assert (loaded.fastembed_rt_kernels().decode(), loaded.fastembed_rt_selfcheck()) == (name, b"")
