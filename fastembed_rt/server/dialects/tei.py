"""text-embeddings-inference: /embed and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ApiError
from ..exchange import Exchange, Response, dumped, listed
from ..inputs import Given, Inputs
from ..models import Served
from ..routes import Route
from ..schema import Body, Choice, Flag, Key, Schema, Text, Whole

SIDES = Choice(("right", "left"))
TRUNCATE = Key("truncate", Flag(), None, "cut texts over the model's length; false makes them an error")
SIDE = Key("truncation_direction", SIDES, None, "where a text that is too long loses tokens")
PROMPT = Key("prompt_name", Text(), None, "the model's prompt that stands in front of the texts")
MODEL = Key("model", Text(), None, "where several models are served; the first of the task answers otherwise")
INPUTS = Key("inputs", Inputs())
EMBED = Body(
    "EmbedRequest",
    [
        INPUTS,
        TRUNCATE,
        SIDE,
        PROMPT,
        Key("normalize", Flag(), True, "vectors of length 1"),
        Key("dimensions", Whole(), None, "first so many numbers of each vector (Matryoshka); 0 for all"),
        MODEL,
    ],
)
VECTORS: Schema = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}


def cutting(body: dict[str, Any]) -> dict[str, Any]:
    """What a request says of texts that are too long, as options of a model."""
    policy = {None: None, True: "truncate", False: "error"}[body["truncate"]]
    return {"truncation": policy, "truncation_side": body["truncation_direction"]}


def not_empty(texts: Sequence[Any], name: str) -> None:
    """Raise ApiError where there are no texts."""
    if not texts:
        raise ApiError("Empty", f"`{name}` cannot be empty", param=name)


async def vectors_of(
    exchange: Exchange, served: Served, given: Given, *, name: str = "inputs", **options: Any
) -> np.ndarray[Any, Any]:
    """Vectors (n, dim) of inputs."""
    not_empty(given.texts, name)
    made: np.ndarray[Any, Any] = await exchange.run(served, given.texts, **options)
    return made


async def embed(exchange: Exchange) -> Response:
    """Vectors of texts."""
    body = await exchange.body(EMBED)
    served = exchange.find(body, "embedding")
    vectors = await vectors_of(
        exchange,
        served,
        body["inputs"],
        normalize=body["normalize"],
        truncate_dim=body["dimensions"] or None,
        **exchange.options(body),
        **cutting(body),
    )
    return Response(await listed(vectors))


async def health(exchange: Exchange) -> Response:
    """200 once every model has answered, until the server drains."""
    exchange.app.check_ready()
    return Response(b"{}")


async def ping(exchange: Exchange) -> Response:
    """200 as long as the process answers."""
    return Response(b"{}")


def routes() -> list[Route]:
    """Of this dialect."""
    group = "text-embeddings-inference"
    return [
        Route(method="POST", path="/embed", handler=embed, body=EMBED, answer=VECTORS, group=group, says="Vectors"),
        Route(method="GET", path="/health", handler=health, public=True, counted=False, group=group, says="Readiness"),
        Route(method="GET", path="/ping", handler=health, public=True, counted=False, group=group, says="Readiness"),
        Route(method="GET", path="/livez", handler=ping, public=True, counted=False, group=group, says="Liveness"),
    ]


__all__ = ["dumped", "routes"]
