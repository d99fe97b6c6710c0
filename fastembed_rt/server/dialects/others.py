"""Cohere's embed routes, vLLM's /pooling, /classify, and the feature extraction of Hugging Face's inference API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...manifest import EMBEDDING, LATE_INTERACTION, RERANKING
from ..errors import ApiError
from ..exchange import Exchange, Response, checked
from ..inputs import ENDS, Inputs, Pairs
from ..routes import Route
from ..schema import Body, Choice, Flag, Key, Listed, Schema, Text, Whole
from ..writing import VECTORS_AT_ONCE, dumped, listed
from . import tei
from .openai import CUTS, FORM, a_list, as_base64, as_bits, check_form, error, usage
from .roles import with_role
from .scores import best_first, shares
from .tei import posted, vectors_of
from .tei_bodies import CUTTING, MODEL, USE

PARTS = Listed(Body("CoherePart", [Key("type", Choice(("text",)), "text"), Key("text", Text())]))
COHERE_EMBED = Body(
    "CohereEmbedRequest",
    [
        Key("texts", Listed(Text()), None),
        Key("inputs", Listed(Body("CohereInput", [Key("content", PARTS)])), None, "instead of texts: a part each"),
        Key("model", Text(), None),
        *USE,
        Key("embedding_types", Listed(FORM), None),
        Key("output_dimension", Whole(), None, "first so many numbers of each vector; 0 for all"),
        Key("truncate", Choice(ENDS), "end", "where a text that is too long loses tokens; none: an error"),
    ],
)
POOLING = Body(
    "PoolingRequest",
    [
        Key("input", Inputs()),
        Key("model", Text(), None),
        Key("encoding_format", Choice(("float", "base64")), "float"),
        Key("dimensions", Whole(), None),
        *USE,
    ],
)
CLASSIFY = Body(
    "ClassifyRequest", [Key("input", Pairs()), Key("model", Text(), None), Key("raw_scores", Flag(), False)]
)
FEATURES = Body("FeatureExtractionRequest", [Key("inputs", Inputs()), *CUTTING, *USE, MODEL])
FEATURE_LISTS: Schema = {"type": "array", "items": {"type": "array", "items": {"type": "array"}}}


async def cohere_embed(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts, by type."""
    return await _cohere_embed(exchange, checked(COHERE_EMBED, value), "2")


async def cohere_embed_v1(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts: by type where types are named, else a list."""
    return await _cohere_embed(exchange, checked(COHERE_EMBED, value), "1")


async def _cohere_embed(exchange: Exchange, body: dict[str, Any], version: str) -> bytes:
    texts = _texts(body)
    served = exchange.find(body, EMBEDDING)
    types = list(dict.fromkeys(body["embedding_types"] or ["float"]))
    for name in types:
        check_form("embedding_types", name)
    vectors = await exchange.run(
        served,
        texts,
        truncate_dim=body["output_dimension"] or None,
        **CUTS[body["truncate"]],
        **with_role(exchange, served, body),
    )
    written: dict[str, Callable[[Any], Any]] = {
        "float": list,
        "base64": as_base64,
        "binary": as_bits("binary"),
        "ubinary": as_bits("ubinary"),
    }
    about = {
        "id": exchange.request_id,
        "texts": texts,
        "meta": {"api_version": {"version": version}, "billed_units": {"input_tokens": exchange.tokens}},
    }
    if version == "1" and not body["embedding_types"]:
        about["response_type"] = "embeddings_floats"
        return dumped(about)[:-1] + b',"embeddings":' + await listed(vectors) + b"}"
    made = []
    for name in types:
        make = written[name]
        made.append(dumped(name) + b":" + await listed(vectors, lambda some, make=make: dumped(make(some))))  # type: ignore[misc]
    about["response_type"] = "embeddings_by_type"
    return dumped(about)[:-1] + b',"embeddings":{' + b",".join(made) + b"}}"


def _texts(body: dict[str, Any]) -> list[str]:
    """Of Cohere's body, which has them in one of two places."""
    name = "texts" if body["inputs"] is None else "inputs"
    if body[name] is None:
        raise ApiError("Validation", "texts: is missing", param="texts")
    if name == "inputs" and body["texts"] is not None:
        raise ApiError("Validation", "inputs: texts are there too; send one of them", param=name)
    tei.not_empty(body[name], name)
    if name == "texts":
        return list(body["texts"])
    contents = [one["content"] for one in body["inputs"]]
    for k, parts in enumerate(contents):
        if len(parts) != 1:
            key = f"inputs[{k}].content"
            raise ApiError("Validation", f"{key}: expected one part, a text, got {len(parts)}", param=key)
    return [part["text"] for (part,) in contents]


async def pooling(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts, or of all their tokens where late interaction compares those."""
    body = checked(POOLING, value)
    served = exchange.find(body, EMBEDDING, LATE_INTERACTION)
    options = with_role(exchange, served, body)
    if served.task == EMBEDDING:
        options |= {"truncate_dim": body["dimensions"] or None}
    found = await vectors_of(exchange, served, body["input"], name="input", **options)
    encoded = as_base64 if body["encoding_format"] == "base64" else list
    at_once = VECTORS_AT_ONCE if served.task == EMBEDDING else 1
    made = await a_list("list", "pooling", encoded, found, served.name, exchange, key="data", at_once=at_once)
    return dumped({"id": exchange.request_id, "created": int(time.time())})[:-1] + b"," + made[1:]


async def classify(exchange: Exchange, value: Any) -> bytes:
    """Labels of pairs with their scores, the best first."""
    body = checked(CLASSIFY, value)
    served = exchange.find(body, RERANKING)
    tei.not_empty(body["input"].texts, "input")
    logits = await exchange.run(served, body["input"].texts)
    labels = served.model.labels
    scores: np.ndarray[Any, Any] = logits if body["raw_scores"] else shares(logits)
    data = [[{"score": row[k], "label": labels[k]} for k in best_first(row)] for row in scores]
    about = {"id": exchange.request_id, "object": "classify", "created": int(time.time()), "model": served.name}
    return dumped({**about, "data": data, "usage": usage(exchange)})


async def features(exchange: Exchange) -> Response:
    """Each text's vector as the only row of its tokens' features."""
    body = checked(FEATURES, await exchange.json())
    served = exchange.app.models.find(exchange.variable, (EMBEDDING,))
    options = with_role(exchange, served, body) | tei.cutting(body)
    vectors = await vectors_of(exchange, served, body["inputs"], **options)
    return Response(await listed(vectors[:, None, :]))


def routes() -> list[Route]:
    """Of these dialects."""
    made = [
        Route(method="POST", path=path, handler=posted(answer), body=body, error=error, group=group, says=says)
        for path, answer, body, group, says in (
            ("/v2/embed", cohere_embed, COHERE_EMBED, "Cohere", "Vectors of texts"),
            ("/v1/embed", cohere_embed_v1, COHERE_EMBED, "Cohere", "Vectors of texts, as its first API has them"),
            ("/pooling", pooling, POOLING, "vLLM", "Vectors of texts or of their tokens"),
            ("/classify", classify, CLASSIFY, "infinity", "Labels of pairs of texts"),
        )
    ]
    return [
        *made,
        Route(
            method="POST",
            path="/pipeline/feature-extraction/{}",
            handler=features,
            body=FEATURES,
            answer=FEATURE_LISTS,
            group="Hugging Face",
            says="Vectors of texts, as Semantic Kernel reads them",
        ),
    ]
