"""Ollama's routes: vectors, one vector, what a client asks beforehand, and errors in its shape."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32

TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", ""]


@pytest.mark.parametrize("name", ["encoder", "encoder:latest", None, ""])
def test_vectors_are_encodes(client: Client, loaded: Any, name: str | None) -> None:
    options = {"options": {"num_ctx": 8}, "keep_alive": "5m"}
    answer = client.post("/api/embed", {"model": name, "input": TEXTS, **options})
    assert answer.status == 200
    np.testing.assert_array_equal(float32(answer.json["embeddings"]), loaded.encoder.encode(TEXTS))
    assert answer.json["model"] == (name or "encoder")
    assert answer.json["prompt_eval_count"] == int(loaded.encoder.count_tokens(TEXTS).sum())
    assert answer.json["total_duration"] > 0


def test_one_text_and_none(client: Client, loaded: Any) -> None:
    alone = client.post("/api/embed", {"model": "encoder", "input": TEXTS[0]}).json["embeddings"]
    np.testing.assert_array_equal(float32(alone), loaded.encoder.encode(TEXTS[:1]))
    assert client.post("/api/embed", {"model": "encoder", "input": []}).json["embeddings"] == []


def test_the_first_route_gives_a_vector(client: Client, loaded: Any) -> None:
    answer = client.post("/api/embeddings", {"model": "encoder", "prompt": TEXTS[1]})
    np.testing.assert_array_equal(float32(answer.json["embedding"]), loaded.encoder.encode(TEXTS[1]))
    assert client.post("/api/embeddings", {"model": "encoder"}).json == {"embedding": []}
    asked = client.post("/api/embeddings", {"model": "encoder", "prompt": TEXTS[1], "input_type": "query"})
    np.testing.assert_array_equal(float32(asked.json["embedding"]), loaded.encoder.encode_query(TEXTS[1]))


def test_dimensions_prompts_and_cuts(client: Client, loaded: Any) -> None:
    body = {"model": "encoder", "input": TEXTS}
    shorter = client.post("/api/embed", {**body, "dimensions": 8}).json["embeddings"]
    np.testing.assert_array_equal(float32(shorter), loaded.encoder.encode(TEXTS, truncate_dim=8))
    query = client.post("/query/api/embed", body).json["embeddings"]
    np.testing.assert_array_equal(float32(query), loaded.encoder.encode_query(TEXTS))
    long = {"model": "encoder", "input": "the cat " * 40}
    cut = client.post("/api/embed", long).json["embeddings"]
    np.testing.assert_array_equal(float32(cut), loaded.encoder.encode([long["input"]]))
    refused = client.post("/api/embed", {**long, "truncate": False})
    assert refused.status == 422
    assert "over max_length 40" in refused.json["error"]
    assert "context length" in refused.json["error"]  # by which clients know that a text has to be sent in parts


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/api/show", "/api/pull"])
@pytest.mark.parametrize("key", ["model", "name"])
def test_an_unknown_model_is_told_as_ollama_tells_it(client: Client, path: str, key: str) -> None:
    answer = client.post(path, {key: "nobody:latest", "input": "a", "prompt": "a"})
    assert answer.status == 404
    assert list(answer.json) == ["error"]
    assert "no model has this name; models: encoder" in answer.json["error"]


def test_a_model_of_another_task_has_no_vectors_here(client: Client) -> None:
    answer = client.post("/api/embed", {"model": "splade", "input": "a"})
    assert answer.status == 422
    assert "model splade is for sparse" in answer.json["error"]


def test_what_is_asked_beforehand(client: Client, loaded: Any) -> None:
    (model,) = client.get("/api/tags").json["models"]
    assert model["name"] == model["model"] == "encoder:latest"
    files = (loaded.encoder.path / file.file for file in loaded.encoder.variant.files)
    assert model["size"] == sum(file.stat().st_size for file in files)
    assert len(bytes.fromhex(model["digest"])) == 32
    assert model["details"]["family"] == "bert"
    (running,) = client.get("/api/ps").json["models"]
    assert running.items() > model.items()
    shown = client.post("/api/show", {"model": model["name"]}).json
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"] == {
        "general.architecture": "bert",
        "bert.context_length": 40,
        "bert.embedding_length": loaded.encoder.dim,
    }
    assert client.get("/api/version").json["version"]
    pulled = client.post("/api/pull", {"model": "encoder"})
    assert (json.loads(pulled.body), pulled.body[-1:]) == ({"status": "success"}, b"\n")
    assert client.post("/api/pull", {"model": "encoder", "stream": False}).json == {"status": "success"}
