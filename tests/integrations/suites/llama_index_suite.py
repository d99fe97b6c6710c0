"""LlamaIndex: embeddings of nodes and questions, batches, async, events, serialization, pipelines, a reranker, sparse.

It has no test kit; the calls are those of its own classes, which are given ours.
"""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_index.core.instrumentation as instrument
import numpy as np
import pytest
from conftest import Case, close, run_page, same
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, ModelNotFoundError
from fastembed_rt.integrations.llama_index import FastEmbedRtEmbedding, FastEmbedRtRerank, FastEmbedRtSparseEmbedding


@pytest.fixture(scope="module")
def embedding(case: Case) -> FastEmbedRtEmbedding:
    return FastEmbedRtEmbedding(case.dense)


@pytest.fixture(scope="module")
def ranker(case: Case) -> FastEmbedRtRerank:
    return FastEmbedRtRerank(case.reranker, top_n=3)


class Events(BaseEventHandler):
    seen: list[BaseEvent]

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event)


@pytest.fixture
def events() -> Iterator[list[BaseEvent]]:
    root = instrument.get_dispatcher()
    handler = Events(seen=[])
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts of each call of the model."""
    counts: list[int] = []
    encode = EmbeddingModel.encode

    def counted(self: Any, inputs: Any, **options: Any) -> Any:
        counts.append(1 if isinstance(inputs, str) else len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(EmbeddingModel, "encode", counted)
    return counts


def nodes(case: Case) -> list[NodeWithScore]:
    made = [TextNode(text=text, id_=f"n{k}") for k, text in enumerate(case.texts)]
    return [NodeWithScore(node=node, score=1.0 - k / 100) for k, node in enumerate(made)]


def test_nodes_and_questions_have_their_prompts(case: Case, embedding: FastEmbedRtEmbedding) -> None:
    same(embedding.get_text_embedding_batch(case.texts), case.documents)
    same(embedding.get_query_embedding(case.query), case.queried)
    close(embedding.get_text_embedding(case.texts[0]), case.documents[0])
    same(embedding.get_agg_embedding_from_queries([case.query]), case.queried)
    found = embedding([entry.node for entry in nodes(case)])
    same([node.embedding for node in found], case.documents)


def test_a_thousand_nodes_are_one_call(case: Case, embedding: FastEmbedRtEmbedding, calls: list[int]) -> None:
    texts = [case.texts[k % len(case.texts)] for k in range(1000)]
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=embedding)
    assert calls == [1000]
    stored = index.vector_store.data.embedding_dict
    close(
        [stored[identity] for identity in index.index_struct.nodes_dict.values()], case.documents[np.arange(1000) % 8]
    )
    assert FastEmbedRtEmbedding(case.dense, embed_batch_size=10).embed_batch_size == 10


async def test_async_is_the_models_own(case: Case, embedding: FastEmbedRtEmbedding, ranker: FastEmbedRtRerank) -> None:
    turns, done = 0, asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    many, one, query = await asyncio.gather(
        embedding.aget_text_embedding_batch(case.texts * 250),
        embedding.aget_text_embedding(case.texts[1]),
        embedding.aget_query_embedding(case.query),
    )
    done.set()
    await counting
    close(many[-8:], case.documents)
    close(one, case.documents[1])
    close(query, case.queried)
    assert turns > 5
    found = await ranker.apostprocess_nodes(nodes(case), query_str=case.query)
    assert [entry.node_id for entry in found] == [f"n{k}" for k in case.order[:3]]


def test_events_are_theirs(
    case: Case, embedding: FastEmbedRtEmbedding, ranker: FastEmbedRtRerank, events: list[BaseEvent]
) -> None:
    embedding.get_query_embedding(case.query)
    embedding.get_text_embedding_batch(case.texts)
    ranker.postprocess_nodes(nodes(case), query_str=case.query)
    FastEmbedRtSparseEmbedding(case.sparse).get_text_embedding_batch(case.texts)
    counted = Counter(event.class_name() for event in events)
    assert counted == {
        "EmbeddingStartEvent": 2,
        "EmbeddingEndEvent": 2,
        "ReRankStartEvent": 1,
        "ReRankEndEvent": 1,
        "SparseEmbeddingStartEvent": 1,
        "SparseEmbeddingEndEvent": 1,
    }
    first = next(event for event in events if event.class_name() == "EmbeddingStartEvent")
    assert first.model_dict == {
        "class_name": "FastEmbedRtEmbedding",
        "model_name": case.dense,
        "embed_batch_size": 2048,
    }
    start, end = (
        next(event for event in events if event.class_name() == f"ReRank{when}Event") for when in ("Start", "End")
    )
    assert (start.model_name, start.top_n, len(start.nodes), len(end.nodes)) == (case.reranker, 3, 8, 3)


def test_callbacks_are_told(case: Case) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([debug])
    FastEmbedRtEmbedding(case.dense, callback_manager=manager).get_text_embedding_batch(case.texts)
    FastEmbedRtRerank(case.reranker, callback_manager=manager).postprocess_nodes(nodes(case), query_str=case.query)
    assert len(debug.get_event_pairs(CBEventType.EMBEDDING)) == 1
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


@pytest.mark.parametrize("way", ["dict", "json"])
def test_what_is_written_opens_again(case: Case, way: str) -> None:
    options = {"model_kwargs": {"threads": 1, "truncate_dim": 8, "token": "secret"}, "embed_batch_size": 100}
    embedding = FastEmbedRtEmbedding(case.dense, encode_kwargs={"normalize": True}, **options)
    written = embedding.to_dict() if way == "dict" else json.loads(embedding.to_json())
    assert "secret" not in json.dumps(written)
    assert written["class_name"] == "FastEmbedRtEmbedding"
    again = FastEmbedRtEmbedding.from_dict(written)
    assert again.client.threads == 1
    same(again.get_query_embedding(case.query), case.model.encode_query(case.query, truncate_dim=8))
    assert again.to_dict() == written
    ranker = FastEmbedRtRerank(case.reranker, top_n=1, keep_retrieval_score=True, rank_kwargs={"activation": "sigmoid"})
    other = FastEmbedRtRerank.from_dict(json.loads(ranker.to_json()))
    assert other.to_dict() == ranker.to_dict()
    assert other.postprocess_nodes(nodes(case), query_str=case.query)[0].node_id == f"n{case.order[0]}"
    sparse = FastEmbedRtSparseEmbedding(case.sparse, model_kwargs={"threads": 1, "token": "secret"})
    told = sparse.model_dump()
    assert told.pop("class_name") == "FastEmbedRtSparseEmbedding"
    assert told["model_kwargs"] == {"threads": 1}
    assert FastEmbedRtSparseEmbedding(**told).model_dump() == sparse.model_dump()


def test_pickles_and_copies_share_the_engine(case: Case, embedding: FastEmbedRtEmbedding) -> None:
    for again in (pickle.loads(pickle.dumps(embedding)), copy.deepcopy(embedding)):
        same(again.get_query_embedding(case.query), case.queried)
        assert again.client._running() is embedding.client._running()
        assert again.embed_batch_size == embedding.embed_batch_size


@pytest.mark.parametrize("kind", [FastEmbedRtEmbedding, FastEmbedRtSparseEmbedding, FastEmbedRtRerank])
def test_no_hub_token_leaves_with_a_pickle_or_a_repr(case: Case, kind: Any) -> None:
    places = {FastEmbedRtEmbedding: case.dense, FastEmbedRtSparseEmbedding: case.sparse}
    made = kind(places.get(kind, case.reranker), model_kwargs={"threads": 1, "token": "a-secret"})
    packed = pickle.dumps(made)
    assert b"a-secret" not in packed
    assert pickle.loads(packed).model_kwargs == {"threads": 1}
    assert "a-secret" not in f"{made!r} {made}"
    assert copy.deepcopy(made).model_kwargs["token"] == "a-secret"  # which stays in this process
    field = "top_n" if kind is FastEmbedRtRerank else "embed_batch_size"
    with pytest.raises(ValueError, match=field) as caught:
        kind(case.dense, model_kwargs={"token": "a-secret"}, **{field: "x"})
    assert "a-secret" not in str(caught.value)


def test_a_pipeline_and_its_cache(case: Case, embedding: FastEmbedRtEmbedding, calls: list[int]) -> None:
    cache = IngestionCache()
    documents = [Document(text=text, id_=f"d{k}") for k, text in enumerate(case.texts)]
    for _ in range(2):
        made = IngestionPipeline(transformations=[embedding], cache=cache, disable_cache=False).run(documents=documents)
        same([node.embedding for node in made], case.documents)
    assert calls == [8]


def test_a_pipeline_in_processes(case: Case, embedding: FastEmbedRtEmbedding) -> None:
    documents = [Document(text=text, id_=f"d{k}") for k, text in enumerate(case.texts)]
    made = IngestionPipeline(transformations=[embedding]).run(documents=documents, num_workers=2)
    close([node.embedding for node in made], case.documents)


def test_vectors_are_kept_where_a_store_is_given(case: Case, calls: list[int]) -> None:
    embedding = FastEmbedRtEmbedding(case.dense, embeddings_cache=SimpleKVStore())
    for _ in range(2):
        same(embedding.get_text_embedding_batch(case.texts), case.documents)
    assert calls == [8]


async def test_an_index_retrieves_what_the_model_does(
    case: Case, embedding: FastEmbedRtEmbedding, ranker: FastEmbedRtRerank
) -> None:
    Settings.embed_model = embedding
    index = VectorStoreIndex([entry.node for entry in nodes(case)])
    best = np.argsort(-(case.documents @ case.queried), kind="stable")[:4].tolist()
    retriever = index.as_retriever(similarity_top_k=4)
    for found in (retriever.retrieve(case.query), await retriever.aretrieve(case.query)):
        assert [entry.node_id for entry in found] == [f"n{k}" for k in best]
    ranked = ranker.postprocess_nodes(found, QueryBundle(case.query))
    assert [entry.node_id for entry in ranked] == [f"n{k}" for k in case.order if k in best][:3]


def test_nodes_are_ranked_and_left_as_they_were(case: Case, ranker: FastEmbedRtRerank) -> None:
    given = nodes(case)
    found = ranker.postprocess_nodes(given, query_str=case.query)
    same([entry.score for entry in found], case.scores[case.order[:3]])
    assert given == nodes(case)
    assert ranker.postprocess_nodes([], query_str=case.query) == []
    keeping = FastEmbedRtRerank(case.reranker, top_n=8, keep_retrieval_score=True)
    for _ in range(2):  # the kept score is no part of the text that is read the second time
        given = keeping.postprocess_nodes(given, query_str=case.query)
        same([entry.score for entry in given], case.scores[case.order])
    assert [entry.node.metadata["retrieval_score"] for entry in given] == [entry.score for entry in given]
    with pytest.raises(InvalidInputError, match="needs the query"):
        ranker.postprocess_nodes(nodes(case))


def test_a_reranker_reads_the_metadata_meant_for_embedding(case: Case, ranker: FastEmbedRtRerank) -> None:
    node = TextNode(text="a dog", metadata={"from": "the old house", "n": 3}, excluded_embed_metadata_keys=["n"])
    (found,) = ranker.postprocess_nodes([NodeWithScore(node=node)], query_str=case.query)
    same(found.score, ranker.client.predict((case.query, "from: the old house\n\na dog")))


async def test_sparse_vectors_have_their_prompts(case: Case) -> None:
    sparse = FastEmbedRtSparseEmbedding(case.sparse)
    wanted = [vector.as_dict() for vector in case.weights]
    assert sparse.get_text_embedding_batch(case.texts) == wanted
    assert await sparse.aget_text_embedding_batch(case.texts) == wanted
    assert sparse.get_text_embedding(case.texts[0]) == await sparse.aget_text_embedding(case.texts[0]) == wanted[0]
    assert sparse.get_query_embedding(case.query) == case.query_weights.as_dict()
    assert await sparse.aget_query_embedding(case.query) == case.query_weights.as_dict()


@pytest.mark.parametrize("wrong", [None, float("nan"), ["a", "b"]])
async def test_a_question_is_one_text(case: Case, embedding: FastEmbedRtEmbedding, wrong: Any) -> None:
    for made in (embedding, FastEmbedRtSparseEmbedding(case.sparse)):
        with pytest.raises(TypeError, match="expected one str"):  # not a list of vectors for a list
            made.get_query_embedding(wrong)
        with pytest.raises(TypeError, match="expected one str"):
            await made.aget_query_embedding(wrong)
        with pytest.raises(TypeError, match="text 1 is"):
            made.get_text_embedding_batch(["a", wrong])


def test_empty_and_very_long_texts(case: Case, embedding: FastEmbedRtEmbedding) -> None:
    texts = ["", "a dog " * 200_000]
    same(embedding.get_text_embedding_batch(texts), case.model.encode_document(texts))
    same(embedding.get_query_embedding(texts[1]), case.model.encode_query(texts[1]))


def test_wrong_arguments_are_named(case: Case) -> None:
    with pytest.raises(ModelNotFoundError):
        FastEmbedRtEmbedding("/nowhere")
    with pytest.raises(InvalidInputError, match="Reranker"):
        FastEmbedRtEmbedding(case.reranker)
    with pytest.raises(ValueError, match="2048"):
        FastEmbedRtEmbedding(case.dense, embed_batch_size=5000)
    for made in (FastEmbedRtEmbedding, FastEmbedRtSparseEmbedding, FastEmbedRtRerank):
        with pytest.raises(InvalidInputError, match="has no precision; options of the model go into model_kwargs"):
            made(case.dense, precision="int8")
    for made in (FastEmbedRtEmbedding, FastEmbedRtRerank):
        with pytest.raises(TypeError, match="model is EmbeddingModel, expected a name"):
            made(case.model)  # type: ignore[arg-type]
    assert FastEmbedRtEmbedding(Path(case.dense)).model_name == case.dense
    with pytest.raises(TypeError, match="treads"):
        FastEmbedRtEmbedding(case.dense, model_kwargs={"treads": 1})


def test_the_page_runs_as_written(case: Case, tmp_path: Path) -> None:
    names = run_page("llama-index.md", case, tmp_path)
    assert len(names["found"]) == 2 and names["best"][0].text in ("a dog runs", "the house is red")
