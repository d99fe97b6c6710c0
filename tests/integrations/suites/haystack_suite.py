"""Haystack: components as they are documented, in pipelines, through YAML, asynchronously, and in a fresh process."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.serialization import component_from_dict, component_to_dict
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.fastembed_rt import (
    FastEmbedRtDocumentEmbedder,
    FastEmbedRtSparseDocumentEmbedder,
    FastEmbedRtSparseTextEmbedder,
    FastEmbedRtTextEmbedder,
)
from haystack_integrations.components.rankers.fastembed_rt import FastEmbedRtLateInteractionRanker, FastEmbedRtRanker
from stores_case import StoresCase as Case
from stores_case import case, run_page, same

from fastembed_rt.integrations.opening import shared_model

OPTIONS: dict[str, Any] = {"model_kwargs": {"threads": 1}}


def documents(case: Case) -> list[Document]:
    return [Document(content=text, meta={"number": k}) for k, text in enumerate(case.texts)]


def of_case(case: Case) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A component of each kind, and what it runs on."""
    dense, sparse = {"model": case.dense, **OPTIONS}, {"model": case.sparse, **OPTIONS}
    quiet = {"progress_bar": False}
    ranked = {"query": case.query, "documents": documents(case)}
    return {
        "text": (FastEmbedRtTextEmbedder(**dense), {"text": case.query}),
        "documents": (FastEmbedRtDocumentEmbedder(**dense, **quiet), {"documents": documents(case)}),
        "sparse text": (FastEmbedRtSparseTextEmbedder(**sparse), {"text": case.query}),
        "sparse documents": (FastEmbedRtSparseDocumentEmbedder(**sparse, **quiet), {"documents": documents(case)}),
        "ranker": (FastEmbedRtRanker(model=case.reranker, **OPTIONS), ranked),
        "late": (FastEmbedRtLateInteractionRanker(model=case.late, **OPTIONS), ranked),
    }


def check(kind: str, gave: dict[str, Any], case: Case) -> None:
    """What a component gave is what the model gives."""
    if kind == "text":
        same(gave["embedding"], case.queried)
        assert isinstance(gave["embedding"], list)
        assert isinstance(gave["embedding"][0], float)
    elif kind == "documents":
        same([document.embedding for document in gave["documents"]], case.documents)
        assert [document.content for document in gave["documents"]] == case.texts
    elif kind == "sparse text":
        assert gave["sparse_embedding"].indices == case.query_weights.indices.tolist()
        same(gave["sparse_embedding"].values, case.query_weights.values)
    elif kind == "sparse documents":
        for document, vector in zip(gave["documents"], case.weights, strict=True):
            assert document.sparse_embedding.indices == vector.indices.tolist()
            same(document.sparse_embedding.values, vector.values)
    else:
        scores = case.scores if kind == "ranker" else case.late_scores
        order = np.argsort(-scores, kind="stable")
        assert [document.content for document in gave["documents"]] == [case.texts[k] for k in order]
        np.testing.assert_allclose([d.score for d in gave["documents"]], scores[order], rtol=0, atol=1e-6)


KINDS = ["text", "documents", "sparse text", "sparse documents", "ranker", "late"]


def test_the_distribution_is_the_one_that_was_built() -> None:
    import haystack_integrations.components.embedders.fastembed_rt as module

    found = distribution("fastembed-rt-haystack")
    assert Path(str(found.locate_file(""))) in Path(module.__file__).parents
    assert {str(file) for file in found.files or ()} >= {
        "haystack_integrations/common/fastembed_rt/__init__.py",
        "haystack_integrations/components/embedders/fastembed_rt/__init__.py",
        "haystack_integrations/components/rankers/fastembed_rt/__init__.py",
    }
    assert not any(str(file) == "haystack_integrations/__init__.py" for file in found.files or ())  # a namespace


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_gives_the_models_vectors(kind: str, case: Case) -> None:
    made, given = of_case(case)[kind]
    assert made._model is None  # nothing is loaded before
    made.warm_up()
    opened = made._model
    assert opened is not None
    made.warm_up()
    assert made._model is opened
    check(kind, made.run(**given), case)
    check(kind, asyncio.run(made.run_async(**given)), case)
    made.close()
    assert made._model is None
    check(kind, made.run(**given), case)  # and opens it again


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_not_open_opens_beside_the_event_loop(
    kind: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, given = of_case(case)[kind]
    threads = []

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return shared_model(*arguments)

    monkeypatch.setattr("haystack_integrations.common.fastembed_rt.components.shared_model", noted)
    for _ in range(2):
        check(kind, asyncio.run(made.run_async(**given)), case)
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_survives_to_dict_and_yaml(kind: str, case: Case) -> None:
    made, given = of_case(case)[kind]
    data = component_to_dict(made, kind)
    package = "rankers" if kind in ("ranker", "late") else "embedders"
    assert data["type"].startswith(f"haystack_integrations.components.{package}.fastembed_rt.")
    again = component_from_dict(type(made), data, kind)
    assert component_to_dict(again, kind) == data
    check(kind, again.run(**given), case)
    pipeline = Pipeline()
    pipeline.add_component("it", made)
    read = Pipeline.loads(pipeline.dumps())  # without allowed_modules=
    assert read.to_dict() == pipeline.to_dict()
    check(kind, read.run({"it": given})["it"], case)


def test_arguments_are_kept_by_name(case: Case) -> None:
    given: dict[str, Any] = {
        "model": case.dense,
        "prefix": "a ",
        "suffix": " b",
        "meta_fields_to_embed": ["number"],
        "embedding_separator": " | ",
        "model_kwargs": {"threads": 1},
        "encode_kwargs": {"truncate_dim": 5},
        "progress_bar": False,
    }
    assert FastEmbedRtDocumentEmbedder(**given).to_dict()["init_parameters"] == given
    ranked: dict[str, Any] = {
        "model": case.reranker,
        "top_k": 3,
        "query_prefix": "q",
        "document_prefix": "d",
        "meta_fields_to_embed": ["number"],
        "embedding_separator": " | ",
        "score_threshold": 0.5,
        "model_kwargs": {},
    }
    assert FastEmbedRtRanker(**ranked).to_dict()["init_parameters"] == ranked
    private = FastEmbedRtRanker(case.reranker, model_kwargs={"threads": 1, "token": "secret"})
    assert private.to_dict()["init_parameters"]["model_kwargs"] == {"threads": 1}
    for component in (private, FastEmbedRtDocumentEmbedder(case.dense, model_kwargs={"token": "secret"})):
        assert component.model_kwargs["token"] == "secret"
        assert b"secret" not in pickle.dumps(component)
        assert "secret" not in f"{component!r} {vars(component)}"
    for kind in (FastEmbedRtDocumentEmbedder, FastEmbedRtRanker):
        assert kind(Path(case.dense)).to_dict()["init_parameters"]["model"] == case.dense  # YAML has no paths
        with pytest.raises(TypeError, match="model is EmbeddingModel, expected a name"):
            kind(case.model)  # type: ignore[arg-type]


def test_texts_are_made_as_haystack_makes_them(case: Case) -> None:
    document = Document(content="a dog", meta={"title": "house", "none": None, "number": 1})
    embedder = FastEmbedRtDocumentEmbedder(
        model=case.dense,
        prefix="<",
        suffix=">",
        meta_fields_to_embed=["title", "none", "number", "missing"],
        embedding_separator=" - ",
        progress_bar=False,
        encode_kwargs={"truncate_dim": 6},
    )
    (found,) = embedder.run([document])["documents"]
    same(found.embedding, case.model.encode_document("<house - 1 - a dog>", truncate_dim=6))
    assert document.embedding is None  # the one that was given stays as it was
    assert (found.id, found.meta) == (document.id, document.meta)
    embedder = FastEmbedRtDocumentEmbedder(model=case.dense, progress_bar=False)
    assert embedder.run([])["documents"] == []
    same(embedder.run([Document(content=None)])["documents"][0].embedding, case.model.encode_document(""))
    prompted = FastEmbedRtTextEmbedder(model=case.dense, encode_kwargs={"prompt": "other : "})
    same(prompted.run(case.query)["embedding"], case.model.encode(case.query, prompt="other : "))


def test_what_is_no_text_is_refused(case: Case) -> None:
    with pytest.raises(TypeError, match="FastEmbedRtTextEmbedder expects a str"):
        FastEmbedRtTextEmbedder(model=case.dense).run([Document(content="a")])  # type: ignore[arg-type]
    for wrong in (None, "a", ["a"]):
        with pytest.raises(TypeError, match="FastEmbedRtDocumentEmbedder expects a list of Document"):
            FastEmbedRtDocumentEmbedder(model=case.dense).run(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="FastEmbedRtRanker expects a list of Document"):
            FastEmbedRtRanker(model=case.reranker).run(case.query, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="FastEmbedRtRanker expects a str as its query, not NoneType"):
        FastEmbedRtRanker(model=case.reranker).run(None, documents(case))  # type: ignore[arg-type]
    for top_k in (0, -1):
        with pytest.raises(ValueError, match=f"top_k is {top_k}, expected 1 or more"):
            FastEmbedRtRanker(model=case.reranker, top_k=top_k)
        with pytest.raises(ValueError, match=f"top_k is {top_k}, expected 1 or more"):
            FastEmbedRtRanker(model=case.reranker).run(case.query, documents(case), top_k=top_k)


def test_a_ranker_keeps_the_best_once(case: Case) -> None:
    ranker = FastEmbedRtRanker(model=case.reranker, top_k=3)
    given = documents(case)
    best = [case.texts[k] for k in case.order]
    assert [document.content for document in ranker.run(case.query, given)["documents"]] == best[:3]
    assert [document.content for document in ranker.run(case.query, given, top_k=2)["documents"]] == best[:2]
    assert len(ranker.run(case.query, given * 2, top_k=100)["documents"]) == len(given)
    assert ranker.run(case.query, [])["documents"] == []
    least = float(sorted(case.scores)[-2]) - 1e-4
    assert len(ranker.run(case.query, given, score_threshold=least)["documents"]) == 2
    with_meta = FastEmbedRtRanker(
        model=case.reranker, query_prefix="a ", document_prefix="the ", meta_fields_to_embed=["number"]
    )
    (found,) = with_meta.run(case.query, given[:1])["documents"]
    from fastembed_rt import Reranker

    with Reranker(case.reranker) as model:
        wanted = model.predict((f"a {case.query}", f"the 0\n{case.texts[0]}"))
    assert found.score == pytest.approx(float(wanted), abs=1e-6)


def test_components_with_the_same_options_share_a_model(case: Case) -> None:
    first, second = FastEmbedRtTextEmbedder(model=case.dense), FastEmbedRtDocumentEmbedder(model=case.dense)
    other = FastEmbedRtTextEmbedder(model=case.dense, model_kwargs={"threads": 1})
    for component in (first, second, other):
        component.warm_up()
    assert first._model is second._model
    assert first._model is not other._model


def pipelines(case: Case) -> tuple[Pipeline, Pipeline, InMemoryDocumentStore]:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component("embedder", FastEmbedRtDocumentEmbedder(model=case.dense, progress_bar=False))
    indexing.add_component("writer", DocumentWriter(document_store=store))
    indexing.connect("embedder", "writer")
    query = Pipeline()
    query.add_component("embedder", FastEmbedRtTextEmbedder(model=case.dense))
    query.add_component("retriever", InMemoryEmbeddingRetriever(document_store=store, top_k=5))
    query.add_component("ranker", FastEmbedRtRanker(model=case.reranker, top_k=2))
    query.connect("embedder.embedding", "retriever.query_embedding")
    query.connect("retriever", "ranker")
    return indexing, query, store


def test_from_documents_to_ranked_answers_and_the_same_asynchronously(case: Case) -> None:
    indexing, query, store = pipelines(case)
    indexing.run({"embedder": {"documents": documents(case)}})
    same([document.embedding for document in store.filter_documents()], case.documents)
    nearest = np.argsort(-(case.documents @ case.queried), kind="stable")[:5]
    wanted = [case.texts[k] for k in sorted(nearest, key=lambda k: -case.scores[k])[:2]]
    asked = {"embedder": {"text": case.query}, "ranker": {"query": case.query}}
    assert [document.content for document in query.run(asked)["ranker"]["documents"]] == wanted
    found = asyncio.run(query.run_async(asked))
    assert [document.content for document in found["ranker"]["documents"]] == wanted


def test_many_calls_that_wait_together_leave_the_loop_free(case: Case) -> None:
    embedder = FastEmbedRtTextEmbedder(model=case.dense)

    async def all_at_once() -> tuple[list[Any], int]:
        ticks, done = 0, asyncio.Event()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        found = await asyncio.gather(*(embedder.run_async(text) for text in case.texts * 20))
        done.set()
        await ticking
        return found, ticks

    found, ticks = asyncio.run(all_at_once())
    same([one["embedding"] for one in found], np.concatenate([case.model.encode_query(case.texts)] * 20))
    assert ticks > 3


def test_a_saved_pipeline_runs_in_a_fresh_process(case: Case, tmp_path: Path) -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", FastEmbedRtTextEmbedder(model=case.dense))
    (tmp_path / "query.yaml").write_text(pipeline.dumps(), encoding="utf-8")
    code = (
        "import sys, numpy; from pathlib import Path; from haystack import Pipeline\n"
        "found = Pipeline.loads(Path(sys.argv[1]).read_text()).run({'embedder': {'text': sys.argv[2]}})\n"
        "numpy.save(sys.argv[3], numpy.array(found['embedder']['embedding'], numpy.float32))"
    )
    words = [str(tmp_path / "query.yaml"), case.query, str(tmp_path / "out.npy")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    same(np.load(tmp_path / "out.npy"), case.queried)


def test_the_page_runs(case: Case, tmp_path: Path) -> None:
    found = run_page("haystack.md", case, tmp_path)["found"]
    scores = case.model.encode_document(["a dog runs", "the house is red"]) @ case.model.encode_query("which dog runs?")
    np.testing.assert_allclose([one.score for one in found], sorted(scores, reverse=True), rtol=0, atol=1e-5)
