"""Layers and attention in float32: sums to the bit, the rest near float64, and the same bits whatever else there is."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from instructions_in_c import library
from native_operators import ACTIVATIONS, LIBRARY, FloatGroup, add, attention, block, normed_by, run, turned_block

from fastembed_rt import native
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]

# Of values around 1: a rounding is 6e-8 of one, and GELU has an error of 1.5e-6. At most 3.5e-6 is seen.
LAYERS = 1e-5
# Likewise of attention, whose scores are around 1: at most 6e-7 is seen.
MIXED = 2e-6
# What is added for each unit of the largest score: it is a float with so many roundings, and e^x has its error.
OF_SCORE = 3e-7
# Of blocks, whose scores are up to a hundred and outputs up to 30: at most 1.7e-5 is seen.
BLOCKS = 5e-5


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The best kernels of this processor, and those of AVX2 and AMX with instructions in C."""
    made = tmp_path_factory.mktemp("emulated")
    return [LIBRARY, library(made, "BF16_DOT_IN_C"), library(made, "TILES_IN_C")]


def same_bits(
    libraries: list[Path], op: str, feeds: dict[str, Array], constants: list[Array], attributes: dict[str, Any]
) -> Array:
    """What comes out, from all kernels and numbers of threads."""
    found = run(op, feeds, constants, **attributes)
    for path, threads in itertools.product(libraries, (1, 2)):
        again = run(op, feeds, constants, threads, path, **attributes)
        np.testing.assert_array_equal(again.view(np.uint32), found.view(np.uint32))  # signs of 0, too
    return found


def chain(x: Array, group: FloatGroup) -> Array:
    """Sums of products of (rows, K) and (K, N), one fused multiply-add after another, and the bias at last."""
    weight = group.weight()
    sums = np.zeros((len(x), weight.shape[1]), np.float32)
    for k, row in enumerate(weight):
        sums = add(sums, np.outer(x[:, k].astype(np.float64), row.astype(np.float64)))
    biased: Array = sums + np.concatenate(group.biases)
    return biased


# ---- layers


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 4, (1,)), (7, 24, (24, 24, 24)), (33, 33, (17,)), (65, 48, (50, 7)), (16, 130, (70,)), (50, 64, (80,))],
)
def test_sums_are_chains_of_fused_multiply_adds(
    rows: int, inputs: int, outputs: tuple[int, ...], libraries: list[Path]
) -> None:
    random = np.random.default_rng(rows)
    group, x = FloatGroup(random, inputs, outputs), random.normal(0, 3, (rows, inputs)).astype(np.float32)
    attributes, expected = group.attributes("linear"), chain(x, group)
    np.testing.assert_array_equal(same_bits(libraries, "Fp32Linear", {"x": x}, group.tensors(), attributes), expected)
    for row, path in itertools.product({0, rows // 2, rows - 1}, libraries):  # alone: nothing depends on other rows
        alone = run("Fp32Linear", {"x": x[[row]]}, group.tensors(), library=path, **attributes)
        np.testing.assert_array_equal(alone, expected[[row]])


def test_numbers_of_every_size_are_multiplied(libraries: list[Path]) -> None:
    """Subnormal ones too, and sums up to the largest."""
    random = np.random.default_rng(1)
    group = FloatGroup(random, 64, (16,))
    group.values = [(group.values[0] * 2.0 ** random.integers(-100, 60, (64, 16))).astype(np.float32)]
    group.biases = [np.zeros(16, np.float32)]
    x = (random.normal(0, 1, (17, 64)) * 2.0 ** random.integers(-149, 60, (17, 64))).astype(np.float32)
    found = same_bits(libraries, "Fp32Linear", {"x": x}, group.tensors(), group.attributes("linear"))
    # `add` is exact: no product of these leaves the normal numbers of float64.
    np.testing.assert_array_equal(found, chain(x, group))


def test_a_sum_too_small_to_be_held_has_the_same_sign_on_all(libraries: list[Path]) -> None:
    group = FloatGroup(np.random.default_rng(2), 16, (1,))
    x = np.zeros((1, 16), np.float32)
    group.values[0][:], group.biases[0][:] = 0, -0.0
    x[0, 15], group.values[0][15] = 1e-30, -1e-30
    found = same_bits(libraries, "Fp32Linear", {"x": x}, group.tensors(), group.attributes("linear"))
    assert np.signbit(found).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_in_its_row(value: float, libraries: list[Path]) -> None:
    random = np.random.default_rng(3)
    group, x = FloatGroup(random, 40, (24,)), random.normal(0, 3, (20, 40)).astype(np.float32)
    up, down = FloatGroup(random, 40, (33,)), FloatGroup(random, 33, (24,))
    nodes: list[tuple[str, list[Array], dict[str, Any]]] = [
        ("Fp32Linear", group.tensors(), group.attributes("linear")),
        ("Fp32FeedForward", [*up.tensors(), *down.tensors()], {**up.attributes("up"), **down.attributes("down")}),
    ]
    spoiled = x.copy()
    spoiled[7, 33] = np.float32(value)
    for (op, constants, attributes), path in itertools.product(nodes, libraries):
        sound = run(op, {"x": x}, constants, library=path, **attributes)
        found = run(op, {"x": spoiled}, constants, library=path, **attributes)
        assert not np.isfinite(found[7]).any()
        np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(sound, 7, axis=0))


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_activated_layers(activation: str, libraries: list[Path]) -> None:
    random = np.random.default_rng(4)
    group, x = FloatGroup(random, 48, (50, 7)), random.normal(0, 2, (41, 48)).astype(np.float32)
    attributes = {"activation": activation, **group.attributes("linear")}
    found = same_bits(libraries, "Fp32Linear", {"x": x}, group.tensors(), attributes)
    assert np.abs(found - ACTIVATIONS[activation](group(x))).max() < LAYERS


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
def test_feed_forward(gated: bool, activation: str, libraries: list[Path]) -> None:
    random = np.random.default_rng(5)
    hidden, width, rows = 112, 33, 70
    up = FloatGroup(random, width, (hidden, hidden) if gated else (hidden,))
    down = FloatGroup(random, hidden, (width,))
    x = random.normal(0, 2, (rows, width)).astype(np.float32)
    wide, function = up(x), ACTIVATIONS[activation]
    inner = function(wide[:, :hidden]) * wide[:, hidden:] if gated else function(wide)
    attributes = {"activation": activation, "gated": int(gated), **up.attributes("up"), **down.attributes("down")}
    constants = [*up.tensors(), *down.tensors()]
    found = same_bits(libraries, "Fp32FeedForward", {"x": x}, constants, attributes)
    assert np.abs(found - down(inner)).max() < LAYERS
    for path in libraries:
        last = run("Fp32FeedForward", {"x": x[-1:]}, constants, library=path, **attributes)
        np.testing.assert_array_equal(found[-1:], last)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_feed_forward_between_norms(norm_first: bool, rms: bool, libraries: list[Path]) -> None:
    random = np.random.default_rng(6)
    up, down = FloatGroup(random, 72, (64, 64)), FloatGroup(random, 64, (72,))
    x = random.normal(0.5, 2, (150, 72)).astype(np.float32)
    norms = [[random.normal(1, 0.2, 72).astype(np.float32) for _ in range(1 if rms else 2)] for _ in range(2)]
    attributes: dict[str, Any] = {"activation": "silu", "gated": 1, **up.attributes("up"), **down.attributes("down")}
    for prefix in ("before_", ""):
        attributes |= {f"{prefix}norm": 1, f"{prefix}epsilon": 1e-5, f"{prefix}rms": int(rms)}
        attributes[f"{prefix}norm_bias"] = int(not rms)
    attributes |= {"residual": 1, "norm_first": int(norm_first)}
    constants = [*up.tensors(), *down.tensors(), *norms[0], x, *norms[1]]
    found = same_bits(libraries, "Fp32FeedForward", {"x": x}, constants, attributes)
    wide = up(normed_by(norms[0], x.astype(np.float64), rms=rms))
    y = down(ACTIVATIONS["silu"](wide[:, :64]) * wide[:, 64:])
    expected = normed_by(norms[1], y, rms=rms) + x if norm_first else normed_by(norms[1], y + x, rms=rms)
    assert np.abs(found - expected).max() < LAYERS


# ---- attention

LENGTHS = (577, 0, 1, 15, 16, 17, 48, 49, 127, 128, 129, 191, 192, 193, 2)
WINDOWS: tuple[dict[str, int], ...] = (
    {},
    {"after": 0},
    {"before": 0},
    {"before": 0, "after": 0},
    {"before": 64, "after": 64},
    {"before": 3, "after": 130},
    {"before": 128},
    {"after": 2**31 - 1},
)


def random_feeds(
    seed: int, lengths: tuple[int, ...], heads: int, kv_heads: int, size: int, first_only: bool = False
) -> dict[str, Array]:
    """Queries, keys and values with scores around 1."""
    random = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = int(starts[-1])
    rows = len(lengths) if first_only else tokens
    query, key, value = (
        random.normal(0, deviation, (count, n * size)).astype(np.float32)
        for count, n, deviation in ((rows, heads, size**-0.25), (tokens, kv_heads, size**-0.25), (tokens, kv_heads, 1))
    )
    return {"query": query, "key": key, "value": value, "starts": starts}


def exact(feeds: dict[str, Array], heads: int, kv_heads: int, **options: Any) -> Array:
    query, key, value = (feeds[name].astype(np.float64) for name in ("query", "key", "value"))
    if options.get("first_only"):  # whose queries are rows of texts, not of tokens
        spread = np.zeros((len(key), query.shape[1]))
        there = np.diff(feeds["starts"]) > 0
        spread[feeds["starts"][:-1][there]] = query[there]
        found = attention(spread, key, value, feeds["starts"], heads, kv_heads, **{**options, "first_only": False})
        firsts = np.zeros_like(query)
        firsts[there] = found[feeds["starts"][:-1][there]]
        return firsts
    return attention(query, key, value, feeds["starts"], heads, kv_heads, **options)


def attend(
    feeds: dict[str, Array], heads: int, kv_heads: int, threads: int = 1, path: Path | None = None, **options: Any
) -> Array:
    attributes = {name: value if name == "cap" else int(value) for name, value in options.items() if name != "table"}
    if "cap" in options:
        attributes["capped"] = 1
    inputs, constants = dict(feeds), []
    if "table" in options:
        attributes["by_distance"], constants = 1, [options["table"]]
    shape = {"heads": heads, "kv_heads": kv_heads, "in_float": 1}
    return run("PackedAttention", inputs, constants, threads, path, **shape, **attributes)


def attended(libraries: list[Path], feeds: dict[str, Array], heads: int, kv_heads: int, **options: Any) -> Array:
    """What comes out, from all kernels and numbers of threads, and of some texts alone."""
    found = attend(feeds, heads, kv_heads, **options)
    for path, threads in itertools.product(libraries, (1, 2)):
        np.testing.assert_array_equal(attend(feeds, heads, kv_heads, threads, path, **options), found)
    starts, first_only = feeds["starts"], options.get("first_only", False)
    for text in range(0, len(starts) - 1, 3):
        tokens, own = slice(starts[text], starts[text + 1]), slice(text, text + 1)
        rows = own if first_only else tokens
        alone = {"query": feeds["query"][rows], "key": feeds["key"][tokens], "value": feeds["value"][tokens]}
        alone["starts"] = np.array([0, tokens.stop - tokens.start])
        np.testing.assert_array_equal(attend(alone, heads, kv_heads, **options), found[rows])
    return found


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size"), [(1, 1, 8), (2, 1, 24), (4, 2, 32), (1, 1, 40), (2, 2, 64), (1, 1, 128)]
)
@pytest.mark.parametrize("first_only", [False, True])
def test_attention_of_texts_of_every_length(
    first_only: bool, heads: int, kv_heads: int, size: int, libraries: list[Path]
) -> None:
    feeds = random_feeds(size, LENGTHS, heads, kv_heads, size, first_only)
    options = {"first_only": first_only}
    found = attended(libraries, feeds, heads, kv_heads, **options)
    assert np.abs(found - exact(feeds, heads, kv_heads, **options)).max() < MIXED


@pytest.mark.parametrize("with_table", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_and_biases_by_distance(window: dict[str, int], with_table: bool, libraries: list[Path]) -> None:
    lengths = (700, 0, 49, 50, 130, 1, 2)
    options: dict[str, Any] = {**window}
    if with_table:
        options["table"] = np.random.default_rng(7).normal(0, 2, (2, 2 * 703 - 1)).astype(np.float32)
    feeds = random_feeds(7, lengths, 2, 1, 24)
    found = attended(libraries, feeds, 2, 1, **options)
    # A bias is up to 9, with the roundings of such a score.
    assert np.abs(found - exact(feeds, 2, 1, **options)).max() < MIXED + 9 * OF_SCORE * with_table


def test_a_first_token_sees_its_window_only(libraries: list[Path]) -> None:
    table = np.random.default_rng(8).normal(0, 1, (4, 2 * 577 - 1)).astype(np.float32)
    feeds = random_feeds(8, LENGTHS, 4, 2, 40, first_only=True)
    for options in ({"after": 40}, {"after": 0}, {"before": 3, "after": 200, "table": table}):
        found = attended(libraries, feeds, 4, 2, first_only=True, **options)
        off = np.abs(found - exact(feeds, 4, 2, first_only=True, **options))
        assert off.max() < MIXED + 5 * OF_SCORE  # biases are up to 5


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("cap", [0.05, 1.0, 50.0])
def test_capped_scores(cap: float, first_only: bool, libraries: list[Path]) -> None:
    """From caps that all scores reach to one that hardly changes them; what is added to scores is not capped."""
    lengths = (300, 0, 49, 130, 1, 2)
    feeds = random_feeds(12, lengths, 4, 2, 24, first_only)
    feeds["query"] *= 3
    table = np.random.default_rng(12).normal(0, 2, (4, 2 * 303 - 1)).astype(np.float32)
    for more in ({}, {"after": 0}, {"before": 3, "after": 20}, {"table": table}):
        options = {"cap": cap, "first_only": first_only, **more}
        found = attended(libraries, feeds, 4, 2, **options)
        wanted = exact(feeds, 4, 2, **options)
        assert np.abs(found - wanted).max() < MIXED + 12 * OF_SCORE
    free = exact(feeds, 4, 2, first_only=first_only)
    assert np.abs(exact(feeds, 4, 2, first_only=first_only, cap=cap) - free).max() > (1e-3 if cap == 50.0 else 0.1)


def test_a_score_that_is_no_number_is_not_hidden_by_a_cap(libraries: list[Path]) -> None:
    feeds = random_feeds(13, (40, 30), 1, 1, 16)
    feeds["query"][5] = np.nan
    for path in libraries:
        found = attend(feeds, 1, 1, path=path, cap=2.0)
        assert np.isnan(found[5]).all()
        assert np.isfinite(found[40:]).all()


@pytest.mark.parametrize("largest", [1e4, -1e4])
def test_one_key_takes_all_of_scores_far_from_0(largest: float, libraries: list[Path]) -> None:
    """The others are 100 below it, wherever it is: e^-100 is no share of float32."""
    feeds = random_feeds(9, (300, 49, 5), 1, 1, 24)
    feeds["query"][:] = 0
    feeds["query"][:, 0] = 1
    feeds["key"][:, 0] = np.float32(largest - 100)
    for text, place in enumerate((200, 48, 0)):
        token = feeds["starts"][text] + place
        feeds["key"][token, 0] = np.float32(largest)
        found = attended(libraries, feeds, 1, 1)[feeds["starts"][text] : feeds["starts"][text + 1]]
        np.testing.assert_array_equal(found, np.broadcast_to(feeds["value"][token], found.shape))


@pytest.mark.parametrize("spread", [10.0, 1e2, 1e4])
def test_errors_grow_with_scores_as_their_roundings_do(spread: float, libraries: list[Path]) -> None:
    feeds = random_feeds(10, (577, 130, 17), 1, 1, 64)
    feeds["query"] *= np.float32(spread)
    strongest = float(np.abs(feeds["query"].astype(np.float64) @ feeds["key"].T).max())
    found = attended(libraries, feeds, 1, 1)
    assert np.abs(found - exact(feeds, 1, 1)).max() < MIXED + OF_SCORE * strongest


@pytest.mark.parametrize("score", [0.0, 1.0, -1e4, 1e4, -1e32, 1e32])
def test_equal_scores_give_the_mean(score: float, libraries: list[Path]) -> None:
    feeds = random_feeds(11, LENGTHS, 1, 1, 32)
    feeds["query"][:] = 0
    feeds["query"][:, 3] = 1
    feeds["key"][:, 3] = np.float32(score)
    found = attended(libraries, feeds, 1, 1)
    for start, stop in itertools.pairwise(feeds["starts"]):
        if stop > start:
            mean = feeds["value"][start:stop].astype(np.float64).mean(axis=0)
            assert np.abs(found[start:stop] - mean).max() < MIXED


@pytest.mark.parametrize("power", [-120, -60, 60, 115])
def test_values_of_every_size_are_mixed_alike(power: int, libraries: list[Path]) -> None:
    feeds = random_feeds(12, (300, 49, 5), 1, 1, 24)
    scaled = {**feeds, "value": np.ldexp(feeds["value"], power)}
    found = attended(libraries, scaled, 1, 1)
    # As near as others, and multiples of the smallest float32.
    off = np.abs(found - exact(scaled, 1, 1))
    assert off.max() < MIXED * 2.0**power + 300 * 2.0**-149


def test_tiny_queries_and_keys_give_the_mean(libraries: list[Path]) -> None:
    feeds = random_feeds(13, (300, 49, 5), 1, 1, 24)
    feeds = {**feeds, "query": np.ldexp(feeds["query"], -80), "key": np.ldexp(feeds["key"], -60)}
    found = attended(libraries, feeds, 1, 1)
    assert np.abs(found - exact(feeds, 1, 1)).max() < MIXED


# The bits of the last are all ones: what is added to a NaN's may give a number.
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.uint32(0x7FFFFFFF).view(np.float32)])
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_what_is_no_number_stays_in_its_text(name: str, value: float, libraries: list[Path]) -> None:
    feeds = random_feeds(14, (60, 200, 3), 2, 2, 24)
    spoiled = {**feeds, name: feeds[name].copy()}
    token = int(feeds["starts"][1]) + 150
    spoiled[name][token, :24] = np.float32(value)
    others = np.r_[0:60, 260:263]
    rows = [token] if name == "query" else range(60, 260)  # all queries read a value
    for path, threads in itertools.product(libraries, (1, 2)):
        sound, found = (attend(one, 2, 2, threads, path) for one in (feeds, spoiled))
        np.testing.assert_array_equal(found[others], sound[others])
        np.testing.assert_array_equal(found[:, 24:], sound[:, 24:])  # the other head's
        assert not np.isfinite(found[rows, :24]).any()


# ---- blocks


@pytest.mark.parametrize(
    ("lengths", "heads", "size"), [((5, 1, 40, 90, 2), 3, 8), ((200, 5, 70), 12, 32), (LENGTHS, 2, 24)]
)
@pytest.mark.parametrize("options", [{}, {"before": 20, "after": 30}])
def test_a_whole_block(
    lengths: tuple[int, ...], heads: int, size: int, options: dict[str, Any], libraries: list[Path]
) -> None:
    random = np.random.default_rng(heads)
    options = {**options, "table": random.normal(0, 1, (heads, 2 * max(lengths) - 1)).astype(np.float32)}
    feeds, constants, attributes, expected = block(random, lengths, heads, size, options, group=FloatGroup)
    feeds["x"] *= np.float32(0.25)  # in place, the residual too: scores of a few units
    found = same_bits(libraries, "Fp32Attention", feeds, constants, attributes)
    assert np.abs(found - expected()).max() < BLOCKS


@pytest.mark.parametrize("norm", ["none", "last", "first"])
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize(("rotary", "head_norms"), [(True, False), (False, True), (True, True)])
def test_turned_blocks(rotary: bool, head_norms: bool, rms: bool, norm: str, libraries: list[Path]) -> None:
    lengths = (5, 130, 2, 64, 0, 3)
    for heads, kv_heads, size in ((4, 2, 64), (12, 12, 32)):  # all heads at once, and one at a time
        feeds, constants, attributes, expected = turned_block(
            np.random.default_rng(heads * size), lengths, heads, kv_heads, size,
            rotary=rotary, head_norms=head_norms, rms=rms, norm=norm, group=FloatGroup,
        )  # fmt: skip
        found = same_bits(libraries, "Fp32Attention", feeds, constants, attributes)
        assert np.abs(found - expected()).max() < BLOCKS
        start, end = feeds["starts"][1:3]
        alone = {name: array[start:end] for name, array in feeds.items()} | {"starts": np.array([0, end - start])}
        others = [constant if constant is not feeds["x"] else alone["x"] for constant in constants]
        np.testing.assert_array_equal(run("Fp32Attention", alone, others, **attributes), found[start:end])


def test_a_block_with_what_is_no_number_keeps_to_its_text(libraries: list[Path]) -> None:
    feeds, constants, attributes, _ = block(np.random.default_rng(1), (5, 70, 40), 12, 32, group=FloatGroup)
    spoiled = feeds["x"].copy()
    spoiled[30, 7] = np.nan
    others = [spoiled if constant is feeds["x"] else constant for constant in constants]
    for path in libraries:
        sound = run("Fp32Attention", feeds, constants, library=path, **attributes)
        found = run("Fp32Attention", {**feeds, "x": spoiled}, others, library=path, **attributes)
        assert np.isnan(found[5:75]).all()
        np.testing.assert_array_equal(np.delete(found, np.s_[5:75], axis=0), np.delete(sound, np.s_[5:75], axis=0))


def test_every_instruction_set_that_runs_here_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    feeds, constants, attributes, _ = block(np.random.default_rng(2), (5, 700, 40), 2, 24, group=FloatGroup)
    found = run("Fp32Attention", feeds, constants, **attributes)
    names = ctypes.CDLL(str(LIBRARY)).fastembed_rt_kernels
    names.restype = ctypes.c_char_p
    for name in build.kernels_of():
        monkeypatch.setenv(native.SWITCH, name.removeprefix("kernels_"))
        if names():
            np.testing.assert_array_equal(run("Fp32Attention", feeds, constants, **attributes), found)


# ---- refusals


def test_groups_that_make_no_sense_are_refused() -> None:
    group = FloatGroup(np.random.default_rng(0), 16, (16,))
    values, bias = group.tensors()
    infinite, nowhere = values.copy(), bias.copy()
    infinite[3, 3], nowhere[5] = np.inf, np.nan
    cases: list[tuple[list[Array], dict[str, Any], str]] = [
        ([infinite, bias], {}, "linear_values has elements that are not finite"),
        ([values, nowhere], {}, "linear_biases has elements that are not finite"),
        ([values.astype(np.float16), bias], {}, r"linear_values is float16 \(16, 16\) and has to be float32"),
        ([values.astype(np.float64), bias], {}, "has to be float32"),
        ([values, bias[:-1]], {}, "linear_biases"),
        ([values[:0], bias], {}, "linear_values is empty"),
        (group.tensors(), {"linear_layers": 4}, "linear_layers is 4 and has to be from 1 to 3"),
        (group.tensors(), {"linear_layers": 2}, "."),
        (group.tensors(), {"activation": "swish"}, "activation"),
        (group.tensors()[:1], {}, "."),
    ]
    for constants, change, message in cases:
        with pytest.raises(Exception, match=message):
            run("Fp32Linear", {"x": np.zeros((2, 16), np.float32)}, constants, **(group.attributes("linear") | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_float": 2}, "in_float is 2 and has to be from 0 to 1"),
        ({"in_float": 1.0}, "in_float is of another type"),
        ({"heads": 3, "kv_heads": 3}, "query is 16 wide"),
        ({"kv_heads": 4}, "2 heads do not share 4 heads"),
        ({"capped": 1}, "cap is missing"),
        ({"capped": 1, "cap": 0.0}, "cap is 0 and has to be from"),
        ({"capped": 1, "cap": float("nan")}, "cap is nan and has to be from"),
        ({"capped": 1, "cap": 50}, "cap is of another type"),
    ],
)
def test_attention_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    feeds = random_feeds(0, (3, 4), 2, 2, 8)
    with pytest.raises(Exception, match=message):
        run("PackedAttention", feeds, [], **{"heads": 2, "kv_heads": 2, "in_float": 1, **change})


def test_blocks_that_make_no_sense_are_refused() -> None:
    feeds, constants, attributes, _ = block(np.random.default_rng(0), group=FloatGroup)
    for change, message in (
        ({"size": 16}, "do not fit"),
        ({"first_only": 1}, "first tokens only is PackedAttention's"),
        ({"rotary": 1}, "."),
    ):
        with pytest.raises(Exception, match=message):
            run("Fp32Attention", feeds, constants, **{**attributes, **change})
    with pytest.raises(Exception, match="has to be float32"):
        halves = [constants[0].astype(np.float16), *constants[1:]]
        run("Fp32Attention", feeds, halves, **attributes)
