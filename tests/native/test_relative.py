"""Scores that distances between tokens take part in: queries and keys meet rows of tables, as DeBERTa's do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from instructions_in_c import library
from native_operators import LIBRARY, FloatGroup, Group, attention, block, run
from transformers.models.deberta_v2.configuration_deberta_v2 import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention, build_relative_position

from fastembed_rt import native
from fastembed_rt_export.architectures.deberta import log_bucket

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
LENGTHS = (1, 0, 5, 15, 16, 17, 47, 48, 49, 63, 127, 128, 129, 200, 330, 2)
REACH = 340
# As fp32 attention without distances; three products instead of one, of scores around 1.
MIXED = 6e-6
KINDS = pytest.mark.parametrize("kinds", [("c2p",), ("p2c",), ("c2p", "p2c")], ids="+".join)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The best kernels of this processor, and those of AVX2 and AMX with instructions in C."""
    made = tmp_path_factory.mktemp("emulated")
    return [LIBRARY, library(made, "BF16_DOT_IN_C"), library(made, "TILES_IN_C")]


def rows_of(form: str, reach: int = REACH) -> Array:
    """The row of each distance: one each, one each up to 32 and fewer beyond, or for few distances at all."""
    distance = np.arange(-(reach - 1), reach)
    if form == "each":
        return distance + reach + 3
    if form == "buckets":
        return log_bucket(distance, 64, reach) + 70
    return np.clip(distance, -3, 3) + 3


def tables(random: np.random.Generator, rows: Array, width: int, kinds: tuple[str, ...]) -> dict[str, Array]:
    made: dict[str, Array] = {"rows": rows}
    count, strength = int(rows.max()) + 1, 0.7 / np.sqrt(width)
    if "c2p" in kinds:
        made["c2p"] = random.normal(0, strength, (count + 2, width)).astype(np.float32)
    if "p2c" in kinds:
        made["p2c"] = random.normal(0, strength, (width, -(-count // 16) * 16)).astype(np.float32)
    return made


def random_feeds(
    random: np.random.Generator, lengths: tuple[int, ...], heads: int, kv_heads: int, size: int
) -> dict[str, Array]:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    strength = 1.2 / size**0.25
    return {
        "query": random.normal(0, strength, (int(starts[-1]), heads * size)).astype(np.float32),
        "key": random.normal(0, strength, (int(starts[-1]), kv_heads * size)).astype(np.float32),
        "value": random.normal(0, 1, (int(starts[-1]), kv_heads * size)).astype(np.float32),
        "starts": starts,
    }


def attend(
    feeds: dict[str, Array],
    heads: int,
    kv_heads: int,
    size: int,
    given: dict[str, Array],
    threads: int = 1,
    path: Path | None = None,
    **more: int,
) -> Array:
    shape = {"heads": heads, "kv_heads": kv_heads, "size": size, "c2p": int("c2p" in given), "p2c": int("p2c" in given)}
    return run("PackedAttention", feeds, list(given.values()), threads, path, **shape, **more)


@KINDS
@pytest.mark.parametrize("form", ["each", "buckets", "few"])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(2, 2, 8), (2, 1, 40), (2, 2, 64)])
def test_queries_and_keys_meet_rows_of_their_distances(
    heads: int, kv_heads: int, size: int, form: str, kinds: tuple[str, ...], libraries: list[Path]
) -> None:
    random = np.random.default_rng(size)
    feeds = random_feeds(random, LENGTHS, heads, kv_heads, size)
    given = tables(random, rows_of(form), heads * size, kinds)
    found = attend(feeds, heads, kv_heads, size, given)
    expected = attention(feeds["query"], feeds["key"], feeds["value"], feeds["starts"], heads, kv_heads, **given)
    assert np.abs(found - expected).max() < MIXED
    for path, threads in itertools.product(libraries, (1, 2)):
        np.testing.assert_array_equal(attend(feeds, heads, kv_heads, size, given, threads, path), found)
    for start, stop in itertools.pairwise(feeds["starts"]):  # alone: nothing depends on other texts
        alone = {name: feeds[name][start:stop] for name in ("query", "key", "value")}
        alone["starts"] = np.array([0, stop - start])
        np.testing.assert_array_equal(attend(alone, heads, kv_heads, size, given), found[start:stop])


@KINDS
@pytest.mark.parametrize("form", ["each", "buckets"])
def test_first_tokens_have_what_they_have_among_all(form: str, kinds: tuple[str, ...]) -> None:
    random = np.random.default_rng(1)
    feeds = random_feeds(random, LENGTHS, 2, 2, 32)
    given = tables(random, rows_of(form), 64, kinds)
    found = attend(feeds, 2, 2, 32, given)
    there = np.diff(feeds["starts"]) > 0
    firsts = np.zeros((len(there), 64), np.float32)
    firsts[there] = feeds["query"][feeds["starts"][:-1][there]]
    alone = attend({**feeds, "query": firsts}, 2, 2, 32, given, first_only=1)
    np.testing.assert_array_equal(alone[there], found[feeds["starts"][:-1][there]])
    assert not alone[~there].any()


@pytest.mark.parametrize("window", [{"before": 20}, {"after": 0}, {"before": 3, "after": 130}], ids=str)
def test_distances_within_windows(window: dict[str, Any], libraries: list[Path]) -> None:
    random = np.random.default_rng(2)
    feeds = random_feeds(random, (330, 49, 1), 2, 1, 24)
    given = tables(random, rows_of("buckets"), 48, ("c2p", "p2c"))
    found = attend(feeds, 2, 1, 24, given, **window)
    expected = attention(feeds["query"], feeds["key"], feeds["value"], feeds["starts"], 2, 1, **given, **window)
    assert np.abs(found - expected).max() < MIXED
    for path in libraries:
        np.testing.assert_array_equal(attend(feeds, 2, 1, 24, given, 2, path, **window), found)


@pytest.mark.parametrize("length", [1, 30, 150, 500])
def test_it_is_the_attention_of_transformers(length: int) -> None:
    """DebertaV2's, of version 3's settings and as long as its tables: 256 buckets, 512 positions."""
    heads, size = 2, 16
    width = heads * size
    config = DebertaV2Config(
        hidden_size=width,
        num_attention_heads=heads,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        share_att_key=True,
        position_buckets=256,
        max_position_embeddings=512,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    )
    torch.manual_seed(length)
    layer = DisentangledSelfAttention(config).double().eval()
    states, rows = torch.randn(1, length, width, dtype=torch.float64), torch.randn(512, width, dtype=torch.float64)
    with torch.no_grad():
        places = build_relative_position(states, states, bucket_size=256, max_position=512)
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        expected = layer(states, mask, relative_pos=places, rel_embeddings=rows)[0][0].numpy()
        query, key, value = (part(states)[0].numpy() for part in (layer.query_proj, layer.key_proj, layer.value_proj))
        c2p, p2c = layer.key_proj(rows).numpy(), layer.query_proj(rows).numpy()
    scale = 1 / np.sqrt(size * 3)
    given = {"rows": np.clip(log_bucket(np.arange(-511, 512), 256, 512) + 256, 0, 511)}
    given |= {"c2p": c2p.astype(np.float32), "p2c": np.ascontiguousarray((p2c * scale).T, np.float32)}
    feeds = {"query": (query * scale), "key": key, "value": value}
    feeds = {name: part.astype(np.float32) for name, part in feeds.items()} | {"starts": np.array([0, length])}
    assert np.abs(attend(feeds, heads, heads, size, given) - expected).max() < 2e-6


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("op", "group"), [("QuantAttention", Group), ("Fp32Attention", FloatGroup)])
@pytest.mark.parametrize(("lengths", "size"), [((5, 1, 40, 90, 2), 8), ((150, 20, 30), 64), ((300,), 64)])
def test_blocks_take_them(
    lengths: tuple[int, ...], size: int, op: str, group: type[Group] | type[FloatGroup], threads: int
) -> None:
    """A head's own part of the tables, also where heads are computed one after another."""
    random = np.random.default_rng(3)
    given = tables(random, rows_of("buckets"), 8 * size, ("c2p", "p2c"))
    feeds, constants, attributes, expected = block(random, lengths, 8, size, given, group=group)
    off = np.abs(run(op, feeds, constants, threads, **attributes) - expected())
    assert off.max() < (1e-3 if op == "Fp32Attention" else 2e-2)  # of scores up to hundreds


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Array], str]] = {
    "rows that jump": ({}, {"rows": np.arange(9) * 2}, "have a 2 at 1, and each has to be the one before"),
    "rows that fall": ({}, {"rows": -np.arange(9) + 20}, "have a 19 at 1"),
    "rows before the first": ({}, {"rows": np.arange(9) - 1}, "have a -1 at 0, and the first row is 0"),
    "rows without a middle": ({}, {"rows": np.arange(8)}, "8 rows of distances, of which none is in the middle"),
    "rows of another type": ({}, {"rows": np.arange(9, dtype=np.int32)}, "the rows of distances is int32"),
    "a longer text": ({}, {"rows": np.arange(7)}, "what it knows of distances reaches over 4"),
    "a table of too few rows": ({}, {"c2p": np.zeros((8, 64), np.float32)}, "c2p has 8 rows, .* one of number 8"),
    "a narrow table": ({}, {"c2p": np.zeros((9, 32), np.float32)}, "table of c2p is float32"),
    "a table of too few columns": ({}, {"p2c": np.zeros((64, 8), np.float32)}, "a multiple of 16 above 8"),
    "columns beside vectors": ({}, {"p2c": np.zeros((64, 20), np.float32)}, "a multiple of 16 above 8"),
    "a table that is no number": ({}, {"p2c": np.full((64, 16), np.nan, np.float32)}, "not finite"),
    "heads of no size": ({"size": 0}, {}, "need the size of heads"),
    "a bias beside them": ({"by_distance": 1}, {}, "exclude seen and by_distance"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_does_not_fit_is_refused(name: str) -> None:
    attributes, changed, message = REFUSED[name]
    part = np.ones((5, 64), np.float32)
    feeds = {"query": part, "key": part, "value": part, "starts": np.array([0, 5])}
    constants: dict[str, Array] = {
        "rows": np.arange(9),
        "c2p": np.zeros((9, 64), np.float32),
        "p2c": np.zeros((64, 16), np.float32),
        **changed,
    }
    table: list[Array] = [np.zeros((2, 9), np.float32)] if "by_distance" in attributes else []
    with pytest.raises(Exception, match=message):
        run(
            "PackedAttention",
            feeds,
            [*table, *constants.values()],
            **{"heads": 2, "kv_heads": 2, "size": 32, "c2p": 1, "p2c": 1, **attributes},
        )


def test_seen_tokens_beside_them_are_refused() -> None:
    part = np.ones((5, 64), np.float32)
    feeds = {"query": part, "key": part, "value": part, "starts": np.array([0, 5]), "seen": np.array([3])}
    shape: dict[str, Any] = {"heads": 2, "kv_heads": 2, "size": 32, "seen": 1, "c2p": 1}
    with pytest.raises(Exception, match="exclude seen and by_distance"):
        run("PackedAttention", feeds, [np.arange(9), np.zeros((9, 64), np.float32)], **shape)
