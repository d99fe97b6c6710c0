"""What each part of `encode` takes: `make bench-parts`, explained in README.md beside this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.inside.apart import Parts, texts
from fastembed_rt import EmbeddingModel
from fastembed_rt.models.embedding import MAX_BATCH_TOKENS
from fastembed_rt.run import batching

ONE = "how many trees stand by the old river?"


@pytest.fixture
def model(parts: Parts) -> Iterator[EmbeddingModel]:
    with EmbeddingModel(parts.directory, precision=parts.precision, threads=parts.threads) as loaded:
        loaded.encode(texts())  # loads the session for bulk work too
        yield loaded


def batch(parts: Parts) -> list[Any]:
    """Rows of the first batch: the longest texts."""
    lengths = np.array([len(row) for row in parts.rows])
    return [parts.rows[k] for k in batching.plan(lengths, MAX_BATCH_TOKENS)[0]]


def test_tokenize_one(benchmark: Any, parts: Parts) -> None:
    assert len(benchmark(parts.tokenizer, [ONE]).ids) == 1


def test_tokenize_many(benchmark: Any, parts: Parts) -> None:
    many = texts()
    assert len(benchmark(parts.tokenizer, many).ids) == len(many)


def test_tokenize_many_by_the_library(benchmark: Any, parts: Parts) -> None:
    """On one core, as the other is."""
    many, library = texts(), parts.tokenizer._library.limited
    assert len(benchmark(lambda: [library.encode_batch_fast([text])[0].ids for text in many])) == len(many)


def test_plan(benchmark: Any, parts: Parts) -> None:
    lengths = np.array([len(row) for row in parts.rows])
    assert sum(map(len, benchmark(batching.plan, lengths, MAX_BATCH_TOKENS))) == len(lengths)


def test_pack_one(benchmark: Any, parts: Parts) -> None:
    assert set(benchmark(parts.feeds, parts.tokenizer([ONE]).ids)) == set(parts.session.facts.inputs)


def test_pack_a_batch(benchmark: Any, parts: Parts) -> None:
    assert set(benchmark(parts.feeds, batch(parts))) == set(parts.session.facts.inputs)


def test_run_one(benchmark: Any, parts: Parts) -> None:
    vectors = benchmark(parts.session.run, parts.feeds(parts.tokenizer([ONE]).ids))
    assert vectors.shape == (1, parts.manifest.dim)


def test_run_a_batch(benchmark: Any, parts: Parts) -> None:
    rows = batch(parts)
    assert benchmark(parts.session.run, parts.feeds(rows)).shape == (len(rows), parts.manifest.dim)


def test_encode_one(benchmark: Any, model: EmbeddingModel) -> None:
    assert benchmark(model.encode, ONE).shape == (model.dim,)


def test_encode_many(benchmark: Any, model: EmbeddingModel) -> None:
    many = texts()
    assert benchmark(model.encode, many).shape == (len(many), model.dim)


def test_load(benchmark: Any, parts: Parts) -> None:
    def load() -> None:
        EmbeddingModel(parts.directory, precision=parts.precision, threads=parts.threads).close()

    benchmark.pedantic(load, rounds=5, warmup_rounds=1)
