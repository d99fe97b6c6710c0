"""Whatever a client sends: JSON comes back in the shape of its route, and no status from 500 on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgi_client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_schemas import misfit

from fastembed_rt.server.dialects import google, ollama, openai, others, ranking, tei, tokens, weaviate
from fastembed_rt.server.routes import Route
from fastembed_rt.server.schema import MISSING, Key, Text

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
TEXT = st.text(max_size=12) | st.sampled_from(["the cat sleeps.", "dog " * 60, "query", "float", "encoder", "base64"])
VALUES = st.recursive(
    SCALARS | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.just("text"), inner, max_size=3)
    ),
    max_leaves=8,
)
# What a route takes, by key; most of a body is this, so that more than its first key is looked at.
SOUND: dict[str, Any] = {
    "inputs": ["the cat sleeps.", ""],
    "input": "the cat sleeps.",
    "query": "a dog",
    "texts": ["a cat", "a dog"],
    "documents": ["a cat", {"text": "a dog"}],
    "text_1": "a cat",
    "text_2": ["a dog", "a tree"],
    "queries": "a cat",
    "ids": [[5, 6]],
    "instances": [{"inputs": "a cat"}],
    "parameters": {"truncate": True},
    "truncate": True,
    "truncation_direction": "left",
    "embedding_types": ["float", "binary"],
    "encoding_format": "base64",
    "input_type": "query",
    "prompt_name": "query",
    "dimensions": 8,
    "output_dimension": 8,
    "prompt": "a cat",
    "top_n": 1,
    "top_k": 2,
    "truncation": True,
    "output_dtype": "ubinary",
    "property": "title",
    "text": "a cat",
    "config": {"task_type": "query", "dimensions": 8},
    "content": {"parts": [{"text": "a cat"}]},
    "requests": [{"content": {"parts": [{"text": "a cat"}]}, "taskType": "RETRIEVAL_QUERY"}],
    "outputDimensionality": 8,
    "taskType": "CLUSTERING",
}
OWN: dict[str, dict[str, Any]] = {
    "/predict": {"inputs": [["a cat", "a dog"]]},
    "/classify": {"input": ["a cat", "a dog"]},
    "/similarity": {"inputs": {"source_sentence": "a cat", "sentences": ["a dog"]}},
    "/score": {"documents": ["a dog"], "prompt_name": None},
    "/v1/score": {"documents": ["a dog"], "prompt_name": None},
    "/v1/ranking": {"query": {"text": "a cat"}, "passages": [{"text": "a dog"}], "model": None},
    "/v2/embed": {"truncate": "end", "texts": ["a cat", "a dog"], "inputs": None},
    "/v1/embed": {"truncate": "end", "texts": ["a cat", "a dog"], "inputs": None},
}
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
    "required": ["error", "error_type"],
}
OPENAI_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}},
            "required": ["message", "type", "param", "code"],
        },
    },
    "required": ["error"],
}
GOOGLE_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "code": {"type": "integer"}, "status": {"type": "string"}},
            "required": ["message", "code", "status"],
        },
    },
    "required": ["error"],
}
OLLAMA_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
CHECKED = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


POSTS = [
    route
    for dialect in (tei, tokens, openai, ranking, others, ollama, google, weaviate)
    for route in dialect.routes()
    if route.method == "POST"
]


def check(client: Client, route: Route, raw: bytes) -> int:
    answer = client.post(route.path.replace("{}", "encoder"), raw=raw)
    assert answer.status in (200, 400, 404, 413, 422), (route.path, raw, answer.body)
    sound = answer.status == 200
    assert answer.headers["content-type"] == (route.answer_type if sound else "application/json")
    errors: dict[Any, Any] = {
        openai.error: OPENAI_ERROR,
        ollama.error: OLLAMA_ERROR,
        google.error: GOOGLE_ERROR,
    }
    shape = route.answer if sound else errors.get(route.error, ERROR)
    assert misfit(shape, answer.json) is None, (route.path, raw, answer.body)
    return answer.status


@st.composite
def bodies(draw: st.DrawFn, route: Route) -> Any:
    """A body of a route, some of whose keys hold something else."""
    if draw(st.integers(0, 15)) == 0:
        return draw(VALUES)
    own = OWN.get(route.path, {})
    sound = SOUND | own
    keys = route.body.keys if route.body else [Key("inputs", Text()), Key("instances", Text(), None)]
    body = {}
    for key in keys:
        chance = draw(st.integers(0, 19))
        if chance < 2:
            body[key.name] = draw(VALUES | TEXT)
        elif key.name in sound and (key.default is MISSING or key.name in own or chance > 12):
            body[key.name] = sound[key.name]
    return body


@pytest.mark.parametrize("route", POSTS, ids=[route.path for route in POSTS])
def test_any_object(client: Client, route: Route) -> None:
    seen = set()

    @CHECKED
    @given(body=bodies(route))
    def one(body: Any) -> None:
        seen.add(check(client, route, json.dumps(body).encode()))

    one()
    assert {200, 422} <= seen, "one kind of answer was never looked at"


@CHECKED
@given(raw=st.binary(max_size=40) | st.text(max_size=20).map(lambda text: f'{{"inputs": "{text}"}}'.encode()))
def test_any_bytes(client: Client, raw: bytes) -> None:
    for route in POSTS:
        check(client, route, raw)


@CHECKED
@given(name=st.text(min_size=1, max_size=20))
def test_any_path(client: Client, name: str) -> None:
    for path in (f"/{name}", f"/v1/models/{name}", f"/{name}/v1/embeddings", f"/pipeline/feature-extraction/{name}"):
        answer = client.post(path, {"input": "a", "inputs": "a"})
        assert answer.status in (200, 404, 405, 422), answer.body
        assert isinstance(answer.json, dict | list)


def test_a_test_of_shapes_can_fail(client: Client) -> None:
    for schema, value in (
        ({"type": "array", "items": {"type": "number"}}, [1, "a"]),
        ({"type": "object", "required": ["a"]}, {}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ({"type": "integer"}, True),
    ):
        found: Any = misfit(schema, value)
        assert found
