"""Every kind of session and engine keeps the whole contract, seen through EmbeddingModel; GPUs are pretended."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from exports import quick
from pretended import pretended_gpus

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.run.contract import GraphSession, Runner
from fastembed_rt.system.threads import Call

__all__ = ["pretended_gpus"]
KINDS: dict[str, dict[str, Any]] = {
    "cpu": {"provider": "cpu"},
    "one thread": {"provider": "cpu", "threads": 1},
    "cuda": {"provider": "cuda"},
    "cuda fp16": {"provider": "cuda", "precision": "fp16", "target": "cuda"},
    "cuda-native": {"provider": "cuda", "precision": "fp16"},
    "tensorrt": {"provider": "tensorrt"},
    "tensorrt portable": {"provider": "tensorrt", "target": "portable"},
    "devices": {"provider": "cpu", "device_ids": [0, 1]},
}
LOOSE = {"cuda fp16": 2e-3, "cuda-native": 2e-3}
MANY = [f"{text} {k}" for k in range(12) for text in TEXTS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("contract") / "checkpoint")


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    output = checkpoint.with_name("model")
    quick(checkpoint, output, targets=("cpu", "cuda", "tensorrt"), precisions=("fp32", "fp16"))
    return output


@pytest.fixture(scope="module")
def wanted(checkpoint: Path) -> Any:
    return reference_vectors(checkpoint, MANY)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def model(kind: str, directory: Path, pretended_gpus: None) -> Iterator[EmbeddingModel]:
    options: dict[str, Any] = {"threads": 2, "precision": "fp32", "max_batch_tokens": 128, **KINDS[kind]}
    with EmbeddingModel(directory, **options) as made:
        yield made


def members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def test_all_of_the_contract_is_there(model: EmbeddingModel, kind: str) -> None:
    engine = model._running()
    for name in members(Runner):
        found = inspect.getattr_static(type(engine), name)
        stated = inspect.getattr_static(Runner, name)
        if callable(stated):
            given = list(inspect.signature(stated).parameters)
            assert list(inspect.signature(found).parameters) == given, name
    assert (engine.sessions == ()) == (kind == "devices")
    for session in engine.sessions:
        assert {name for name in members(GraphSession) if hasattr(session, name)} == set(members(GraphSession))
        assert session.facts.inputs == model.variant.inputs
        assert session.facts.takes_all == (model.provider != "cpu")
        own = model.target == "native"
        assert (session.facts.padded, session.facts.light) == (not own, own)
        assert session.handles and None not in session.handles


def test_one_few_many_and_no_texts_have_the_vectors_of_the_reference(
    model: EmbeddingModel, kind: str, wanted: Any
) -> None:
    close: Callable[..., None] = np.testing.assert_allclose
    bound = {"rtol": 0, "atol": LOOSE.get(kind, 1e-5)}
    close(model.encode(MANY[0]), wanted[0], **bound)
    close(model.encode(MANY[:5]), wanted[:5], **bound)
    close(model.encode(MANY), wanted, **bound)
    close(np.stack(list(model.embed(iter(MANY)))), wanted, **bound)
    close(asyncio.run(model.aencode(MANY[3])), wanted[3], **bound)
    assert model.encode([]).shape == (0, model.dim)
    with ThreadPoolExecutor(4) as pool:
        close(np.stack(list(pool.map(model.encode, MANY[:16]))), wanted[:16], **bound)


def test_small_and_bulk_are_asked_for_and_answered_in_order(model: EmbeddingModel) -> None:
    engine = model._running()
    rows = [np.array([2, *[5 + k % 7] * (k % 9 + 1), 3], dtype=np.int64) for k in range(80)]
    nothing = np.zeros(len(rows), np.int64)
    assert engine.is_small(rows[:1]) and not engine.is_small(rows)
    together = engine.collect(engine.submit(rows, nothing, Call()))
    for k in (0, 17, 79):
        np.testing.assert_allclose(together[k], engine.run_small(rows[k : k + 1], nothing[:1])[0], rtol=0, atol=2e-3)
    few = [rows[k] for k in (0, 17, 79)]
    assert engine.limits.is_one_batch(few) and engine.side_by_side >= 1
    for alone in (True, False):
        batch = engine.run_batch(few, nothing[:3], alone=alone)
        np.testing.assert_allclose(batch, together[[0, 17, 79]], rtol=0, atol=2e-3)
    assert engine.background(Call(), sum, [1, 2]).result() == 3


def test_what_is_closed_is_closed(model: EmbeddingModel) -> None:
    engine = model._running()
    row = [np.array([2, 5, 3], dtype=np.int64)]
    nothing = np.zeros(1, np.int64)
    engine.close()
    engine.close()
    with pytest.raises(InvalidInputError, match="closed"):
        engine.run_small(row, nothing)
    with pytest.raises(InvalidInputError, match="closed"):
        engine.submit(row * 50, np.zeros(50, np.int64), Call())


def test_max_length_can_be_raised_as_far_as_the_engines_go(model: EmbeddingModel) -> None:
    most = model.manifest.max_positions
    model.max_length = 5
    assert model.max_length == model.max_seq_length == 5
    with pytest.raises(InvalidInputError, match=f"expected 1 to {most}"):
        model.max_length = most + 1
    if model.provider == "tensorrt" and model.manifest.max_length < most:
        with pytest.raises(InvalidInputError, match="the engines were built for"):
            model.max_length = most
    else:
        model.max_length = most
        assert model.encode("a " * most).shape == (model.dim,)
