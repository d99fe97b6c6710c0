"""Google's routes: vectors of one text and of several, by use and size, errors in its shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32

TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", ""]
BATCH = "/v1beta/models/encoder:batchEmbedContents"


def request(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "models/encoder", "content": {"parts": [{"text": text}], "role": "user"}, **more}


def vectors(answer: Any) -> Any:
    assert answer.status == 200, answer.body
    return float32([entry["values"] for entry in answer.json["embeddings"]])


@pytest.mark.parametrize("version", ["v1beta", "v1"])
def test_vectors_are_encodes(client: Client, loaded: Any, version: str) -> None:
    expected = loaded.encoder.encode(TEXTS)
    several = client.post(f"/{version}/models/encoder:batchEmbedContents", {"requests": [*map(request, TEXTS)]})
    np.testing.assert_array_equal(vectors(several), expected)
    assert several.json["usageMetadata"] == {"promptTokenCount": int(loaded.encoder.count_tokens(TEXTS).sum())}
    one = client.post(f"/{version}/models/encoder:embedContent", request(TEXTS[0]))
    np.testing.assert_array_equal(float32(one.json["embedding"]["values"]), expected[0])


def test_each_text_has_its_own_use_and_size(client: Client, loaded: Any) -> None:
    encoder = loaded.encoder
    for given, expected in (
        ({"taskType": "RETRIEVAL_QUERY"}, encoder.encode_query(TEXTS[0])),
        ({"taskType": "QUESTION_ANSWERING"}, encoder.encode_query(TEXTS[0])),
        ({"task_type": "RETRIEVAL_DOCUMENT"}, encoder.encode_document(TEXTS[0])),
        ({"taskType": "CLUSTERING"}, encoder.encode(TEXTS[0])),
        ({"outputDimensionality": 8}, encoder.encode(TEXTS[0], truncate_dim=8)),
        ({"output_dimensionality": 8}, encoder.encode(TEXTS[0], truncate_dim=8)),
    ):
        bodies = [request(TEXTS[1]), request(TEXTS[0], **given), request(TEXTS[2])]
        found = client.post(BATCH, {"requests": bodies}).json["embeddings"]
        np.testing.assert_array_equal(float32(found[1]["values"]), expected)
        np.testing.assert_array_equal(float32(found[0]["values"]), encoder.encode(TEXTS[1]))
        np.testing.assert_array_equal(float32(found[2]["values"]), encoder.encode(TEXTS[2]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body.update(title="Cats"), "requests[1].title"),
        (lambda body: body["content"]["parts"].append({"text": "b"}), "requests[1].content.parts: expected one part"),
        (lambda body: body["content"].update(parts=[]), "requests[1].content.parts: expected one part"),
        (lambda body: body["content"].update(parts=[{"inlineData": {}}]), "requests[1].content.parts[0].text"),
        (lambda body: body.update(outputDimensionality=25), "25 dimensions: expected 1 to 24"),
    ],
)
def test_what_would_give_another_vector_is_refused(client: Client, change: Callable[[Any], None], said: str) -> None:
    body = request("a")
    change(body)
    answer = client.post(BATCH, {"requests": [request("a"), body]})
    assert answer.status == 422
    assert said in answer.json["error"]["message"]


def test_errors_have_googles_shape(client: Client, serve: Callable[..., Client]) -> None:
    body = {"requests": [request("a")]}
    unknown = client.post("/v1beta/models/nobody:batchEmbedContents", body)
    assert (unknown.status, unknown.json["error"]["code"]) == (404, 404)
    assert unknown.json["error"]["status"] == "NOT_FOUND"
    assert "no model has this name" in unknown.json["error"]["message"]
    assert client.post(BATCH, {"requests": []}).json["error"]["status"] == "INVALID_ARGUMENT"
    assert client.post(BATCH, {}).json["error"]["message"] == "requests: is missing"
    assert client.post("/v1beta/models/encoder:generateContent", body).status == 404
    guarded = serve(keys=["secret"])
    assert guarded.post(BATCH, body).json["error"]["status"] == "UNAUTHENTICATED"
    assert guarded.post(BATCH, body, x_goog_api_key="secret").status == 200


def test_names_of_models_may_have_colons_and_slashes(loaded: Any) -> None:
    from fastembed_rt.server.app import App

    with App({"a/b:c": loaded.encoder}) as app:
        client = Client(app)
        assert client.post("/v1/models/a/b:c:embedContent", request("a")).status == 200
        assert client.get("/v1/models/a/b:c").json["id"] == "a/b:c"
        client.close()
