"""Google's Gemini API: embedContent and batchEmbedContents, vectors of one text and of several."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ...manifest import EMBEDDING
from ..errors import ApiError
from ..exchange import Exchange, checked
from ..routes import Route
from ..schema import Body, Key, Listed, Schema, Text, Whole
from ..writing import dumped, listed
from . import tei
from .roles import with_role
from .tei import posted
from .tei_bodies import NUMBERS

GROUP = "Google"
CONTENT = Body("GoogleContent", [Key("parts", Listed(Body("GooglePart", [Key("text", Text())])))])
EMBED = Body(
    "GoogleEmbedRequest",
    [
        Key("content", CONTENT, says="one text: a part"),
        Key("taskType", Text(), None, "RETRIEVAL_QUERY, RETRIEVAL_DOCUMENT, or another use"),
        Key("task_type", Text(), None, "the same"),
        Key("outputDimensionality", Whole(), None, "first so many numbers of the vector; 0 for all"),
        Key("output_dimensionality", Whole(), None, "the same"),
        Key("title", Text(), None, "refused"),
    ],
)
BATCH = Body("GoogleBatchRequest", [Key("requests", Listed(EMBED))])
VALUES: Schema = {"type": "object", "properties": {"values": NUMBERS}, "required": ["values"]}
USAGE: Schema = {"type": "object", "properties": {"promptTokenCount": {"type": "integer"}}}
EMBED_ANSWER: Schema = {
    "type": "object",
    "properties": {"embedding": VALUES, "usageMetadata": USAGE},
    "required": ["embedding"],
}
BATCH_ANSWER: Schema = {
    "type": "object",
    "properties": {"embeddings": {"type": "array", "items": VALUES}, "usageMetadata": USAGE},
    "required": ["embeddings"],
}
# What Google calls a status of HTTP.
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(problem: ApiError) -> bytes:
    """Status, sentence and Google's word for the status."""
    about = {"code": problem.status, "message": problem.message, "status": STATUSES.get(problem.status, "INTERNAL")}
    return dumped({"error": about})


async def embed(exchange: Exchange, value: Any) -> bytes:
    """The vector of one text."""
    vectors = await _vectors(exchange, [checked(EMBED, value)], "")
    return dumped({"embedding": {"values": vectors[0]}, "usageMetadata": _usage(exchange)})


async def batch(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts, each with a use and a size of its own."""
    requests = checked(BATCH, value)["requests"]
    tei.not_empty(requests, "requests")
    vectors = await _vectors(exchange, requests, "requests")
    written = await listed(vectors, lambda some: dumped([{"values": vector} for vector in some]))
    return b'{"embeddings":' + written + b',"usageMetadata":' + dumped(_usage(exchange)) + b"}"


async def _vectors(exchange: Exchange, requests: Sequence[dict[str, Any]], name: str) -> list[Any]:
    served = exchange.find({"model": exchange.variable}, EMBEDDING)
    exchange.check_count(len(requests))
    texts = [_text(request, f"{name}[{k}]." if name else "") for k, request in enumerate(requests)]
    alike: dict[tuple[str | None, int | None], list[int]] = {}  # places of texts of one use and size
    for k, request in enumerate(requests):
        size = request["outputDimensionality"] or request["output_dimensionality"] or None
        alike.setdefault((request["taskType"] or request["task_type"], size), []).append(k)
    found = await asyncio.gather(
        *(
            exchange.run(
                served,
                [texts[k] for k in places],
                truncate_dim=size,
                **with_role(exchange, served, {"task": use}),
            )
            for (use, size), places in alike.items()
        )
    )
    vectors: list[Any] = [None] * len(texts)
    for places, some in zip(alike.values(), found, strict=True):
        for k, vector in zip(places, some, strict=True):
            vectors[k] = vector
    return vectors


def _text(request: dict[str, Any], place: str) -> str:
    """The text that a request is about, which is at `place` in the body."""
    if request["title"]:
        key = f"{place}title"
        raise ApiError("Validation", f"{key}: models here read a text alone; put the title into it", param=key)
    parts = request["content"]["parts"]
    if len(parts) != 1:
        key = f"{place}content.parts"
        raise ApiError("Validation", f"{key}: expected one part, a text, got {len(parts)}", param=key)
    text: str = parts[0]["text"]
    return text


def _usage(exchange: Exchange) -> dict[str, int]:
    return {"promptTokenCount": exchange.tokens}


def routes() -> list[Route]:
    """Of this dialect: under v1beta, and under v1, which its newest clients take."""
    return [
        Route(
            method="POST",
            path=f"/{version}/models/{{}}:{name}",
            handler=posted(answer),
            body=body,
            answer=shape,
            error=error,
            group=GROUP,
            says=says,
        )
        for version in ("v1beta", "v1")
        for name, answer, body, shape, says in (
            ("embedContent", embed, EMBED, EMBED_ANSWER, "The vector of one text"),
            ("batchEmbedContents", batch, BATCH, BATCH_ANSWER, "Vectors of texts"),
        )
    ]
