"""Vectors that do not depend on their neighbours, and streams that hold no more than they must."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checkpoints import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from model_texts import DIM, LONG, POSITIONS, SOME, assert_same, both_targets, small_windows
from tolerances import REORDERED

import fastembed_rt.text.windows as windows_module
from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError

# Neighbours


@pytest.fixture(scope="module")
def by_budget(pair: Any) -> Any:
    """One model for each target and batch budget, all positions in use."""
    return {
        (target, budget): EmbeddingModel(
            pair.directory, target=target, max_batch_tokens=budget, max_length=POSITIONS, threads=1
        )
        for target in ("portable", "cpu")
        for budget in (1, 7, 50, 200, 1024, 10**6)
    }


sentences = st.lists(st.sampled_from([*WORDS, "zebra", "🙂"]), max_size=60).map(" ".join)
any_texts = st.lists(
    sentences | st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=24
)


@both_targets
@settings(max_examples=40)
@given(texts=any_texts, budget=st.sampled_from([1, 7, 50, 200, 1024, 10**6]), seed=st.integers(0, 99))
def test_neighbours_do_not_change_a_vector(
    by_budget: Any, target: str, texts: list[str], budget: int, seed: int
) -> None:
    alone = np.stack([by_budget[target, 1].encode(text) for text in texts])
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    order += order[:3]  # duplicates
    together = by_budget[target, budget].encode([texts[k] for k in order])
    assert_same(together, alone[order], REORDERED)


@both_targets
def test_long_neighbours_do_not_change_a_vector(by_budget: Any, target: str) -> None:
    texts = ["a", "the cat", LONG, "dog " * 45, "", *[f"light {n}" for n in range(30)]]
    wanted = np.stack([by_budget[target, 1].encode(text) for text in texts])
    for budget in (7, 50, 200, 1024, 10**6):
        assert_same(by_budget[target, budget].encode(texts), wanted, REORDERED)


def test_the_same_texts_give_the_same_bits(model: EmbeddingModel) -> None:
    assert model.encode(SOME).tobytes() == model.encode(SOME).tobytes()


# Streams


def test_embed_gives_the_vectors_of_encode_in_order(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 5)
    streamed = list(model.embed(iter(SOME), prompt_name="query"))
    assert all(vector.shape == (DIM,) and vector.dtype == np.float32 for vector in streamed)
    assert_same(streamed, model.encode(SOME, prompt_name="query"), REORDERED)


def test_embed_reads_an_endless_stream_as_it_goes(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 8)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"cat {read}"

    stream = model.embed(endless())
    assert read == 0
    for given_back, vector in enumerate(itertools.islice(stream, 50), 1):
        assert read - given_back < 2 * 8  # the window that runs and the one that is tokenized meanwhile
        assert_same(vector, model.encode(f"cat {given_back}"), REORDERED)


def test_embed_reads_few_large_texts_ahead(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "CHARACTERS", 1000)
    texts = iter(["a " * 300] * 50)
    next(model.embed(texts))
    assert sum(1 for _ in texts) >= 46


def test_embed_refuses_bad_options_at_once(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError):
        model.embed(["a"], prompt_name="other")


def test_memory_of_a_stream_does_not_grow_with_it(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 100)

    def peak(texts: int) -> int:
        tracemalloc.start()
        try:
            for _ in model.embed(f"the cat sleeps {k}" for k in range(texts)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(600)
    assert peak(6000) < 1.5 * peak(600)
