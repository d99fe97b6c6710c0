"""OpenAI's routes: floats and base64, dimensions, token ids, models, errors in its shape."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32

from fastembed_rt.server.app import App

TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", "new city light: 1 2 3"]


def test_base64_is_encode_to_the_bit(client: Client, loaded: Any) -> None:
    body = {"input": TEXTS, "model": "encoder", "encoding_format": "base64", "user": "somebody"}
    answer = client.post("/v1/embeddings", body).json
    found = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]]
    np.testing.assert_array_equal(found, loaded.encoder.encode(TEXTS))
    tokens = int(loaded.encoder.count_tokens(TEXTS).sum())
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert [(entry["object"], entry["index"]) for entry in answer["data"]] == [("embedding", k) for k in range(3)]
    assert (answer["object"], answer["model"]) == ("list", "encoder")


def test_numbers_are_those_of_float32(client: Client, loaded: Any) -> None:
    for path in ("/v1/embeddings", "/embeddings"):
        for text, vector in ((TEXTS[0], loaded.encoder.encode(TEXTS[0])), (TEXTS, loaded.encoder.encode(TEXTS))):
            data = client.post(path, {"input": text, "dimensions": 0}).json["data"]
            np.testing.assert_array_equal(float32([entry["embedding"] for entry in data]), np.atleast_2d(vector))


def test_many_texts_are_numbered_through(client: Client) -> None:
    data = client.post("/v1/embeddings", {"input": TEXTS * 60, "encoding_format": "base64"}).json["data"]
    assert [entry["index"] for entry in data] == [*range(180)]
    assert data[0]["embedding"] == data[177]["embedding"]


def test_input_type_chooses_the_prompt(client: Client, loaded: Any) -> None:
    for use, expected in (
        ("query", loaded.encoder.encode_query),
        ("search_document", loaded.encoder.encode_document),
        ("clustering", loaded.encoder.encode),
        ("red", lambda texts: loaded.encoder.encode(texts, prompt_name="red")),
    ):
        data = client.post("/v1/embeddings", {"input": TEXTS, "input_type": use}).json["data"]
        np.testing.assert_array_equal(float32([entry["embedding"] for entry in data]), expected(TEXTS))


@pytest.mark.parametrize("told", [{"input_type": "query"}, {"prompt_name": "query"}])
@pytest.mark.parametrize(
    ("path", "key", "vectors"),
    [
        ("/v1/embeddings", "input", lambda answer: [entry["embedding"] for entry in answer["data"]]),
        ("/embed", "inputs", lambda answer: answer),
        ("/pipeline/feature-extraction/encoder", "inputs", lambda answer: [rows[0] for rows in answer]),
        ("/pooling", "input", lambda answer: [entry["data"] for entry in answer["data"]]),
        ("/v1/embed", "texts", lambda answer: answer["embeddings"]),
        ("/v2/embed", "texts", lambda answer: answer["embeddings"]["float"]),
        ("/api/embed", "input", lambda answer: answer["embeddings"]),
    ],
)
def test_a_prompt_is_asked_for_in_the_same_words_on_every_route(
    client: Client, loaded: Any, path: str, key: str, vectors: Any, told: dict[str, str]
) -> None:
    answer = client.post(path, {key: TEXTS, "model": "encoder", **told})
    np.testing.assert_array_equal(float32(vectors(answer.json)), loaded.encoder.encode_query(TEXTS))


def test_task_and_form_are_those_of_jinas_clients(client: Client, loaded: Any) -> None:
    for task, expected in (
        ("retrieval.query", loaded.encoder.encode_query),
        ("retrieval.passage", loaded.encoder.encode_document),
        ("text-matching", loaded.encoder.encode),
    ):
        data = client.post("/v1/embeddings", {"input": TEXTS, "task": task}).json["data"]
        np.testing.assert_array_equal(float32([entry["embedding"] for entry in data]), expected(TEXTS))
    signs = loaded.encoder.encode(TEXTS) > 0
    for form, shift in (("ubinary", 0), ("binary", 128)):
        data = client.post("/v1/embeddings", {"input": TEXTS, "embedding_type": form}).json["data"]
        found = np.array([entry["embedding"] for entry in data]) + shift
        np.testing.assert_array_equal(found, np.packbits(signs, axis=1))


def test_size_and_form_are_those_of_voyages_and_mistrals_clients(client: Client, loaded: Any) -> None:
    body = {"input": TEXTS, "model": "encoder", "encoding_format": "base64", "output_dimension": 8}
    answer = client.post("/v1/embeddings", {**body, "output_dtype": "float", "truncation": True}).json
    found = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]]
    np.testing.assert_array_equal(found, loaded.encoder.encode(TEXTS, truncate_dim=8))
    assert isinstance(answer["id"], str)  # which Mistral's client wants
    for form in ("binary", "ubinary"):  # numbers, or the client would take the bytes of another type
        data = client.post("/v1/embeddings", {**body, "output_dimension": 16, "output_dtype": form}).json["data"]
        expected = loaded.encoder.encode(TEXTS, truncate_dim=16, precision=form)
        np.testing.assert_array_equal([entry["embedding"] for entry in data], expected)
    for form in ("int8", "uint8"):
        refused = client.post("/v1/embeddings", {**body, "output_dtype": form})
        assert refused.status == 422
        assert refused.json["detail"].startswith(f"output_dtype: {form} needs ranges")


LONG = "the cat " * 24 + "dog old " * 24  # its beginning and its end are other words


@pytest.mark.parametrize("given", [{"truncation": False}, {"truncate": False}, {"truncate": "NONE"}])
def test_who_wants_no_cut_gets_an_error(client: Client, given: dict[str, Any]) -> None:
    answer = client.post("/v1/embeddings", {"input": [TEXTS[0], LONG], **given})
    assert answer.status == 422
    assert "over max_length 40" in answer.json["detail"]
    assert client.post("/v1/embeddings", {"input": TEXTS, **given}).status == 200


def test_who_names_the_end_that_is_cut_loses_that(client: Client, loaded: Any) -> None:
    words = LONG.split()  # a token each, of which 40 with two special ones are read
    kept = {"right": " ".join(words[:38]), "left": " ".join(words[-38:])}
    for given, side in (({"truncate": True}, "right"), ({"truncate": "END"}, "right"), ({"truncate": "START"}, "left")):
        data = client.post("/v1/embeddings", {"input": [LONG], **given}).json["data"]
        expected = loaded.encoder.encode([kept[side]])
        np.testing.assert_allclose(float32([entry["embedding"] for entry in data]), expected, rtol=0, atol=1e-6)
    assert client.post("/v1/embeddings", {"input": [LONG], "truncate": "MIDDLE"}).status == 422


def test_texts_may_be_objects(client: Client, loaded: Any) -> None:
    given = [{"text": TEXTS[0]}, TEXTS[1], {"text": TEXTS[2]}]
    data = client.post("/v1/embeddings", {"input": given}).json["data"]
    np.testing.assert_array_equal(float32([entry["embedding"] for entry in data]), loaded.encoder.encode(TEXTS))
    for wrong in ({"image": "https://example.org"}, [5, 6], None):
        assert client.post("/v1/embeddings", {"input": [given[0], wrong]}).status == 422


def test_lengths_are_kept_where_jinas_clients_ask_for_them(client: Client, loaded: Any) -> None:
    found = {}
    for normalized in (True, False):
        data = client.post("/v1/embeddings", {"input": TEXTS, "normalized": normalized}).json["data"]
        found[normalized] = float32([entry["embedding"] for entry in data])
    np.testing.assert_array_equal(found[True], loaded.encoder.encode(TEXTS))
    lengths = np.linalg.norm(found[False], axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(found[False] / lengths, found[True], rtol=0, atol=1e-6)


def test_late_chunking_is_refused(client: Client) -> None:
    answer = client.post("/v1/embeddings", {"input": TEXTS, "late_chunking": True})
    assert answer.status == 422
    assert "depend on the texts beside it" in answer.json["detail"]
    assert client.post("/v1/embeddings", {"input": TEXTS, "late_chunking": False}).status == 200


def test_token_ids_are_refused_with_the_clients_switch(client: Client) -> None:
    for given in ([1, 5, 4], [[1, 5, 4], [6]], ["a", [6]]):
        answer = client.post("/v1/embeddings", {"input": given, "model": "encoder"})
        assert answer.status == 422
        assert "check_embedding_ctx_length=False" in answer.json["error"]["message"]
        assert "--accept-token-ids" in answer.json["message"]


def test_token_ids_of_the_model_are_taken_where_that_is_wanted(loaded: Any) -> None:
    with App({"encoder": loaded.encoder}, accept_token_ids=True) as app:
        client = Client(app)
        tokens = [client.post("/tokenize", {"inputs": text}).json[0] for text in TEXTS]
        whole = [[token["id"] for token in row] for row in tokens]
        bare = [row[1:-1] for row in whole]
        for given in (whole, bare, [TEXTS[0], *bare[1:]]):
            data = client.post("/v1/embeddings", {"input": given}).json["data"]
            np.testing.assert_array_equal(float32([entry["embedding"] for entry in data]), loaded.encoder.encode(TEXTS))
        long = client.post("/v1/embeddings", {"input": bare[0] * 40}).json
        assert long["usage"]["prompt_tokens"] == 40
        outside = client.post("/v1/embeddings", {"input": [5, 2**30]})
        assert outside.status == 422
        assert "token ids outside 0 to" in outside.json["message"]
        prompted = client.post("/v1/embeddings", {"input": [5], "prompt_name": "red"})
        assert "take no prompt" in prompted.json["message"]
        client.close()


def test_models_by_name(client: Client, loaded: Any) -> None:
    listed = client.get("/v1/models").json
    assert [entry["id"] for entry in listed["data"]] == ["encoder", "ranker", "splade", "colbert"]
    infinitys = client.get("/models").json["data"]  # its client wants `stats` and this owner
    assert [(entry["id"], entry["owned_by"], entry["stats"]) for entry in infinitys] == [
        (entry["id"], "infinity", {}) for entry in listed["data"]
    ]
    assert [entry["capabilities"] for entry in infinitys] == [["embed"], ["rerank", "classify"], [], ["rerank"]]
    assert client.get("/v1/models/splade").json == listed["data"][2]
    unknown = client.get("/v1/models/text-embedding-3-small")
    assert unknown.status == 404
    assert "models: encoder (embedding)" in unknown.json["error"]["message"]


def test_errors_have_both_shapes(client: Client) -> None:
    answer = client.post("/v1/embeddings", {"input": ["a", 3], "model": "encoder"})
    message = "input[1]: expected a string, got a whole number"
    about = {"message": message, "type": "invalid_request_error", "param": "input[1]", "code": "Validation"}
    beside = {"message": message, "type": "Validation", "code": 422, "detail": message}
    assert answer.json == {"error": about, **beside}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a", "dimensions": 25}),
        ("/api/embed", {"input": "a", "model": "encoder", "dimensions": 25}),
        ("/v2/embed", {"texts": ["a"], "model": "encoder", "output_dimension": 25, "embedding_types": ["float"]}),
    ],
)
def test_dimensions_that_the_model_does_not_have(client: Client, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, body)
    assert answer.status in (400, 422)
    wanted = body.get("dimensions", body.get("output_dimension"))
    assert f"{wanted} dimensions: expected 1 to 24" in str(answer.json)
    assert "truncate_dim" not in str(answer.json)
    if path == "/v1/embeddings":
        assert answer.json["error"]["param"] == "dimensions"
