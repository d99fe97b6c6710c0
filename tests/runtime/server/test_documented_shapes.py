"""What text-embeddings-inference 1.9.3 documents of its routes: keys that requests may have, answers, codes of errors.

Recorded from its docs/openapi.json, router/src/http/types.rs and router/tests. docs/clients.md says where ours differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from asgi_client import Client
from json_schemas import misfit

NUMBER, INTEGER, STRING, BOOLEAN = ({"type": kind} for kind in ("number", "integer", "string", "boolean"))


def record(**properties: Any) -> dict[str, Any]:
    """An object with all of these keys."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def listed(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def or_null(of: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [of, {"type": "null"}]}


CUTS = {"truncate": True, "truncation_direction": "Right"}
VECTORS = listed(listed(NUMBER))
PREDICTION = listed(record(score=NUMBER, label=STRING))
TOKEN = record(id=INTEGER, text=STRING, special=BOOLEAN, start=or_null(INTEGER), stop=or_null(INTEGER))
EMBEDDING = record(object=STRING, embedding=listed(NUMBER), index=INTEGER)
LIST = record(
    object={"const": "list"},
    data=listed(EMBEDDING),
    model=STRING,
    usage=record(prompt_tokens=INTEGER, total_tokens=INTEGER),
)
ERROR = record(error=STRING, error_type=STRING)
OPENAI_ERROR = record(message=STRING, code=INTEGER, type=STRING)


@dataclass(frozen=True)
class Documented:
    """A route: a request with every key that it may have, its answer, an empty batch."""

    path: str
    body: dict[str, Any]
    answer: dict[str, Any]
    empty: dict[str, Any]
    error: dict[str, Any]


ROUTES = [
    Documented(
        "/embed",
        {"inputs": ["a cat"], **CUTS, "prompt_name": "query", "normalize": True, "dimensions": 8},
        VECTORS,
        {"inputs": []},
        ERROR,
    ),
    Documented(
        "/embed_all", {"inputs": "a cat", **CUTS, "prompt_name": "query"}, listed(VECTORS), {"inputs": []}, ERROR
    ),
    Documented(
        "/embed_sparse",
        {"inputs": "a cat", **CUTS, "prompt_name": None},
        listed(listed(record(index=INTEGER, value=NUMBER))),
        {"inputs": []},
        ERROR,
    ),
    Documented("/predict", {"inputs": ["a", "b"], **CUTS, "raw_scores": False}, PREDICTION, {"inputs": []}, ERROR),
    Documented(
        "/predict", {"inputs": [["a", "b"], ["c", "d"]], "truncate": None}, listed(PREDICTION), {"inputs": []}, ERROR
    ),
    Documented(
        "/rerank",
        {"query": "a", "texts": ["b", "c"], **CUTS, "raw_scores": False, "return_text": True},
        listed(record(index=INTEGER, score=NUMBER, text=STRING)),
        {"query": "a", "texts": []},
        ERROR,
    ),
    Documented(
        "/similarity",
        {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {**CUTS, "prompt_name": "query"}},
        listed(NUMBER),
        {"inputs": {"source_sentence": "a", "sentences": []}},
        ERROR,
    ),
    Documented(
        "/tokenize",
        {"inputs": "a cat", "add_special_tokens": True, "prompt_name": None},
        listed(listed(TOKEN)),
        {"inputs": []},
        ERROR,
    ),
    Documented("/decode", {"ids": [5, 6], "skip_special_tokens": True}, listed(STRING), {"ids": []}, ERROR),
    Documented(
        "/v1/embeddings",
        {"input": ["a cat"], "model": None, "user": None, "encoding_format": "float", "dimensions": None},
        LIST,
        {"input": []},
        OPENAI_ERROR,
    ),
    Documented(
        "/vertex",
        {"instances": [{"inputs": "a cat"}]},
        record(predictions=listed(VECTORS)),
        {"instances": [{"inputs": []}]},
        ERROR,
    ),
]
NAMES = [f"{route.path}-{k}" for k, route in enumerate(ROUTES)]


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_a_request_with_every_documented_key_has_the_documented_answer(client: Client, route: Documented) -> None:
    answer = client.post(route.path, route.body)
    assert answer.status == 200, answer.body
    assert misfit(route.answer, answer.json) is None
    taken = client.get("/openapi.json").json["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]
    name = taken["schema"]["$ref"].rpartition("/")[2]
    described = client.get("/openapi.json").json["components"]["schemas"][name]["properties"]
    assert set(route.body) <= set(described), "a key is taken, and not described"


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_errors_have_the_documented_codes_and_keys(client: Client, route: Documented) -> None:
    empty = client.post(route.path, route.empty)
    assert empty.status == 400
    assert misfit(route.error, empty.json) is None
    assert empty.json.get("error_type", empty.json.get("type")) == "Empty"
    wrong = client.post(route.path, dict.fromkeys(route.body, 1.5))
    assert wrong.status == 422
    assert misfit(route.error, wrong.json) is None
    assert wrong.json.get("error_type", wrong.json.get("type")) == "Validation"
    assert "code" not in wrong.json or wrong.json["code"] == 422


def test_info_has_the_documented_keys(client: Client) -> None:
    labels = {"type": "object"}
    kind = {
        "anyOf": [
            record(embedding=record(pooling=STRING)),
            record(classifier=record(id2label=labels, label2id=labels)),
            record(reranker=record(id2label=labels, label2id=labels)),
        ]
    }
    strings = dict.fromkeys(("model_id", "model_dtype", "served_model_name", "version"), STRING)
    numbers = dict.fromkeys(
        (
            "max_concurrent_requests",
            "max_input_length",
            "max_batch_tokens",
            "max_client_batch_size",
            "tokenization_workers",
        ),
        INTEGER,
    )
    nulls = {
        **dict.fromkeys(("model_sha", "sha", "docker_label"), or_null(STRING)),
        "max_batch_requests": or_null(INTEGER),
    }
    whole = record(**strings, **numbers, **nulls, model_type=kind, auto_truncate=BOOLEAN)
    for path in ("/info", "/ranker/info"):
        assert misfit(whole, client.get(path).json) is None


def test_equal_texts_have_equal_vectors_alone_and_in_a_batch(client: Client) -> None:
    """Its router's own test of shortened vectors."""
    (alone,) = client.post("/embed", {"inputs": "test", "dimensions": 12}).json
    assert client.post("/embed", {"inputs": ["test"] * 3, "dimensions": 12}).json == [alone] * 3


def test_health_has_no_key_and_metrics_are_text(client: Client) -> None:
    assert client.get("/health").status == 200
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
