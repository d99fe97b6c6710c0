"""Our attention for CUDA on stand-ins that compute its matrix instructions in plain C, beside torch in float64."""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import cuda_stand_in
import numpy as np
import numpy.typing as npt
import pytest
import torch
from cuda_stand_in.sessions import TYPES, StandIn, run

from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
Array = npt.NDArray[Any]
BOUND = {"Float16": 2e-3, "BFloat16": 1.6e-2}  # shares of keys are rounded to 16 bits, and the result
LENGTHS = (1, 15, 64, 65, 130)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


def wanted(parts: list[Array], heads: tuple[int, int], starts: Array, **given: Any) -> Array:
    """softmax(q k' + bias) v of each text, by torch."""
    (query, key, value), made, (many, few) = parts, [], heads
    for text, (a, b) in enumerate(pairwise(starts)):
        q, k, v = (
            torch.tensor(part[a:b].astype(np.float64)).reshape(b - a, count, -1).transpose(0, 1)
            for part, count in ((query, many), (key, few), (value, few))
        )
        distance = torch.arange(b - a)[None] - torch.arange(b - a)[:, None]
        bias = torch.zeros(many, b - a, b - a, dtype=torch.float64)
        if given.get("table") is not None:
            table = torch.tensor(given["table"].astype(np.float64))
            bias = bias + table[distance + len(table) // 2].permute(2, 0, 1)
        hidden = torch.zeros(b - a, b - a, dtype=torch.bool)
        if given.get("before", -1) >= 0:
            hidden |= -distance > given["before"]
        if given.get("after", -1) >= 0:
            hidden |= distance > given["after"]
        if given.get("seen") is not None:
            hidden |= torch.arange(b - a)[None] >= int(given["seen"][text])
        bias = bias.masked_fill(hidden, -torch.inf)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias, scale=1.0, enable_gqa=True)
        made.append(mixed.transpose(0, 1).reshape(b - a, -1))
    return np.asarray(torch.cat(made).numpy())


def states(kind: str, heads: tuple[int, int], size: int, rows: int) -> list[Array]:
    random = np.random.default_rng(0)
    widths = (heads[0] * size, heads[1] * size, heads[1] * size)
    scales = (2 / np.sqrt(size), 1, 1)
    return [(random.standard_normal((rows, w)) * s).astype(TYPES[kind]) for w, s in zip(widths, scales, strict=True)]


def feeds_of(parts: list[Array], starts: Array, longest: int) -> dict[str, Array]:
    named = dict(zip(("query", "key", "value"), parts, strict=True))
    return {**named, "starts": starts, "places": np.arange(longest)}


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("size", [32, 64, 128])
def test_each_text_attends_to_itself(stand_in: StandIn, kind: str, size: int) -> None:
    starts = np.cumsum([0, *LENGTHS]).astype(np.int32)
    parts = states(kind, (2, 2), size, int(starts[-1]) + 3)  # rows of no text
    found = run(stand_in, f"Attention{kind}", feeds_of(parts, starts, 144), [], heads=2, size=size)
    expected = wanted(parts, (2, 2), starts)
    np.testing.assert_allclose(found[: starts[-1]].astype(np.float64), expected, atol=BOUND[kind], rtol=BOUND[kind])


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    "given", [{"before": 40, "after": 40}, {"after": 0}, {"before": 3, "after": 0}, {"before": 70}]
)
def test_windows_and_causal_masks_hide_keys(stand_in: StandIn, size: int, given: dict[str, Any]) -> None:
    """With heads of keys that serve two of queries."""
    starts = np.cumsum([0, 200, 1, 70]).astype(np.int32)
    parts = states("Float16", (2, 1), size, int(starts[-1]))
    found = run(
        stand_in, "AttentionFloat16", feeds_of(parts, starts, 208), [], heads=2, key_heads=1, size=size, **given
    )
    expected = wanted(parts, (2, 1), starts, **given)
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=2e-3, rtol=2e-3)


def test_tokens_that_fill_a_query_up_see_and_are_not_seen(stand_in: StandIn) -> None:
    starts, seen = np.array([0, 80, 112], np.int32), np.array([80, 7], np.int32)
    parts = states("Float16", (1, 1), 32, 112)
    feeds = {**feeds_of(parts, starts, 80), "seen": seen}
    found = run(stand_in, "AttentionFloat16", feeds, [], heads=1, size=32, seen=1)
    expected = wanted(parts, (1, 1), starts, seen=seen)
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", list(TYPES))
def test_distances_add_to_the_scores(stand_in: StandIn, kind: str) -> None:
    starts = np.array([0, 90, 100], np.int32)
    parts = states(kind, (2, 2), 32, 100)
    table = np.random.default_rng(1).standard_normal((2 * 96 - 1, 2)).astype(TYPES[kind])
    found = run(stand_in, f"Attention{kind}", feeds_of(parts, starts, 96), [table], heads=2, size=32, bias=1)
    expected = wanted(parts, (2, 2), starts, table=table)
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=BOUND[kind], rtol=BOUND[kind])


def test_one_product_of_queries_keys_and_values_is_read_by_strides(stand_in: StandIn) -> None:
    starts = np.array([0, 66, 70], np.int32)
    parts = states("Float16", (2, 1), 32, 70)
    packed = np.concatenate(parts, axis=1)
    at: dict[str, Any] = {"query_at": 0, "key_at": 64, "value_at": 96}
    options: dict[str, Any] = {"heads": 2, "key_heads": 1, "size": 32}
    found = run(stand_in, "AttentionFloat16", feeds_of([packed] * 3, starts, 80), [], **options, **at)
    apart = run(stand_in, "AttentionFloat16", feeds_of(parts, starts, 80), [], **options)
    assert found.tobytes() == apart.tobytes()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_text_has_the_same_bits_in_any_batch(stand_in: StandIn, size: int) -> None:
    starts = np.cumsum([0, 3, 131, 70]).astype(np.int32)
    parts = states("Float16", (1, 1), size, int(starts[-1]))
    whole = run(stand_in, "AttentionFloat16", feeds_of(parts, starts, 256), [], heads=1, size=size)
    for a, b in pairwise(starts):
        own, longest = [part[a:b] for part in parts], -(-(b - a) // 16) * 16
        alone = run(
            *(stand_in, "AttentionFloat16", feeds_of(own, np.array([0, b - a], np.int32), longest), []),
            **dict[str, Any](heads=1, size=size),
        )
        assert alone.tobytes() == whole[a:b].tobytes()


def test_large_scores_do_not_overflow(stand_in: StandIn) -> None:
    starts = np.array([0, 70], np.int32)
    query, key, value = states("Float16", (1, 1), 32, 70)
    parts = [(query * 60).astype(np.float16), (key * 20).astype(np.float16), value]
    found = run(stand_in, "AttentionFloat16", feeds_of(parts, starts, 80), [], heads=1, size=32)
    np.testing.assert_allclose(found.astype(np.float64), wanted(parts, (1, 1), starts), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 2, "size": 48}, "size is 48 and has to be 32, 64 or 128"),
        ({"heads": 2, "key_heads": 3, "size": 32}, "2 heads of queries do not share 3 of keys"),
        ({"heads": 2, "size": 32, "query_at": 8}, "query has 64 columns and has to have a multiple of 8, at least 72"),
        ({"heads": 2, "size": 32, "key_at": 4}, "key_at is 4 and has to be a multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(stand_in: StandIn, options: dict[str, int], said: str) -> None:
    feeds = feeds_of(states("Float16", (2, 2), 32, 4), np.array([0, 4], np.int32), 16)
    with pytest.raises(Exception, match=f"fastembed_rt: AttentionFloat16: .*{said}"):
        run(stand_in, "AttentionFloat16", feeds, [], **options)


def test_boundaries_of_no_sense_read_nothing(stand_in: StandIn) -> None:
    """Whose difference would wrap around to one token, of rows that are not there."""
    parts = states("Float16", (1, 1), 32, 8)
    starts = np.array([0, 8, 2**31 - 1, -(2**31), 3], np.int32)
    found = run(stand_in, "AttentionFloat16", feeds_of(parts, starts, 64), [], heads=1, size=32)
    expected = wanted(parts, (1, 1), np.array([0, 8]))
    np.testing.assert_allclose(found[3:].astype(np.float64), expected[3:], atol=2e-3, rtol=2e-3)


BARRIERS = (build.SOURCES / "cuda" / "attention.cu").read_text(encoding="utf-8").split("__syncthreads();")


@pytest.mark.slow
@pytest.mark.parametrize("left_out", range(1, len(BARRIERS)))
def test_every_barrier_is_missed_where_it_is_left_out(tmp_path: Path, left_out: int) -> None:
    """By the stand-in: its warps run ahead of each other, and copies come early or late."""
    sources = shutil.copytree(build.SOURCES / "cuda", tmp_path / "cuda")
    spoilt = "__syncthreads();".join(BARRIERS[:left_out]) + "__syncthreads();".join(["", *BARRIERS[left_out:]])[16:]
    (sources / "attention.cu").write_text(spoilt, encoding="utf-8")
    assert spoilt.count("__syncthreads();") == len(BARRIERS) - 2
    library = cuda_stand_in.build(tmp_path, sources=sources)
    spoilt_stand_in = StandIn(build.build_cuda(tmp_path / "operators.so"), library)
    starts = np.cumsum([0, *LENGTHS]).astype(np.int32)
    parts = states("Float16", (2, 2), 64, int(starts[-1]))
    found = run(spoilt_stand_in, "AttentionFloat16", feeds_of(parts, starts, 144), [], heads=2, size=64)
    expected = wanted(parts, (2, 2), starts)
    assert not np.allclose(found.astype(np.float64), expected, atol=BOUND["Float16"], rtol=BOUND["Float16"])
