"""Elasticsearch, OpenSearch and Weaviate: their real clients against a stand-in, since their servers do not run here.

What is sent is looked at: mappings, vectors to float32's digits, the query's vector with the query prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stand_in import standing_in
from stores_case import StoresCase as Case
from stores_case import case, run_page, same
from weaviate_stand_in import Weaviate, weaviate_server

from fastembed_rt import EmbeddingModel, SparseModel


def as_a_search_engine(method: str, path: str, body: Any) -> Any:
    if path == "/":
        return {"version": {"number": "9.5.1", "distribution": "opensearch"}, "tagline": "You Know, for Search"}
    if path == "/_bulk":
        return {"errors": False, "items": [{"index": {"status": 201, "_id": "x"}} for _ in body[::2]]}
    if path.endswith("/_search"):
        return {"hits": {"hits": [], "total": {"value": 0}}, "took": 1, "timed_out": False}
    return {"acknowledged": True}


def test_elasticsearch_is_sent_the_models_vectors(case: Case) -> None:
    from elasticsearch import Elasticsearch, helpers

    model, texts, question = EmbeddingModel(case.dense), case.texts, case.query
    with standing_in(as_a_search_engine) as (port, sent), Elasticsearch(f"http://127.0.0.1:{port}") as client:
        field = {"type": "dense_vector", "dims": model.dim, "index": True, "similarity": "cosine"}
        client.indices.create(index="texts", mappings={"properties": {"text": {"type": "text"}, "vector": field}})
        vectors = model.encode_document(texts).tolist()
        rows = ({"_index": "texts", "text": t, "vector": v} for t, v in zip(texts, vectors, strict=True))
        assert helpers.bulk(client, rows) == (len(texts), [])
        query = {"field": "vector", "query_vector": model.encode_query(question).tolist(), "k": 5, "num_candidates": 50}
        client.search(index="texts", knn=query)
    (created,) = [body for method, path, body in sent if (method, path) == ("PUT", "/texts")]
    assert created["mappings"]["properties"]["vector"]["dims"] == model.dim
    (lines,) = [body for _, path, body in sent if path == "/_bulk"]
    assert [row["text"] for row in lines[1::2]] == case.texts
    same([row["vector"] for row in lines[1::2]], case.documents)
    (asked,) = [body for _, path, body in sent if path == "/texts/_search"]
    same(asked["knn"]["query_vector"], case.queried)


def test_elasticsearch_is_sent_weights_of_words_by_token_id(case: Case) -> None:
    from elasticsearch import Elasticsearch, helpers

    model, texts = SparseModel(case.sparse), case.texts
    with standing_in(as_a_search_engine) as (port, sent), Elasticsearch(f"http://127.0.0.1:{port}") as client:
        client.indices.create(index="words", mappings={"properties": {"words": {"type": "sparse_vector"}}})
        vectors = [{str(k): w for k, w in one.as_dict().items()} for one in model.encode_document(texts)]
        helpers.bulk(client, [{"_index": "words", "text": t, "words": v} for t, v in zip(texts, vectors, strict=True)])
        asked = {str(k): w for k, w in model.encode_query(case.query).as_dict().items()}
        client.search(index="words", query={"sparse_vector": {"field": "words", "query_vector": asked}})
    (lines,) = [body for _, path, body in sent if path == "/_bulk"]
    for row, vector in zip(lines[1::2], case.weights, strict=True):
        assert [*map(int, row["words"])] == vector.indices.tolist()
        same([*row["words"].values()], vector.values)
    (query,) = [body for _, path, body in sent if path == "/words/_search"]
    same([*query["query"]["sparse_vector"]["query_vector"].values()], case.query_weights.values)


def test_opensearch_is_sent_the_models_vectors(case: Case) -> None:
    from opensearchpy import OpenSearch, helpers

    model, texts = EmbeddingModel(case.dense), case.texts
    with standing_in(as_a_search_engine) as (port, sent):
        client = OpenSearch(hosts=[{"host": "127.0.0.1", "port": port}])
        method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
        field = {"type": "knn_vector", "dimension": model.dim, "method": method}
        settings = {"index": {"knn": True}}
        body = {"settings": settings, "mappings": {"properties": {"vector": field}}}
        client.indices.create(index="texts", body=body)
        vectors = model.encode_document(texts).tolist()
        rows = [{"_index": "texts", "text": t, "vector": v} for t, v in zip(texts, vectors, strict=True)]
        helpers.bulk(client, rows)
        query = {"knn": {"vector": {"vector": model.encode_query(case.query).tolist(), "k": 5}}}
        client.search(index="texts", body={"query": query})
        client.close()
    (lines,) = [body for _, path, body in sent if path == "/_bulk"]
    same([row["vector"] for row in lines[1::2]], case.documents)
    (asked,) = [body for _, path, body in sent if path == "/texts/_search"]
    same(asked["query"]["knn"]["vector"]["vector"], case.queried)


def connected(server: Weaviate) -> Any:
    """As people connect, with its health checked."""
    import weaviate

    return weaviate.connect_to_local(port=server.port, grpc_port=server.grpc_port)


def test_weaviate_keeps_the_models_vectors_and_finds_the_nearest(case: Case) -> None:
    """Single objects by REST, a batch and queries by gRPC."""
    from weaviate.classes.config import Configure, DataType, Property
    from weaviate.classes.query import MetadataQuery

    texts, half = case.texts, len(case.texts) // 2
    vectors = case.model.encode_document(texts).tolist()
    with weaviate_server() as server, connected(server) as client:
        texts_of_case = client.collections.create(
            "Texts",
            properties=[Property(name="text", data_type=DataType.TEXT)],
            vector_config=Configure.Vectors.self_provided(),
        )
        for text, vector in zip(texts[:half], vectors[:half], strict=True):
            texts_of_case.data.insert({"text": text}, vector=vector)
        with texts_of_case.batch.fixed_size(100) as batch:
            for text, vector in zip(texts[half:], vectors[half:], strict=True):
                batch.add_object({"text": text}, vector=vector)
        assert texts_of_case.batch.failed_objects == []
        assert server.batches == [len(texts) - half]
        kept = {properties["text"]: vector for properties, vector in server.objects["Texts"].values()}
        same([kept[text] for text in texts], case.documents)
        query = case.model.encode_query(case.query).tolist()
        found = texts_of_case.query.near_vector(
            query, limit=5, include_vector=True, return_metadata=MetadataQuery(distance=True)
        ).objects
        same(server.queries[0], case.queried)
    cosines = case.documents @ case.queried
    order = np.argsort(-cosines, kind="stable")[:5]
    assert [one.properties["text"] for one in found] == [texts[k] for k in order]
    same([one.vector["default"] for one in found], case.documents[order])
    np.testing.assert_allclose([one.metadata.distance for one in found], 1 - cosines[order], rtol=0, atol=1e-6)


async def test_weaviates_asynchronous_client_does_so_too(case: Case) -> None:
    import weaviate
    from weaviate.classes.config import Configure

    with weaviate_server() as server:
        async with weaviate.use_async_with_local(port=server.port, grpc_port=server.grpc_port) as client:
            found = await client.collections.create("Texts", vector_config=Configure.Vectors.self_provided())
            vectors = await case.model.aencode_document(case.texts)
            rows = [
                weaviate.classes.data.DataObject(properties={"text": text}, vector=vector)
                for text, vector in zip(case.texts, vectors.tolist(), strict=True)
            ]
            assert not (await found.data.insert_many(rows)).has_errors
            asked = (await case.model.aencode_query(case.query)).tolist()
            (best,) = (await found.query.near_vector(asked, limit=1)).objects
    assert best.properties["text"] == case.texts[int(np.argmax(case.documents @ case.queried))]


def test_the_page_of_search_engines_runs(case: Case, tmp_path: Path) -> None:
    with standing_in(as_a_search_engine) as (port, sent):
        run_page("elasticsearch.md", case, tmp_path, lambda block: block.replace(":9200", f":{port}"))
    texts = ["a dog runs", "the house is red"]
    bulks = [[row for row in body if "index" not in row] for _, path, body in sent if path == "/_bulk"]
    assert [[row["text"] for row in rows] for rows in bulks] == [texts] * 3
    for rows in (bulks[0], bulks[2]):
        same([row["vector"] for row in rows], case.model.encode_document(texts))


def test_the_page_of_weaviate_runs(case: Case, tmp_path: Path) -> None:
    with weaviate_server() as server:
        here = f"connect_to_local(port={server.port}, grpc_port={server.grpc_port})"
        names = run_page("weaviate.md", case, tmp_path, lambda block: block.replace("connect_to_local()", here))
    texts = ["a dog runs", "the house is red"]
    wanted = case.model.encode_document(texts)
    kept = {properties["text"]: vector for properties, vector in server.objects["Texts"].values()}
    same([kept[text] for text in texts], wanted)
    best = int(np.argmax(wanted @ case.model.encode_query("which dog runs?")))
    assert names["found"].objects[0].properties["text"] == texts[best]
