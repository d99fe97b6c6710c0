"""LangChain's own tests of embeddings, and what is beyond them: prompts, async, hybrid retrieval, pickles."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Case, close, run_page, same
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from qdrant_client import QdrantClient

import fastembed_rt
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ModelNotFoundError

# The distribution langchain-fastembed-rt is tried with the same tests.
ours: Any = import_module(os.environ.get("FASTEMBED_RT_MODULE", "fastembed_rt.integrations.langchain"))
sparse: Any = import_module(os.environ.get("FASTEMBED_RT_MODULE", "fastembed_rt.integrations.langchain_qdrant"))
DENSE = f"{os.environ['FASTEMBED_RT_CASE']}/dense-onnx"


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type:
        return ours.FastEmbedRtEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": DENSE}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type:
        return ours.FastEmbedRtEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": DENSE}


@pytest.fixture(scope="module")
def embeddings(case: Case) -> Any:
    return ours.FastEmbedRtEmbeddings(model=case.dense)


@pytest.fixture(scope="module")
def ranker(case: Case) -> Any:
    return ours.FastEmbedRtRerank(model=case.reranker)


def documents(case: Case) -> list[Document]:
    return [Document(page_content=text, metadata={"n": k}, id=f"d{k}") for k, text in enumerate(case.texts)]


def test_documents_and_queries_have_their_prompts(case: Case, embeddings: Any) -> None:
    same(embeddings.embed_documents(case.texts), case.documents)
    same(embeddings.embed_query(case.query), case.queried)
    assert embeddings.embed_documents([]) == []


async def test_async_gives_the_same_and_leaves_the_loop_free(case: Case, embeddings: Any) -> None:
    turns, done = 0, asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    many, one = await asyncio.gather(embeddings.aembed_documents(case.texts * 300), embeddings.aembed_query(case.query))
    done.set()
    await counting
    close(many[: len(case.texts)], case.documents)
    close(many[-len(case.texts) :], case.documents)
    close(one, case.queried)
    assert turns > 5


def test_options_of_the_model_and_of_each_call(case: Case) -> None:
    short = ours.FastEmbedRtEmbeddings(model=case.dense, encode_kwargs={"truncate_dim": 8})
    same(short.embed_query(case.query), case.model.encode_query(case.query, truncate_dim=8))
    same(short.embed_documents(case.texts), case.model.encode_document(case.texts, truncate_dim=8))
    mixed = ours.FastEmbedRtEmbeddings(
        model=case.dense, encode_kwargs={"prompt": "a "}, query_encode_kwargs={}, model_kwargs={"threads": 1}
    )
    same(mixed.embed_query(case.query), case.queried)
    same(mixed.embed_documents(case.texts), case.model.encode(case.texts, prompt="a "))
    assert mixed.client.threads == 1


def test_a_model_that_is_open_is_taken_as_it_is(case: Case) -> None:
    embeddings = ours.FastEmbedRtEmbeddings(model=case.model)
    assert embeddings.client is case.model
    same(embeddings.embed_query(case.query), case.queried)
    with pytest.raises(InvalidInputError, match="threads is for a model that is to be opened"):
        ours.FastEmbedRtEmbeddings(model=case.model, model_kwargs={"threads": 1})


def test_wrong_arguments_are_named(case: Case) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        ours.FastEmbedRtEmbeddings(model=case.dense, batch_size=3)
    with pytest.raises(ModelNotFoundError):
        ours.FastEmbedRtEmbeddings(model="/nowhere")
    with pytest.raises(InvalidInputError, match="Reranker"):
        ours.FastEmbedRtEmbeddings(model=case.reranker)
    with pytest.raises(InvalidTypeError, match="int"):
        ours.FastEmbedRtEmbeddings(model=case.dense).embed_documents(["a", 3])
    for made in (ours.FastEmbedRtEmbeddings(model=case.dense), sparse.FastEmbedRtSparseEmbeddings(case.sparse)):
        with pytest.raises(InvalidTypeError, match="one str; pass a list"):
            made.embed_documents("abc")  # not three texts


@pytest.mark.parametrize("wrong", [None, float("nan"), ["a", "b"], b"a"])
async def test_a_question_is_one_text(case: Case, wrong: Any) -> None:
    for made in (ours.FastEmbedRtEmbeddings(model=case.dense), sparse.FastEmbedRtSparseEmbeddings(case.sparse)):
        with pytest.raises(InvalidTypeError, match="expected one str"):  # not a list of vectors for a list
            made.embed_query(wrong)
        with pytest.raises(InvalidTypeError, match="expected one str"):
            await made.aembed_query(wrong)


def test_odd_texts(case: Case, embeddings: Any) -> None:
    for wrong in (None, float("nan"), {"a"}, {"a": 1}, b"a"):
        with pytest.raises(InvalidTypeError, match="inputs are"):
            embeddings.embed_documents(wrong)
        with pytest.raises(InvalidTypeError, match=r"text 1 is|inputs are"):
            embeddings.embed_documents(["a", wrong])
    texts = ["", "a dog " * 200_000]
    same(embeddings.embed_documents(texts), case.model.encode_document(texts))
    same(embeddings.embed_documents(text for text in texts), case.model.encode_document(texts))
    same(embeddings.embed_query(texts[1]), case.model.encode_query(texts[1]))


def test_pickles_and_copies_share_the_engine(case: Case, embeddings: Any, ranker: Any) -> None:
    for again in (pickle.loads(pickle.dumps(embeddings)), copy.deepcopy(embeddings), embeddings.model_copy(deep=True)):
        same(again.embed_query(case.query), case.queried)
        assert again.client._running() is embeddings.client._running()
    pairs = documents(case)
    assert pickle.loads(pickle.dumps(ranker)).compress_documents(pairs, case.query) == ranker.compress_documents(
        pairs, case.query
    )


@pytest.mark.parametrize("kind", ["FastEmbedRtEmbeddings", "FastEmbedRtRerank", "FastEmbedRtCrossEncoder"])
def test_no_hub_token_leaves_with_a_pickle_a_dump_or_a_repr(case: Case, kind: str) -> None:
    place = case.dense if kind == "FastEmbedRtEmbeddings" else case.reranker
    made = getattr(ours, kind)(model=place, model_kwargs={"threads": 1, "token": "a-secret"})
    packed = pickle.dumps(made)
    assert b"a-secret" not in packed
    assert pickle.loads(packed).model_kwargs == {"threads": 1}
    assert "a-secret" not in f"{made!r} {made} {made.model_dump()} {made.model_dump_json(exclude={'model'})}"
    assert "threads" in repr(made)
    for copied in (copy.copy(made), copy.deepcopy(made), made):  # which stay in this process
        assert copied.model_kwargs == {"threads": 1, "token": "a-secret"}
    made.model_kwargs = {"token": "a-secret"}
    assert b"a-secret" not in pickle.dumps(made)
    assert "a-secret" not in f"{made!r} {made.model_dump()}"
    with pytest.raises(ValueError, match="model") as caught:
        getattr(ours, kind)(model_kwargs={"token": "a-secret"})
    assert "a-secret" not in str(caught.value)


def test_a_cache_is_named_by_all_that_decides_its_vectors(case: Case) -> None:
    given: list[dict[str, Any]] = [
        {},
        {"model_kwargs": {"prompts": {"document": "A: "}}},
        {"model_kwargs": {"prompts": {"document": "B: "}}},
        {"model_kwargs": {"prompts": {"document": "A: ", "query": "B: "}}},
        {"model_kwargs": {"max_length": 5}},
        {"encode_kwargs": {"truncate_dim": 8}},
        {"encode_kwargs": {"prompt": "A: "}},
        {"query_encode_kwargs": {"prompt": "A: "}},
    ]
    made = [ours.FastEmbedRtEmbeddings(model=case.dense, **options) for options in given]
    names = [each.fingerprint for each in made]
    assert len(set(names)) == len(given)
    again = ours.FastEmbedRtEmbeddings(model=case.dense, model_kwargs={"threads": 1}, show_progress=True)
    assert again.fingerprint == names[0]
    prompted = ours.FastEmbedRtEmbeddings(model=case.dense, encode_kwargs={"prompt": "passage: "})
    assert prompted.fingerprint == case.model.fingerprint(prompt="passage: ")


async def test_a_vector_store_finds_what_the_model_does(case: Case, embeddings: Any) -> None:
    store = InMemoryVectorStore(embeddings)
    await store.aadd_documents(documents(case))
    best = np.argsort(-(case.documents @ case.queried), kind="stable")[:3].tolist()
    assert [found.metadata["n"] for found in store.similarity_search(case.query, k=3)] == best
    assert [found.metadata["n"] for found in await store.asimilarity_search(case.query, k=3)] == best


async def test_documents_are_compressed_to_the_best(case: Case, ranker: Any) -> None:
    given = documents(case)
    for found in (ranker.compress_documents(given, case.query), await ranker.acompress_documents(given, case.query)):
        assert [document.metadata["n"] for document in found] == case.order[:3]
        assert [document.id for document in found] == [f"d{k}" for k in case.order[:3]]
        same([document.metadata["relevance_score"] for document in found], case.scores[case.order[:3]])
    assert given == documents(case)
    assert list(ranker.compress_documents([], case.query)) == []
    every = ours.FastEmbedRtRerank(model=ranker.client, top_n=None)
    assert [document.metadata["n"] for document in every.compress_documents(given, case.query)] == case.order
    rows = ranker.rerank(case.texts, case.query, top_n=2)
    assert rows == await ranker.arerank(given, case.query, top_n=2)
    assert [row["index"] for row in rows] == case.order[:2]
    with pytest.raises(InvalidTypeError, match="one str; pass a list"):
        ranker.rerank("abc", case.query)  # not three documents
    with pytest.raises(InvalidTypeError, match="text 1 is NoneType"):
        ranker.rerank(["a", None], case.query)
    with pytest.raises(ValueError, match="top_n"):
        ours.FastEmbedRtRerank(model=ranker.client, top_n=0)


def test_scores_of_pairs(case: Case) -> None:
    encoder = ours.FastEmbedRtCrossEncoder(model=case.reranker)
    same(encoder.score([(case.query, text) for text in case.texts]), case.scores)
    scaled = ours.FastEmbedRtCrossEncoder(model=case.reranker, predict_kwargs={"activation": "sigmoid"})
    assert all(0 < score < 1 for score in scaled.score([(case.query, text) for text in case.texts]))


async def test_sparse_vectors_have_their_prompts(case: Case) -> None:
    made = sparse.FastEmbedRtSparseEmbeddings(case.sparse)
    for found in (made.embed_documents(case.texts), await made.aembed_documents(case.texts)):
        for vector, wanted in zip(found, case.weights, strict=True):
            assert vector.indices == wanted.indices.tolist()
            same(vector.values, wanted.values)
    for one in (made.embed_query(case.query), await made.aembed_query(case.query)):
        assert one.indices == case.query_weights.indices.tolist()
        same(one.values, case.query_weights.values)
    few = sparse.FastEmbedRtSparseEmbeddings(case.sparse, encode_kwargs={"max_active_dims": 2})
    assert all(len(vector.indices) <= 2 for vector in few.embed_documents(case.texts))


@pytest.mark.parametrize("mode", [RetrievalMode.DENSE, RetrievalMode.SPARSE, RetrievalMode.HYBRID])
def test_qdrant_retrieves_by_dense_sparse_and_both(case: Case, embeddings: Any, mode: RetrievalMode) -> None:
    store = QdrantVectorStore.from_documents(
        documents(case),
        embedding=embeddings,
        sparse_embedding=sparse.FastEmbedRtSparseEmbeddings(case.sparse),
        location=":memory:",
        collection_name="texts",
        retrieval_mode=mode,
        ids=list(range(len(case.texts))),
    )
    assert isinstance(store.client, QdrantClient)
    found = store.similarity_search_with_score(case.query, k=3)
    dense = case.documents @ case.queried
    words = np.array([vector.to_dense() @ case.query_weights.to_dense() for vector in case.weights])
    scores = {RetrievalMode.DENSE: dense, RetrievalMode.SPARSE: words}.get(mode)
    if scores is None:  # the store's reciprocal ranks, of the three best of each
        ranks = [np.argsort(np.argsort(-each, kind="stable")) for each in (dense, words)]
        scores = sum(np.where(rank < 3, 1.0 / (rank + 2.0), 0.0) for rank in ranks)
        np.testing.assert_allclose([score for _, score in found], np.sort(scores)[::-1][:3], rtol=1e-5)
        np.testing.assert_allclose([scores[document.metadata["n"]] for document, _ in found], np.sort(scores)[::-1][:3])
        return
    order = np.argsort(-scores, kind="stable")[:3]
    assert [document.metadata["n"] for document, _ in found] == order.tolist()
    np.testing.assert_allclose([score for _, score in found], scores[order], rtol=1e-5)


async def test_many_queries_at_once_are_run_together(case: Case, embeddings: Any) -> None:
    start = time.perf_counter()
    found = await asyncio.gather(*(embeddings.aembed_query(case.query) for _ in range(200)))
    close(found, np.tile(case.queried, (200, 1)))
    assert time.perf_counter() - start < 30


def test_nothing_heavy_is_imported() -> None:
    assert fastembed_rt.__version__
    import sys

    assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)


def test_the_page_runs_as_written(case: Case, tmp_path: Path) -> None:
    names = run_page("langchain.md", case, tmp_path)
    assert len(names["best"]) == len(names["found"]) == 1
    text = names["best"][0].page_content
    same(names["best"][0].metadata["relevance_score"], names["ranker"].client.predict(("which dog runs?", text)))
