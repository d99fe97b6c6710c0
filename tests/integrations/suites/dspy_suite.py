"""DSPy: Embedder, its cache, async, copies; the retriever with both prompts, saved and loaded."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import cloudpickle
import dspy
import numpy as np
import pytest
from conftest import Case, close, run_page, same

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.integrations.dspy import FastEmbedRtEmbedder, FastEmbedRtRetriever


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> None:
    dspy.configure_cache(disk_cache_dir=str(tmp_path / "cache"), enable_disk_cache=True, enable_memory_cache=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts of each call of a model."""
    counts: list[int] = []
    encode = EmbeddingModel.encode

    def counted(self: Any, inputs: Any, **options: Any) -> Any:
        counts.append(len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(EmbeddingModel, "encode", counted)
    return counts


def test_vectors_by_role(case: Case) -> None:
    same(FastEmbedRtEmbedder(case.dense)(case.texts), case.model.encode(case.texts))
    same(FastEmbedRtEmbedder(case.dense, role="document")(case.texts), case.documents)
    one = FastEmbedRtEmbedder(case.model, role="query")(case.query)
    assert one.shape == (case.model.dim,) and one.dtype == np.float32
    same(one, case.queried)
    same(FastEmbedRtEmbedder(case.model)(case.texts, truncate_dim=8), case.model.encode(case.texts, truncate_dim=8))
    assert FastEmbedRtEmbedder(case.model)([]).shape == (0, case.model.dim)
    with pytest.raises(InvalidInputError, match="role"):
        FastEmbedRtEmbedder(case.model, role="passage")
    with pytest.raises(ValueError, match="strings"):
        FastEmbedRtEmbedder(case.model)(["a", 3])


@pytest.mark.parametrize("caching", [False, True])
def test_texts_that_are_none_empty_or_very_long(case: Case, caching: bool) -> None:
    embedder = FastEmbedRtEmbedder(case.model, role="document", caching=caching)
    for wrong in (None, float("nan")):
        with pytest.raises(ValueError, match="strings"):
            embedder(["a", wrong])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="strings"):
            FastEmbedRtRetriever(["a", wrong], case.model)  # type: ignore[list-item]
    for wrong in (None, float("nan"), 3, {"a"}, {"a": 1}):
        with pytest.raises(TypeError, match="inputs are"):
            embedder(wrong)  # type: ignore[arg-type]
    same(embedder(text for text in case.texts), case.documents)  # type: ignore[arg-type]
    assert embedder([], truncate_dim=8).shape == (0, 8)
    for text in ("", "a dog " * 200_000):
        same(embedder(text), case.model.encode_document(text))
        same(embedder([text]), [case.model.encode_document(text)])


def test_many_texts_are_few_calls(case: Case, calls: list[int]) -> None:
    embedder = FastEmbedRtEmbedder(case.model)
    embedder(case.texts * 125)
    embedder(case.texts, batch_size=5)
    assert calls == [1000, 5, 3]


async def test_async_gives_the_same_and_leaves_the_loop_free(case: Case) -> None:
    embedder = FastEmbedRtEmbedder(case.model, role="document")
    turns, done = 0, asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    found = await asyncio.gather(*(embedder.acall(case.texts * 50) for _ in range(4)))
    done.set()
    await counting
    for vectors in found:
        close(vectors[:8], case.documents)
    assert turns > 5


def test_the_cache_tells_models_apart(case: Case, calls: list[int]) -> None:
    first = FastEmbedRtEmbedder(case.model, caching=True)
    other = EmbeddingModel(case.dense, max_length=5)
    second = FastEmbedRtEmbedder(other, caching=True)
    wanted, shorter = case.model.encode(case.texts), other.encode(case.texts)
    assert np.abs(wanted - shorter).max() > 0.01
    calls.clear()
    for _ in range(2):
        same(first(case.texts), wanted)
        same(second(case.texts), shorter)
        close(first(case.texts, truncate_dim=8), wanted[:, :8] / np.linalg.norm(wanted[:, :8], axis=1, keepdims=True))
    assert calls == [8, 8, 8]
    calls.clear()
    for embedder, vectors in ((first, wanted), (second, shorter)):
        for _ in range(2):  # a call without the cache, of an embedder that has one
            same(embedder(case.texts, caching=False), vectors)
        same(FastEmbedRtEmbedder(embedder.client)(case.texts, caching=True), vectors)
    assert calls == [8, 8, 8, 8]
    same(FastEmbedRtEmbedder(case.model, role="query", caching=True)(case.query), case.queried)
    same(FastEmbedRtEmbedder(case.model, role="document", caching=True)(case.texts), case.documents)


@pytest.mark.parametrize("role", ["document", "query"])
def test_the_cache_tells_prompts_apart(case: Case, role: str) -> None:
    texts = case.texts
    models = [EmbeddingModel(case.dense, prompts={role: prompt}) for prompt in ("A: ", "B: ")]
    first, second = (FastEmbedRtEmbedder(model, role=role, caching=True) for model in models)
    same(first(texts), case.model.encode(texts, prompt="A: "))
    same(second(texts), case.model.encode(texts, prompt="B: "))
    named = (EmbeddingModel(case.dense, prompts={"mine": prompt}) for prompt in ("A: ", "B: "))
    for model, prompt in zip(named, ("A: ", "B: "), strict=True):
        embedder = FastEmbedRtEmbedder(model, caching=True)
        same(embedder(texts, prompt_name="mine"), case.model.encode(texts, prompt=prompt))


def test_without_a_role_texts_have_the_default_prompt(case: Case) -> None:
    model = EmbeddingModel(case.dense, default_prompt_name="query")
    same(FastEmbedRtEmbedder(model)(case.query), case.queried)


def test_why_the_cache_is_told_the_fingerprint(case: Case) -> None:
    """A plain Embedder of two models gives the first one's vectors for both."""
    other = EmbeddingModel(case.dense, max_length=5)
    first, second = dspy.Embedder(case.model.encode), dspy.Embedder(other.encode)
    same(first(case.texts), second(case.texts))
    assert np.abs(other.encode(case.texts) - second(case.texts)).max() > 0.01


def test_copies_and_pickles(case: Case) -> None:
    embedder = FastEmbedRtEmbedder(case.model, role="query", truncate_dim=8)
    wanted = case.model.encode_query(case.texts, truncate_dim=8)
    for again in (copy.deepcopy(embedder), cloudpickle.loads(cloudpickle.dumps(embedder))):
        same(again(case.texts), wanted)
        assert again.client._running() is case.model._running()


def test_a_retriever_has_both_prompts(case: Case, tmp_path: Path) -> None:
    retriever = FastEmbedRtRetriever(case.texts, case.dense, k=3)
    best = np.argsort(-(case.documents @ case.queried), kind="stable")[:3].tolist()
    found = retriever(case.query)
    assert found.indices == best
    assert found.passages == [case.texts[k] for k in best]
    retriever.save(str(tmp_path / "index"))
    again = dspy.retrievers.Embeddings.from_saved(
        str(tmp_path / "index"), FastEmbedRtEmbedder(case.dense, role="query")
    )
    assert again(case.query).indices == best
    same(again.corpus_embeddings, retriever.corpus_embeddings)


def test_a_program_uses_it(case: Case) -> None:
    class Search(dspy.Module):
        def __init__(self) -> None:
            self.retrieve = FastEmbedRtRetriever(case.texts, case.model, k=1)

        def forward(self, question: str) -> Any:
            return dspy.Prediction(passage=self.retrieve(question).passages[0])

    best = int(np.argmax(case.documents @ case.queried))
    program = Search()
    for each in (program, program.deepcopy()):
        assert each(question=case.query).passage == case.texts[best]


def test_the_page_runs_as_written(case: Case, tmp_path: Path) -> None:
    names = run_page("dspy.md", case, tmp_path)
    close(names["vectors"], case.model.encode_query(["which dog runs?"]))
