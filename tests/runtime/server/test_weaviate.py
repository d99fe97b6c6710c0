"""What Weaviate's modules ask: whether the server is ready, vectors by use, scores in the documents' order."""

from __future__ import annotations

from typing import Any

import numpy as np
from asgi_client import Client, float32

TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", "new city light: 1 2 3"]


def test_a_text_has_a_vector_by_its_use(client: Client, loaded: Any) -> None:
    for config, expected in (
        ({}, loaded.encoder.encode(TEXTS[0])),
        ({"task_type": "query"}, loaded.encoder.encode_query(TEXTS[0])),
        ({"task_type": "passage", "pooling_strategy": "masked_mean"}, loaded.encoder.encode_document(TEXTS[0])),
        ({"dimensions": 8}, loaded.encoder.encode(TEXTS[0], truncate_dim=8)),
    ):
        # Weaviate's record of a request is that of its answer too: all keys are there.
        body = {"text": TEXTS[0], "dims": 0, "vector": None, "error": "", "config": config}
        answer = client.post("/vectors", body).json
        np.testing.assert_array_equal(float32(answer["vector"]), expected)
        assert (answer["text"], answer["dim"]) == (TEXTS[0], len(expected))


def test_texts_have_vectors(client: Client, loaded: Any) -> None:
    answer = client.post("/vectors", {"texts": TEXTS, "config": {"task_type": "passage"}}).json
    np.testing.assert_array_equal(float32(answer["vectors"]), loaded.encoder.encode_document(TEXTS))
    assert answer["dims"] == 24


def test_another_pooling_than_the_models_is_refused(client: Client) -> None:
    answer = client.post("/vectors", {"text": "a", "config": {"pooling_strategy": "cls"}})
    assert answer.status == 422
    assert "pools by mean" in answer.json["error"]
    bodies: list[dict[str, Any]] = [{}, {"text": None}, {"texts": []}]
    for body in [*bodies, {"text": "a", "config": {"pooling_strategy": "max"}}]:
        assert client.post("/vectors", body).status in (400, 422)


def test_a_rerankers_scores_keep_the_documents_order(client: Client, loaded: Any) -> None:
    query = "which dog runs ?"
    answer = client.post("/rerank", {"query": query, "documents": TEXTS, "property": ""}).json
    expected = loaded.ranker.predict([(query, text) for text in TEXTS], activation="sigmoid")
    assert expected.tolist() != sorted(expected, reverse=True), "their order is that of the scores"
    np.testing.assert_array_equal(float32([entry["score"] for entry in answer["scores"]]), expected)
    assert [entry["document"] for entry in answer["scores"]] == TEXTS
    assert answer["query"] == query
    assert client.post("/rerank", {"query": query, "documents": [], "property": ""}).json["error"]


def test_it_is_asked_whether_it_is_ready(client: Client) -> None:
    for path in ("/.well-known/ready", "/.well-known/live"):
        assert client.get(path).status == 200
    assert client.get("/meta").json["served_model_name"] == "encoder"
