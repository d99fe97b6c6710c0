"""Attention in AMX tiles, which tests/instructions_in_c.h has in plain C: the bits of every other set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from attention_heads import random_head, with_far_rows, with_sinks
from instructions_in_c import library
from native_operators import run

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
Head = tuple[Array, Array, Array]


@pytest.fixture(scope="module")
def tiles_in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("tiles"), "TILES_IN_C")


def check(
    tiles: Path, feeds: dict[str, Array], table: Array | None = None, threads: int = 1, **attributes: Any
) -> None:
    """The tiles give what the machine's own kernels do."""
    constants = [] if table is None else [table]
    if table is not None:
        attributes["by_distance"] = 1
    best = run("PackedAttention", feeds, constants, **attributes)
    assert np.isfinite(best).all()
    found = run("PackedAttention", feeds, constants, threads, tiles, **attributes)
    np.testing.assert_array_equal(found, best)


def side_by_side(heads: list[Head], starts: list[int]) -> dict[str, Array]:
    query, key, value = (np.concatenate(parts, axis=1) for parts in zip(*heads, strict=True))
    return {"query": query, "key": key, "value": value, "starts": np.array(starts, np.int64)}


@pytest.mark.parametrize("length", [63, 64, 65, 79, 80, 127, 128, 129, 191, 193, 257, 400])
def test_every_length(length: int, tiles_in_c: Path) -> None:
    check(
        tiles_in_c,
        side_by_side([random_head(length, 4), random_head(length, 0.5, seed=1)], [0, length]),
        heads=2,
        kv_heads=2,
    )


@pytest.mark.parametrize("size", [1, 2, 8, 16, 24, 48, 64, 72, 80, 128, 144, 256])
def test_every_size_of_a_head(size: int, tiles_in_c: Path) -> None:
    random = np.random.default_rng(size)
    heads, kv_heads, starts = 4, 2, np.array([0, 70, 80, 210], np.int64)
    query = random.normal(0, 1, (210, heads * size)).astype(np.float32)
    key, value = (random.normal(0, 1, (210, kv_heads * size)).astype(np.float32) for _ in range(2))
    key[5] *= 30  # steps of the others are coarse
    query[:, ::size] = np.abs(query[:, ::size]) * 100  # the largest products that there are: their sums fill int32
    feeds: dict[str, Array] = {"query": query, "key": key, "value": value, "starts": starts}
    check(tiles_in_c, feeds, heads=heads, kv_heads=kv_heads)
    feeds["query"] = query[starts[:-1]]
    check(tiles_in_c, feeds, heads=heads, kv_heads=kv_heads, first_only=1)


def test_the_largest_sums_of_products(tiles_in_c: Path) -> None:
    """All of one sign at the limit of int16, of which the sums nearly fill int32."""
    for size in (2, 32, 64, 128):
        query, key = (np.full((90, size), value, np.float32) for value in (0.3, 0.25))
        value = np.tile(np.where(np.arange(size) % 2, 1, -1).astype(np.float32), (90, 1))
        key[7] *= -1
        query[3] *= -1
        check(tiles_in_c, side_by_side([(query, key, value)], [0, 90]), heads=1, kv_heads=1)


@pytest.mark.parametrize(
    ("before", "after"), [(-1, -1), (-1, 0), (64, 64), (3, 300), (5, 5), (0, 0), (200, 0), (17, -1), (-1, 130)]
)
def test_windows_and_rows_that_are_far_or_crowded(before: int, after: int, tiles_in_c: Path) -> None:
    length = 330
    heads = [with_far_rows(length), with_sinks(length, 0.97, tuple(range(7, length, 100)), 0.05)]
    heads += [random_head(length, 6), with_sinks(length, 0.999, (0, 1), 1.0), with_sinks(length, 0.9, (127, 300), 1.0)]
    feeds = side_by_side(heads, [0, length])
    check(tiles_in_c, feeds, heads=5, kv_heads=5, before=before, after=after)
    table = np.random.default_rng(1).normal(0, 2, (5, 2 * length - 1)).astype(np.float32)
    check(tiles_in_c, feeds, table, heads=5, kv_heads=5, before=before, after=after)
    check(tiles_in_c, feeds, heads=5, kv_heads=5, before=before, after=after, capped=1, cap=5.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_texts_of_all_lengths_in_a_batch(threads: int, tiles_in_c: Path) -> None:
    starts = np.cumsum([0, 3, 64, 1, 0, 90, 63, 130, 0, 16])
    feeds = side_by_side([random_head(int(starts[-1]), 3), with_far_rows(int(starts[-1]))], list(starts))
    check(tiles_in_c, feeds, threads=threads, heads=2, kv_heads=2)


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-20, 1e15])
def test_values_of_all_sizes(scale: float, tiles_in_c: Path) -> None:
    query, key, value = random_head(100, 3)
    heads = [(query, key, (value * np.float32(scale)).astype(np.float32)), (query * np.float32(scale), key, value)]
    check(tiles_in_c, side_by_side(heads, [0, 100]), heads=2, kv_heads=2)


@pytest.mark.parametrize(("before", "after"), [(-1, -1), (64, 64)])
def test_long_texts_whose_tasks_share_keys(before: int, after: int, tiles_in_c: Path) -> None:
    heads = [random_head(1_400, 6), with_far_rows(1_400), random_head(1_400, 2), random_head(1_400, 1, seed=1)]
    feeds = side_by_side(heads, [0, 5, 705, 785, 1_400])
    feeds["key"], feeds["value"] = (feeds[name][:, : feeds[name].shape[1] // 2] for name in ("key", "value"))
    feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
    check(tiles_in_c, feeds, threads=2, heads=4, kv_heads=2, before=before, after=after)
