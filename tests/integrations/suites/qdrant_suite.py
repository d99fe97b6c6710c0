"""Qdrant: `models.Document` inference in local mode: dense, sparse, hybrid, late interaction behind dense."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from stores_case import StoresCase as Case
from stores_case import case, run_page, same

from fastembed_rt.integrations.qdrant import TextEmbedding, distance, register

DENSE, SPARSE, LATE = "my-model", "my-splade", "my-colbert"
OPEN_AGAIN = """
import json, sys
from fastembed_rt.integrations.qdrant import register
register({"my-model": sys.argv[2]})
from qdrant_client import QdrantClient, models
client = QdrantClient(path=sys.argv[1])
asked = models.Document(text=sys.argv[3], model="my-model")
found = client.query_points("texts", query=asked, using="dense", limit=3).points
print(json.dumps([point.payload["text"] for point in found]))
client.close()
"""


@pytest.fixture(autouse=True)
def registered(case: Case) -> None:
    register({DENSE: case.dense, SPARSE: case.sparse, LATE: case.late})


def config(client: QdrantClient, case: Case) -> dict[str, Any]:
    late = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return {
        "vectors_config": {
            "dense": models.VectorParams(size=client.get_embedding_size(DENSE), distance=distance(case.dense)),
            "late": models.VectorParams(
                size=client.get_embedding_size(LATE), distance=models.Distance.DOT, multivector_config=late
            ),
        },
        "sparse_vectors_config": {"words": models.SparseVectorParams()},
    }


def points(texts: list[str]) -> list[models.PointStruct]:
    names = {"dense": DENSE, "words": SPARSE, "late": LATE}
    return [
        models.PointStruct(
            id=k,
            vector={using: models.Document(text=text, model=name) for using, name in names.items()},
            payload={"text": text},
        )
        for k, text in enumerate(texts)
    ]


def filled(case: Case, client: QdrantClient) -> QdrantClient:
    client.create_collection("texts", **config(client, case))
    client.upsert("texts", points(case.texts))
    return client


def ask(client: QdrantClient, case: Case, name: str, using: str, **options: Any) -> list[Any]:
    query = models.Document(text=case.query, model=name)
    return client.query_points("texts", query=query, using=using, limit=len(case.texts), **options).points


def test_points_hold_the_models_vectors(case: Case) -> None:
    client = filled(case, QdrantClient(":memory:"))
    rows = client.retrieve("texts", list(range(len(case.texts))), with_vectors=True)
    assert distance(case.dense) == models.Distance.COSINE
    for row, dense, words, late in zip(rows, case.documents, case.weights, case.late_documents, strict=True):
        np.testing.assert_allclose(row.vector["dense"], dense, rtol=0, atol=1e-6)  # Qdrant normalizes once more
        assert row.vector["words"].indices == words.indices.tolist()
        same(row.vector["words"].values, words.values)
        same(row.vector["late"], late)


def test_points_are_sent_to_a_server_to_the_bit(case: Case) -> None:
    """What qdrant-client makes of documents before it stores or sends them."""
    client = QdrantClient(":memory:")
    (made,) = client._embed_models(points(case.texts[:1]), is_query=False)
    same(made.vector["dense"], case.documents[0])
    (query,) = client._embed_models(models.Document(text=case.query, model=DENSE), is_query=True)
    same(query, case.queried)


def test_texts_that_are_none_empty_or_very_long(case: Case) -> None:
    for wrong in (None, float("nan")):
        with pytest.raises(ValueError, match="valid string"):  # pydantic's
            models.Document(text=wrong, model=DENSE)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"text 1 is (NoneType|float), expected str"):
            list(TextEmbedding(DENSE).embed(["a", wrong]))  # type: ignore[list-item]
    client = QdrantClient(":memory:")
    for text in ("", "a dog " * 200_000):
        (made,) = client._embed_models(models.Document(text=text, model=DENSE), is_query=False)
        same(made, case.model.encode_document(text))
        (made,) = client._embed_models(models.Document(text=text, model=DENSE), is_query=True)
        same(made, case.model.encode_query(text))


@pytest.mark.parametrize("kind", ["dense", "words", "late"])
def test_the_nearest_are_the_models(case: Case, kind: str) -> None:
    client = filled(case, QdrantClient(":memory:"))
    scores = {
        "dense": case.documents @ case.queried,
        "words": np.array([float(one.to_dense() @ case.query_weights.to_dense()) for one in case.weights]),
        "late": case.late_scores,
    }[kind]
    found = ask(client, case, {"dense": DENSE, "words": SPARSE, "late": LATE}[kind], kind)
    found = [point for point in found if point.score != 0]
    order = [k for k in np.argsort(-scores, kind="stable").tolist() if scores[k] != 0]
    np.testing.assert_allclose([point.score for point in found], scores[order], rtol=1e-5, atol=1e-5)
    assert [point.id for point in found] == order


def test_late_interaction_ranks_again_what_dense_found(case: Case) -> None:
    client = filled(case, QdrantClient(":memory:"))
    first = models.Prefetch(query=models.Document(text=case.query, model=DENSE), using="dense", limit=4)
    found = ask(client, case, LATE, "late", prefetch=first)
    nearest = np.argsort(-(case.documents @ case.queried), kind="stable")[:4]
    assert [point.id for point in found] == sorted(nearest.tolist(), key=lambda k: -case.late_scores[k])


def test_hybrid_search_fuses_dense_and_sparse(case: Case) -> None:
    client = filled(case, QdrantClient(":memory:"))
    prefetch = [
        models.Prefetch(query=models.Document(text=case.query, model=name), using=using, limit=5)
        for name, using in ((DENSE, "dense"), (SPARSE, "words"))
    ]
    found = client.query_points("texts", prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion.RRF)).points
    dense = [point.id for point in ask(client, case, DENSE, "dense")[:5]]
    words = [point.id for point in ask(client, case, SPARSE, "words")[:5]]
    assert {point.id for point in found} == {*dense, *words}


def test_a_cross_encoder_ranks_again_what_was_found(case: Case) -> None:
    from fastembed_rt.compat.fastembed import TextCrossEncoder

    client = filled(case, QdrantClient(":memory:"))
    texts = [point.payload["text"] for point in ask(client, case, DENSE, "dense")]
    scores = list(TextCrossEncoder(case.reranker).rerank(case.query, texts))
    best = texts[int(np.argmax(scores))]
    assert best == case.texts[case.order[0]]


def test_options_of_a_document_are_the_models(case: Case) -> None:
    client = QdrantClient(":memory:")
    asked = models.Document(text=case.texts[0], model=DENSE, options={"threads": 1, "prompts": {"document": "x : "}})
    (made,) = client._embed_models(asked, is_query=False)
    same(made, case.model.encode(case.texts[0], prompt="x : "))


def test_a_thousand_points(case: Case) -> None:
    client = QdrantClient(":memory:")
    size = client.get_embedding_size(DENSE)
    client.create_collection("many", vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT))
    texts = [f"{text} {k}" for k in range(125) for text in case.texts]
    client.upload_collection(
        "many", vectors=[models.Document(text=text, model=DENSE) for text in texts], ids=range(1000)
    )
    rows = client.retrieve("many", list(range(1000)), with_vectors=True)
    same([row.vector for row in rows], case.model.encode_document(texts))


def test_asynchronous_clients_embed_too(case: Case) -> None:
    async def run() -> list[Any]:
        client = AsyncQdrantClient(":memory:")
        await client.create_collection("texts", **config(QdrantClient(":memory:"), case))
        await client.upsert("texts", points(case.texts))
        query = models.Document(text=case.query, model=DENSE)
        return (await client.query_points("texts", query=query, using="dense", limit=2)).points

    order = np.argsort(-(case.documents @ case.queried), kind="stable")[:2]
    assert [point.id for point in asyncio.run(run())] == order.tolist()


def test_a_stored_collection_opens_in_a_fresh_process(case: Case, tmp_path: Path) -> None:
    filled(case, QdrantClient(path=str(tmp_path))).close()
    words = [sys.executable, "-c", OPEN_AGAIN, str(tmp_path), case.dense, case.query]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    order = np.argsort(-(case.documents @ case.queried), kind="stable")[:3]
    assert json.loads(done.stdout.splitlines()[-1]) == [case.texts[k] for k in order]


def test_what_cannot_be_registered_is_said(case: Case) -> None:
    register({DENSE: case.dense})  # again, the same
    with pytest.raises(ValueError, match=r"my-model is registered for .*dense-onnx; choose another name"):
        register({DENSE.upper(): case.late})
    with pytest.raises(ValueError, match="a model for reranking gives no vectors"):
        register({"judge": case.reranker})
    with pytest.raises(TypeError, match="names are str, expected directories by name"):
        register(case.dense)  # type: ignore[arg-type]
    client = QdrantClient(":memory:")
    client.create_collection("x", vectors_config=models.VectorParams(size=24, distance=models.Distance.COSINE))
    with pytest.raises(ValueError, match="nobody"):
        client.upsert("x", [models.PointStruct(id=1, vector=models.Document(text="a", model="nobody"))])
    assert [one["model"] for one in TextEmbedding.list_supported_models()] == [DENSE]


def test_the_page_runs(case: Case, tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from stores_case import StoresCase, run_page\n"
        "(Path(sys.argv[3]) / 'english.txt').write_text('the\\n')\n"
        "here = lambda code: code.replace('BM25(language', 'BM25(\".\", language')\n"
        "names = run_page('qdrant.md', StoresCase(Path(sys.argv[2])), Path(sys.argv[3]), here)\n"
        "print(len(names['found']))"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent), str(Path(case.dense).parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # names are registered once a process
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2"
