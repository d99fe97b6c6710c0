"""Attention of our own operators against float64, from short texts to the longest: its error depends on no length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from attention_heads import FAR_ROWS, SIZE, random_head, with_far_rows, with_sinks
from onnx import TensorProto, helper, numpy_helper

from fastembed_rt import native
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]

LENGTHS = (128, 512, 2_048, 8_192)
SHARES = (0.5, 0.9, 0.97, 0.999)  # of one key in every row
# What attention.h promises: half a step of 2^-15 for each of the 128 keys of a block, of the largest value.
BOUND = 2.0**-9
# Beside the length of the output itself. Usual is a tenth; rounding of queries and keys is in it.
RELATIVE = 2e-3


def rows_of(length: int, count: int = 12) -> Array:
    """Some queries to compare: the first ones, the last one and others."""
    random = np.random.default_rng(length)
    return np.unique(np.concatenate([np.arange(4), [length - 1], random.integers(0, length, count)]))


def expected(query: Array, key: Array, value: Array, rows: Array, bias: Array | None = None) -> Array:
    """Softmax attention of one head in float64 for some queries; `bias` (rows, keys) is added to the scores."""
    scores = query[rows].astype(np.float64) @ key.T.astype(np.float64)
    if bias is not None:
        scores = scores + bias
    share = np.exp(scores - scores.max(axis=1, keepdims=True))
    mixed: Array = share / share.sum(axis=1, keepdims=True) @ value.astype(np.float64)
    return mixed


def run(feeds: dict[str, Array], threads: int = 1, table: Array | None = None, **attributes: float) -> Array:
    """PackedAttention of query, key, value and starts; `table` is added to the scores by distance."""
    inputs, constants = list(feeds), []
    if table is not None:
        inputs.append("table")
        constants.append(numpy_helper.from_array(table, "table"))
        attributes["by_distance"] = 1
    node = helper.make_node("PackedAttention", inputs, ["y"], domain=native.DOMAIN, **attributes)
    types = {name: TensorProto.INT64 if name == "starts" else TensorProto.FLOAT for name in feeds}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, types[name], [None] * array.ndim) for name, array in feeds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(native.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(native.library()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], feeds)
    result: Array = found
    return result


def attend(heads: list[tuple[Array, Array, Array]], starts: list[int], threads: int = 1, **options: Any) -> Array:
    """The operator's output of heads side by side: (tokens, heads, SIZE)."""
    query, key, value = (np.concatenate(parts, axis=1) for parts in zip(*heads, strict=True))
    feeds = {"query": query, "key": key, "value": value, "starts": np.array(starts, np.int64)}
    return run(feeds, threads, heads=len(heads), kv_heads=len(heads), **options).reshape(-1, len(heads), SIZE)


def some_rows(heads: list[tuple[Array, Array, Array]], rows: Array) -> Array:
    """The operator's output for some queries: (rows, heads, SIZE)."""
    length = len(heads[0][0])
    if length <= 2_048:
        return attend(heads, [0, length], threads=2)[rows]
    # All queries of the longest texts take seconds: each of these is a head's only one.
    found = []
    for query, key, value in heads:
        feeds = {"query": query[rows].reshape(1, -1), "key": key, "value": value, "starts": np.array([0, length])}
        found.append(run(feeds, heads=len(rows), kv_heads=1, first_only=1))
    return np.stack([mixed.reshape(-1, SIZE) for mixed in found], axis=1)


def check(found: Array, exact: Array, value: Array, relative: float = RELATIVE) -> None:
    error = found - exact
    assert np.abs(error).max() <= BOUND * np.abs(value).max()
    assert np.linalg.norm(error) <= relative * np.linalg.norm(exact)


@pytest.mark.parametrize("value_scale", [1.0, 0.05])
@pytest.mark.parametrize("length", LENGTHS)
def test_keys_beside_one_that_holds_nearly_all_keep_their_shares(length: int, value_scale: float) -> None:
    heads = [with_sinks(length, share, (0,), value_scale) for share in SHARES]
    rows = rows_of(length)
    found = some_rows(heads, rows)
    for number, head in enumerate(heads):
        check(found[:, number], expected(*head, rows), head[2])


@pytest.mark.parametrize("length", LENGTHS)
def test_uniform_and_random_rows(length: int) -> None:
    alike, wide = random_head(length, 1), random_head(length, 4)
    heads = [(np.zeros_like(alike[0]), alike[1], alike[2]), alike, wide]
    rows = rows_of(length)
    found = some_rows(heads, rows)
    for number, head in enumerate(heads):
        # Mixing thousands of values leaves a small output, of which what rounding scores costs is a larger part.
        check(found[:, number], expected(*head, rows), head[2], relative=2 * RELATIVE)


@pytest.mark.parametrize("length", [2, 3, 7, 100, 128, 300, 1_000])
def test_keys_that_are_alike_give_their_value(length: int) -> None:
    """All shares are rounded alike: what they are short of 1 is no error that averages out, nor over layers."""
    query, key, value = (np.repeat(array[:1], length, axis=0) for array in random_head(length, 1))
    error = np.abs(attend([(query, key, value)], [0, length])[:, 0] - value)
    assert error.max() <= 2.0**-15 * np.abs(value).max()


def test_all_queries_of_the_longest_text() -> None:
    head = with_sinks(8_192, 0.9, (0,), 0.05)
    rows = rows_of(8_192)
    check(attend([head], [0, 8_192], threads=2)[rows, 0], expected(*head, rows), head[2])


@pytest.mark.parametrize("places", [(0, -1), (0, 1), (5, 127, 128)], ids=["both ends", "side by side", "three"])
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_several_keys_that_hold_nearly_all(length: int, places: tuple[int, ...]) -> None:
    # Two in one block: neither holds nearly all of it, and the others of that block keep few steps. Others have theirs.
    heads = [with_sinks(length, share, places, 0.05) for share in (0.9, 0.999)]
    rows = rows_of(length)
    found = some_rows(heads, rows)
    for number, head in enumerate(heads):
        check(found[:, number], expected(*head, rows), head[2], relative=0.015)


@pytest.mark.parametrize("length", [512, 2_048])
@pytest.mark.parametrize(
    ("before", "after"), [(-1, 0), (64, 64), (3, 500), (300, 0)], ids=["causal", "64 each", "3 and 500", "300 before"]
)
def test_windows_over_long_texts(length: int, before: int, after: int) -> None:
    head = with_sinks(length, 0.97, tuple(range(7, length, 200)), 0.05)
    rows = rows_of(length)
    distance = np.arange(length) - rows[:, None]
    hidden = ((before >= 0) & (-distance > before)) | ((after >= 0) & (distance > after))
    exact = expected(*head, rows, np.where(hidden, -np.inf, 0.0))
    check(attend([head], [0, length], before=before, after=after)[rows, 0], exact, head[2])


@pytest.mark.parametrize("length", [512, 2_048])
def test_a_bias_by_distance_over_long_texts(length: int) -> None:
    random = np.random.default_rng(0)
    head = with_sinks(length, 0.97, (0,), 0.05)
    table = random.normal(0, 1, (1, 2 * length - 1)).astype(np.float32)
    rows = rows_of(length)
    bias = table[0][np.arange(length) - rows[:, None] + length - 1].astype(np.float64)
    found = attend([head], [0, length], table=table)[rows, 0]
    check(found, expected(*head, rows, bias), head[2])


@pytest.mark.parametrize("cap", [0.5, 3.0, 50.0])
def test_capped_scores(cap: float) -> None:
    """Rows near 0 and far from it, whole and in windows; the first query alone has the same bits."""
    rows = np.arange(300)
    distance = rows - rows[:, None]
    for query, key, value in (random_head(300, 4), with_far_rows(), with_sinks(300, 0.97, (9,), 0.05)):
        scores = query.astype(np.float64) @ key.T.astype(np.float64)
        moved = cap * np.tanh(scores / cap) - scores
        for before, after in ((-1, -1), (-1, 0), (64, 3)):
            hidden = ((before >= 0) & (-distance > before)) | ((after >= 0) & (distance > after))
            exact = expected(query, key, value, rows, np.where(hidden, -np.inf, moved))
            found = attend([(query, key, value)], [0, 300], before=before, after=after, capped=1, cap=cap)
            error = found[:, 0] - exact
            assert np.linalg.norm(error) <= 0.02 * np.linalg.norm(exact)
            near = np.abs(scores).max(axis=1) < 60
            assert np.linalg.norm(error[near]) <= 2 * RELATIVE * np.linalg.norm(exact[near])
            if after < 0:
                alone = attend([(query[:1], key, value)], [0, 300], first_only=1, capped=1, cap=cap)
                np.testing.assert_array_equal(alone[0], found[0])


@pytest.mark.parametrize("length", LENGTHS)
def test_only_the_first_query_of_a_long_text(length: int) -> None:
    query, key, value = with_sinks(length, 0.97, (0,), 0.05)
    found = attend([(query[:1], key, value)], [0, length], first_only=1)
    check(found[:, 0], expected(query, key, value, np.array([0])), value)


def test_the_largest_values_and_most_steps_stay_within_32_bits() -> None:
    """All values at their limit, and shares that are all rounded up: 128 keys of 510.94 steps."""
    for length in (16, 100, 128, 129, 300):
        query = np.zeros((length, SIZE), np.float32)
        value = np.full((length, SIZE), -7.5, np.float32)
        np.testing.assert_allclose(attend([(query, query, value)], [0, length]), -7.5, rtol=BOUND)


@pytest.mark.parametrize("size", [1, 17, 32, 65])
def test_texts_of_every_length_with_every_mask_beside_one_another(size: int) -> None:
    """Lengths at the edges of vectors, of blocks of 128 keys and of 48 queries; each row against float64."""
    random = np.random.default_rng(size)
    lengths = [1, 0, 2, 15, 16, 17, 47, 48, 49, 127, 128, 129, 144, 145, 255, 257, 300]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    reach = max(lengths)
    table = random.normal(0, 2, (2, 2 * reach - 1)).astype(np.float32)
    query, key, value = (random.normal(0.3, 1.5, (starts[-1], 2 * size)).astype(np.float32) for _ in range(3))
    query *= np.float32(size**-0.5)
    feeds = {"query": query, "key": key, "value": value, "starts": starts}
    for before, after, bias in ((-1, -1, False), (0, 0, False), (-1, 0, True), (70, 3, False), (5, -1, True)):
        given = table if bias else None
        found = run(feeds, heads=2, kv_heads=2, table=given, before=before, after=after).reshape(-1, 2, size)
        for start, length in zip(starts, lengths, strict=False):
            here, rows = slice(start, start + length), np.arange(length)
            distance = rows - rows[:, None]
            hidden = ((before >= 0) & (-distance > before)) | ((after >= 0) & (distance > after))
            for head in range(2):
                q, k, v = (x.reshape(-1, 2, size)[here, head] for x in (query, key, value))
                scores = np.where(hidden, -np.inf, table[head][distance + reach - 1] if bias else 0.0)
                exact = expected(q, k, v, rows, scores) if length else v
                error = np.abs(found[here, head] - exact).max(initial=0)
                assert error <= BOUND * np.abs(v).max(initial=0), (length, before, after)


@pytest.mark.parametrize("power", [-149, -140, -127, -126, -120, -112, -100, -60, 60, 100, 120])
def test_the_smallest_and_largest_numbers(power: int) -> None:
    """Heads whose largest number is a power of two: nothing overflows on the way, whatever the instruction set."""
    query, key, value = random_head(200, 4)
    rows = rows_of(200)
    exact = expected(query, key, value, rows)
    small, large = np.float32(2.0**power), np.float32(2.0 ** min(-power, 120))
    tiny = BOUND * np.abs(value).max()
    # Values: what is below 2^-127 counts as 0.
    found = attend([(query, key, np.ldexp(value, power).astype(np.float32))], [0, 200])[rows, 0]
    atol = np.ldexp(tiny, power) + 2.0**-126
    np.testing.assert_allclose(found.astype(np.float64), np.ldexp(exact, power), rtol=0, atol=atol)
    pairs = [(query * small, key * large), (query * large, key * small)] if abs(power) <= 112 else []
    if power < 0:  # scores of next to nothing
        pairs += [(query * small, key), (query, key * small)]
    for q, k in pairs:
        check(attend([(q, k, value)], [0, 200])[rows, 0], expected(q, k, value, rows), value, relative=2 * RELATIVE)


def test_scores_far_apart_and_far_below_nothing() -> None:
    """A block of keys may be anything below another one, in either order, and all scores may be far below 0."""
    query, key, value = random_head(400, 1)
    query[:, 0] = 30.0
    rows = rows_of(400)
    for offsets in ((0, -5, 2, 1), (-40, 0, -1, -80), (-400, -300, -301, -299), (-300, 0, -400, -1)):
        key[:, 0] = np.repeat(offsets, 128)[:400] / 30.0
        exact = expected(query, key, value, rows)
        error = attend([(query, key, value)], [0, 400])[rows, 0] - exact
        # A step of such a key is worth up to 0.05 in a score, where the others of the head are around 1.
        assert np.linalg.norm(error) <= 0.05 * np.linalg.norm(exact), offsets


def test_the_first_query_alone_has_the_bits_that_it_has_among_all() -> None:
    query, key, value = random_head(300, 4)
    query[200] *= 50
    alone = attend([(query[:1], key, value)], [0, 300], first_only=1)
    np.testing.assert_array_equal(alone[0], attend([(query, key, value)], [0, 300])[0])


@pytest.mark.parametrize("rows", [FAR_ROWS, (5, 250)], ids=["first row, too", "others"])
def test_a_query_has_the_same_bits_beside_any_others(rows: tuple[int, ...]) -> None:
    far, near = with_far_rows(rows=rows), random_head(300, 4)
    found, without = attend([far], [0, 300]), attend([near], [0, 300])
    others = np.setdiff1d(np.arange(300), rows)
    np.testing.assert_array_equal(found[others], without[others])
    query, key, value = far
    alone = attend([(query[:1], key, value)], [0, 300], first_only=1)
    np.testing.assert_array_equal(alone[0], found[0])


def test_scores_that_are_far_from_0_are_as_exact_as_others() -> None:
    query, key, value = far = with_far_rows()
    rows = np.arange(300)
    exact = expected(query, key, value, rows)
    # A query's largest product is up to 40 times the others': its rounding is worth as much in a score.
    error = attend([far], [0, 300])[:, 0] - exact
    near = np.setdiff1d(rows, FAR_ROWS)
    assert np.linalg.norm(error[near]) <= RELATIVE * np.linalg.norm(exact[near])
    assert np.linalg.norm(error) <= 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("level", [-90.0, -64.0, -30.0, 30.0, 64.0, 90.0])
def test_the_level_of_all_scores_is_of_no_account(level: float) -> None:
    """Natural logarithms; 2^96 is where the way changes, at 66.5."""
    for query, key, value in (random_head(300, 1), with_sinks(300, 0.97, (9,), 0.05)):
        query[:, 1], key[:, 1] = 1.0, level
        exact = expected(query, key, value, np.arange(300))
        error = attend([(query, key, value)], [0, 300])[:, 0] - exact
        # The level's own step is what a key's other channels are rounded to.
        assert np.linalg.norm(error) <= 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("scale", [2.0**-13, 2.0**-15, 1e-9, 1e-30, 1e30])
def test_values_of_any_size_are_mixed_alike(scale: float) -> None:
    for query, key, value in (random_head(300, 4), with_sinks(300, 0.999, (9,), 1.0)):
        small = (value * np.float32(scale)).astype(np.float32)
        exact = expected(query, key, small, np.arange(300))
        check(attend([(query, key, small)], [0, 300])[:, 0] / scale, exact / scale, value)


def test_neither_neighbours_nor_threads_change_a_bit_of_a_long_text() -> None:
    heads = [with_sinks(700, 0.97, (0, 300), 0.05), random_head(700, 4)]
    alone = attend(heads, [0, 700])
    before, behind = [random_head(130, 3), random_head(130, 3)], [random_head(17, 1), random_head(17, 1)]
    joined: list[tuple[Array, Array, Array]] = [
        (
            np.concatenate([a[0], b[0], c[0]]),
            np.concatenate([a[1], b[1], c[1]]),
            np.concatenate([a[2], b[2], c[2]]),
        )
        for a, b, c in zip(before, heads, behind, strict=True)
    ]
    for threads in (1, 2):
        found = attend(joined, [0, 130, 830, 847], threads)
        np.testing.assert_array_equal(found[130:830], alone)


SAME_BITS = """
import sys, numpy as np
sys.path[:0] = {path!r}
from attention_heads import random_head, with_far_rows, with_sinks
from test_attention import attend
table = np.random.default_rng(1).normal(0, 2, (5, 1399)).astype(np.float32)
heads = [with_far_rows(700), with_sinks(700, 0.97, tuple(range(7, 700, 100)), 0.05), random_head(700, 6)]
heads += [with_sinks(700, 0.999, (0, 1), 1.0), with_sinks(700, 0.9, (127, 600), 1.0)]
found = [attend(heads, [0, 700], before=before, after=after)
         for before, after in ((-1, -1), (-1, 0), (64, 64), (3, 300), (5, 5), (200, 0))]
found += [attend(heads, [0, 700], table=table, before=before) for before in (-1, 100)]
found += [attend(heads, [0, 700], after=0, capped=1, cap=cap) for cap in (0.5, 50.0)]
np.save({out!r}, np.stack(found))
"""


def test_every_instruction_set_gives_the_same_bits_of_long_texts(tmp_path: Path) -> None:
    """Tiles have other numbers of queries there, and so windows begin at other keys."""
    found = []
    for kernels in ("", list(build.kernels_of())[-1].removeprefix("kernels_")):
        out = tmp_path / f"{kernels}.npy"
        code = SAME_BITS.format(path=[str(folder) for folder in Path(__file__).parents[:2]], out=str(out))
        environment = {**os.environ, native.SWITCH: kernels}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(np.load(out))
    np.testing.assert_array_equal(found[0], found[1])
