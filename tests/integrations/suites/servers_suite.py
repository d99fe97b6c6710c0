"""Elasticsearch, OpenSearch and Weaviate: their real clients against a stand-in, since their servers do not run here.

What is sent is looked at: mappings, vectors to float32's digits, the query's vector with the query prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stand_in import standing_in
from stores_case import StoresCase as Case
from stores_case import case, run_page, same

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


def as_weaviate(method: str, path: str, body: Any) -> Any:
    if path == "/v1/meta":
        return {"hostname": "http://[::]:8080", "modules": {}, "version": "1.34.0"}
    if method == "GET" and path == "/v1/schema":
        return {"classes": []}
    return body if method == "POST" and path in ("/v1/schema", "/v1/objects") else None


def test_weaviate_is_sent_the_models_vectors(case: Case) -> None:
    """By REST: the schema and single objects. Batches and queries are gRPC, for which there is no stand-in."""
    import weaviate
    from weaviate.classes.config import Configure, DataType, Property

    model, texts = EmbeddingModel(case.dense), case.texts
    with standing_in(as_weaviate) as (port, sent):
        client = weaviate.connect_to_local(port=port, grpc_port=port - 1, skip_init_checks=True)
        try:
            found = client.collections.create(
                "Texts",
                properties=[Property(name="text", data_type=DataType.TEXT)],
                vector_config=Configure.Vectors.self_provided(),
            )
            for text, vector in zip(texts, model.encode_document(texts).tolist(), strict=True):
                found.data.insert({"text": text}, vector=vector)
        finally:
            client.close()
    objects = [body for method, path, body in sent if (method, path) == ("POST", "/v1/objects")]
    assert [one["properties"]["text"] for one in objects] == case.texts
    vectors = [one.get("vector") or one["vectors"]["default"] for one in objects]
    same(vectors, case.documents)


def test_the_page_of_search_engines_runs(case: Case, tmp_path: Path) -> None:
    with standing_in(as_a_search_engine) as (port, sent):
        run_page("elasticsearch.md", case, tmp_path, lambda block: block.replace(":9200", f":{port}"))
    texts = ["a dog runs", "the house is red"]
    bulks = [[row for row in body if "index" not in row] for _, path, body in sent if path == "/_bulk"]
    assert [[row["text"] for row in rows] for rows in bulks] == [texts] * 3
    for rows in (bulks[0], bulks[2]):
        same([row["vector"] for row in rows], case.model.encode_document(texts))


def test_the_page_of_weaviate_runs_but_for_its_query(case: Case, tmp_path: Path) -> None:
    def change(block: str) -> str:
        assert "near_vector" in block
        lines = [line for line in block.splitlines() if "near_vector" not in line]
        here = f"connect_to_local(port={port}, grpc_port={port - 1}, skip_init_checks=True)"
        return "\n".join(lines).replace("connect_to_local()", here)

    with standing_in(as_weaviate) as (port, sent):
        run_page("weaviate.md", case, tmp_path, change)
    objects = [body for method, path, body in sent if (method, path) == ("POST", "/v1/objects")]
    wanted = case.model.encode_document(["a dog runs", "the house is red"])
    same([one.get("vector") or one["vectors"]["default"] for one in objects], wanted)
