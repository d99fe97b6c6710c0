"""Rerank and scores as Cohere, Jina, vLLM and infinity have them; vectors as Cohere, vLLM and Hugging Face do."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32
from causal_rerankers import save_causal_reranker
from cross_encoders import reference_scores
from exports import quick
from torch.nn import Identity

from fastembed_rt import LateInteractionModel, Reranker
from fastembed_rt.server.app import App

QUERY = "which dog runs ?"
DOCUMENTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", "new city light: 1 2 3"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_by_score(client: Client, directories: Any, path: str) -> None:
    scores = reference_scores(directories.checkpoints["ranker"], [(QUERY, text) for text in DOCUMENTS])
    order = np.argsort(-scores).tolist()
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "ranker", "max_tokens_per_doc": None}
    answer = client.post(path, body).json
    assert [entry["index"] for entry in answer["results"]] == order
    np.testing.assert_allclose([e["relevance_score"] for e in answer["results"]], scores[order], atol=1e-5)
    assert answer["model"] == "ranker"
    assert answer["usage"]["total_tokens"] > 0
    assert "document" not in answer["results"][0]
    best = client.post(path, {**body, "top_n": 1, "return_documents": True}).json["results"]
    assert [(entry["index"], entry["document"]) for entry in best] == [(order[0], {"text": DOCUMENTS[order[0]]})]


def test_infinitys_documents_are_strings(client: Client) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "return_documents": True, "model": "default/not-specified"}
    for path, more in (("/rerank", {"raw_scores": False}), ("/infinity/rerank", {}), ("/infinity/v1/rerank", {})):
        results = client.post(path, {**body, **more}).json["results"]
        assert [entry["document"] for entry in results] == [DOCUMENTS[entry["index"]] for entry in results]
    assert client.post("/infinity/infinity/rerank", body).status == 404


def test_voyages_clients_find_results_as_data(client: Client) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "ranker"}
    expected = client.post("/v1/rerank", body).json["results"]
    answer = client.post("/v1/rerank", {**body, "top_k": 2, "truncation": True}).json
    assert answer["data"] == expected[:2]
    assert answer["usage"]["total_tokens"] > 0
    assert client.post("/v1/rerank", {**body, "top_k": None, "truncation": True}).json["data"] == expected
    long = {**body, "documents": [*DOCUMENTS, "the old river " * 40], "truncation": False}
    refused = client.post("/v1/rerank", long)
    assert refused.status == 422
    assert "over max_length 40" in refused.json["detail"]


def test_nvidias_passages_by_logit(client: Client, directories: Any) -> None:
    scores = reference_scores(
        directories.checkpoints["ranker"], [(QUERY, text) for text in DOCUMENTS], activation_fn=Identity()
    )
    order = np.argsort(-scores).tolist()
    passages = [{"text": text} for text in DOCUMENTS]
    body = {"query": {"text": QUERY}, "passages": passages, "model": "ranker"}
    answer = client.post("/v1/ranking", body).json
    assert [entry["index"] for entry in answer["rankings"]] == order
    np.testing.assert_allclose([entry["logit"] for entry in answer["rankings"]], scores[order], atol=1e-5)
    assert answer["usage"]["total_tokens"] > 0
    body["passages"] = [*passages, {"text": "the old river " * 40}]
    for truncate, status in (("NONE", 422), ("END", 200), (None, 200)):
        assert client.post("/v1/ranking", {**body, "truncate": truncate}).status == status
    body["passages"] = [*passages, {"text": "a", "image": "data:image/png;base64,AA"}]
    refused = client.post("/v1/ranking", body)
    assert refused.status == 422
    assert "passages.3.image" in json.dumps(refused.json)
    assert client.post("/v1/ranking", {**body, "passages": []}).status == 422


def test_documents_may_be_objects(client: Client) -> None:
    body = {"query": QUERY, "documents": [{"text": text, "page": 3} for text in DOCUMENTS], "return_documents": True}
    results = client.post("/v1/rerank", body).json["results"]
    plain = client.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS}).json["results"]
    assert [e["relevance_score"] for e in results] == [e["relevance_score"] for e in plain]
    assert results[0]["document"] == {"text": DOCUMENTS[results[0]["index"]], "page": 3}


def test_scores_of_pairs(client: Client, loaded: Any) -> None:
    expected = loaded.ranker.predict([(QUERY, text) for text in DOCUMENTS], activation="sigmoid")
    for body in (
        {"text_1": QUERY, "text_2": DOCUMENTS, "model": "ranker"},
        {"text_1": [QUERY] * 3, "text_2": DOCUMENTS},
        {"queries": QUERY, "documents": DOCUMENTS},
    ):
        data = client.post("/score", body).json["data"]
        np.testing.assert_array_equal(float32([entry["score"] for entry in data]), expected)
    assert client.post("/score", {"text_1": ["a", "b"], "text_2": DOCUMENTS}).status == 422


def test_scores_of_encoders(client: Client, loaded: Any) -> None:
    left = [QUERY, "the old river", QUERY]
    data = client.post("/v1/score", {"text_1": left, "text_2": DOCUMENTS, "model": "encoder"}).json["data"]
    cosines = (loaded.encoder.encode_query(left) * loaded.encoder.encode_document(DOCUMENTS)).sum(axis=1)
    np.testing.assert_allclose([entry["score"] for entry in data], cosines, atol=1e-6)
    data = client.post("/score", {"text_1": left, "text_2": DOCUMENTS, "model": "colbert"}).json["data"]
    queries, documents = loaded.colbert.encode_query(left), loaded.colbert.encode_document(DOCUMENTS)
    expected = loaded.colbert.similarity(queries, documents).diagonal()
    np.testing.assert_allclose([entry["score"] for entry in data], expected, rtol=1e-6)


def test_coheres_vectors_by_type(client: Client, loaded: Any) -> None:
    body = {"model": "encoder", "texts": DOCUMENTS, "input_type": "search_query"}
    answer = client.post("/v2/embed", body).json
    expected = loaded.encoder.encode_query(DOCUMENTS)
    np.testing.assert_array_equal(float32(answer["embeddings"]["float"]), expected)
    assert (answer["texts"], answer["response_type"]) == (DOCUMENTS, "embeddings_by_type")
    several = client.post("/v2/embed", {**body, "embedding_types": ["base64", "ubinary", "binary"]}).json["embeddings"]
    np.testing.assert_array_equal([np.frombuffer(base64.b64decode(v), "<f4") for v in several["base64"]], expected)
    for name in ("binary", "ubinary"):
        stored = loaded.encoder.encode_query(DOCUMENTS, precision=name)
        np.testing.assert_array_equal(several[name], stored)
    refused = client.post("/v2/embed", {**body, "embedding_types": ["int8"]})
    assert refused.status == 422
    assert "needs ranges" in refused.json["message"]


def test_coheres_texts_may_be_parts_of_inputs(client: Client, loaded: Any) -> None:
    def parts(*given: dict[str, Any]) -> dict[str, Any]:
        return {"content": list(given)}

    inputs = [parts({"type": "text", "text": text}) for text in DOCUMENTS]
    answer = client.post("/v2/embed", {"inputs": inputs, "input_type": "search_document"}).json
    np.testing.assert_array_equal(float32(answer["embeddings"]["float"]), loaded.encoder.encode_document(DOCUMENTS))
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    for wrong, said in (
        ({"inputs": [inputs[0], parts(image)]}, "inputs[1].content[0].type: expected one of text"),
        ({"inputs": [parts(*[{"type": "text", "text": "a"}] * 2)]}, "inputs[0].content: expected one part"),
        ({"inputs": [parts()]}, "inputs[0].content: expected one part"),
        ({"inputs": inputs, "texts": DOCUMENTS}, "inputs: texts are there too"),
        ({}, "texts: is missing"),
    ):
        refused = client.post("/v2/embed", wrong)
        assert refused.status == 422
        assert refused.json["message"].startswith(said)
    assert client.post("/v2/embed", {"inputs": []}).status == 400, "as of no texts"


def test_coheres_first_api_has_a_list_unless_types_are_named(client: Client, loaded: Any) -> None:
    body = {"model": "encoder", "texts": DOCUMENTS, "input_type": "search_document", "embedding_types": None}
    answer = client.post("/v1/embed", body).json
    np.testing.assert_array_equal(float32(answer["embeddings"]), loaded.encoder.encode_document(DOCUMENTS))
    assert (answer["texts"], answer["response_type"]) == (DOCUMENTS, "embeddings_floats")
    typed = client.post("/v1/embed", {**body, "embedding_types": ["float"]}).json
    assert typed["embeddings"] == {"float": answer["embeddings"]}
    assert typed["response_type"] == "embeddings_by_type"


def test_pooling_classify_and_features(client: Client, loaded: Any) -> None:
    data = client.post("/pooling", {"model": "encoder", "input": DOCUMENTS}).json["data"]
    np.testing.assert_array_equal(float32([entry["data"] for entry in data]), loaded.encoder.encode(DOCUMENTS))
    pairs = [[QUERY, text] for text in DOCUMENTS]
    labels = client.post("/classify", {"model": "ranker", "input": pairs}).json["data"]
    expected = loaded.ranker.predict([tuple(pair) for pair in pairs], activation="sigmoid")
    np.testing.assert_array_equal(float32([row[0]["score"] for row in labels]), expected)
    answer = client.post("/pipeline/feature-extraction/encoder", {"inputs": DOCUMENTS[:1]}).json
    np.testing.assert_array_equal(float32(answer[0][0]), loaded.encoder.encode(DOCUMENTS[0]))
    assert client.post("/pipeline/feature-extraction/none/such", {"inputs": DOCUMENTS}).status == 404


def test_a_request_may_bring_its_own_prompt(directories: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("instructed")
    checkpoint = save_causal_reranker(root / "checkpoint", prompts={"web": "Find web pages"})
    quick(checkpoint, root / "judge")
    models = {
        "judge": Reranker(root / "judge"),
        "colbert": LateInteractionModel(directories.models["colbert"]),
    }
    pairs = [(QUERY, text) for text in DOCUMENTS]
    body: dict[str, Any]
    with App(models) as app:
        client = Client(app)
        for given, options in (
            ({}, {}),
            ({"prompt_name": "web"}, {"prompt_name": "web"}),
            ({"prompt": "Is it about cats?"}, {"prompt": "Is it about cats?"}),
        ):
            scores = reference_scores(checkpoint, pairs, **options)
            ranked = {"query": QUERY, "model": "judge", **given}
            for path, body, name in (
                ("/v1/rerank", {**ranked, "documents": DOCUMENTS}, "relevance_score"),
                ("/rerank", {**ranked, "texts": DOCUMENTS}, "score"),
            ):
                answer = client.post(path, body).json
                entries = answer["results"] if isinstance(answer, dict) else answer
                found = {entry["index"]: entry[name] for entry in entries}
                np.testing.assert_allclose([found[k] for k in range(len(pairs))], scores, atol=1e-5)
            body = {"text_1": QUERY, "text_2": DOCUMENTS, "model": "judge", **given}
            np.testing.assert_allclose(
                [e["score"] for e in client.post("/score", body).json["data"]], scores, atol=1e-5
            )
            body = {"inputs": [list(pair) for pair in pairs], "model": "judge", **given}
            np.testing.assert_allclose(
                [row[0]["score"] for row in client.post("/predict", body).json], scores, atol=1e-5
            )
        assert "cats" not in repr([*app.models.find("judge")._prepared]), "clients' own texts are not kept"
        for more in ({"prompt": "x", "prompt_name": "web"}, {"prompt_name": "nothing"}, {"prompt": 3}):
            assert client.post("/rerank", {"query": QUERY, "texts": DOCUMENTS, "model": "judge", **more}).status == 422
        refused = client.post("/rerank", {"query": QUERY, "texts": DOCUMENTS, "model": "colbert", "prompt": "x"})
        assert (refused.status, "no reranker" in json.dumps(refused.json)) == (422, True)
        client.close()
    for model in models.values():
        model.close()
