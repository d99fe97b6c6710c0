"""OpenAI: /v1/embeddings and /v1/models."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from ..errors import ApiError
from ..exchange import Exchange, Response, dumped, listed
from ..inputs import Inputs
from ..routes import Route
from ..schema import Anything, Body, Choice, Key, Schema, Text, Whole
from .tei import vectors_of

EMBEDDINGS = Body(
    "EmbeddingsRequest",
    [
        Key("input", Inputs()),
        Key("model", Text(), None),
        Key("encoding_format", Choice(("float", "base64")), "float", "base64: of float32, little endian"),
        Key("dimensions", Whole(), None, "first so many numbers of each vector; 0 and null for all"),
        Key("user", Anything(), None, "not looked at"),
        Key("prompt_name", Text(), None, "the model's prompt that stands in front of the texts"),
        Key("input_type", Text(), None, "query or document, whose prompt stands in front of the texts"),
    ],
)
NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
EMBEDDING: Schema = {
    "type": "object",
    "properties": {
        "object": {"const": "embedding"},
        "embedding": {"anyOf": [NUMBERS, {"type": "string"}]},
        "index": {"type": "integer"},
    },
}
USAGE: Schema = {
    "type": "object",
    "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
}
ANSWER: Schema = {
    "type": "object",
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": EMBEDDING},
        "model": {"type": "string"},
        "usage": USAGE,
    },
}


def error(problem: ApiError) -> bytes:
    """OpenAI's shape, and beside it the keys that text-embeddings-inference has on these routes."""
    code = problem.status
    about = {"message": problem.message, "type": problem.openai_type, "param": problem.param, "code": problem.kind}
    return dumped({"error": about, "message": problem.message, "type": problem.kind, "code": code})


async def embeddings(exchange: Exchange) -> Response:
    """Vectors of texts."""
    body = await exchange.body(EMBEDDINGS)
    served = exchange.find(body, "embedding")
    given = body["input"]
    vectors = await vectors_of(
        exchange,
        served,
        given,
        name="input",
        truncate_dim=body["dimensions"] or None,
        **exchange.options(body),
    )
    start = 0

    def entries(some: np.ndarray[Any, Any]) -> bytes:
        nonlocal start
        written = [
            {"object": "embedding", "embedding": vector, "index": start + k} for k, vector in enumerate(encoded(some))
        ]
        start += len(some)
        return dumped(written)

    encoded = as_base64 if body["encoding_format"] == "base64" else list
    data = await listed(vectors, entries)
    tokens = exchange.tokens
    usage = dumped({"prompt_tokens": tokens, "total_tokens": tokens})
    return Response(
        b'{"object":"list","data":' + data + b',"model":' + dumped(served.name) + b',"usage":' + usage + b"}"
    )


def as_base64(vectors: np.ndarray[Any, Any]) -> list[str]:
    """Vectors (n, dim) as float32, little endian, in base64."""
    return [base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii") for vector in vectors]


async def models(exchange: Exchange) -> Response:
    """What is served."""
    made = exchange.app.started
    data = [{"id": name, "object": "model", "created": made, "owned_by": "fastembed-rt"} for name in exchange.app.names]
    return Response(dumped({"object": "list", "data": data}))


def routes() -> list[Route]:
    """Of this dialect."""
    group = "OpenAI"
    return [
        Route(
            method="POST",
            path="/v1/embeddings",
            handler=embeddings,
            body=EMBEDDINGS,
            answer=ANSWER,
            error=error,
            group=group,
            says="Vectors",
        ),
        Route(
            method="POST",
            path="/embeddings",
            handler=embeddings,
            body=EMBEDDINGS,
            answer=ANSWER,
            error=error,
            group=group,
            says="Vectors",
        ),
        Route(
            method="GET",
            path="/v1/models",
            handler=models,
            error=error,
            group=group,
            says="Models",
            counted=False,
        ),
        Route(method="GET", path="/models", handler=models, error=error, group=group, says="Models", counted=False),
    ]
