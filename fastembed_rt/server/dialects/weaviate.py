"""What Weaviate's modules text2vec-transformers and reranker-transformers ask their containers; they send no key."""

from __future__ import annotations

from typing import Any

from ...manifest import EMBEDDING, LATE_INTERACTION, RERANKING
from ..errors import ApiError
from ..exchange import Exchange, checked
from ..inputs import Documents
from ..routes import Route
from ..schema import Body, Choice, Key, Listed, Schema, Text, Whole
from ..writing import dumped, listed
from . import tei
from .roles import with_role
from .tei import alive, health, info, posted, scores_of
from .tei_bodies import NUMBERS, VECTORS

GROUP = "Weaviate"
CONFIG = Body(
    "WeaviateConfig",
    [
        Key("task_type", Text(), None, "query, or passage"),
        Key("dimensions", Whole(), None, "first so many numbers of the vector; 0 for all"),
        Key("pooling_strategy", Choice(("masked_mean", "cls")), None, "masked_mean: the model's own; cls: if that is"),
    ],
)
EMBED = Body(
    "WeaviateVectorsRequest",
    [
        Key("text", Text(), None, "one text"),
        Key("texts", Listed(Text()), None, "or several"),
        Key("config", CONFIG, CONFIG.check({})),
    ],
)
RANK = Body("WeaviateRankRequest", [Key("query", Text()), Key("documents", Documents())])
ANSWER: Schema = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"text": {"type": "string"}, "vector": NUMBERS, "dim": {"type": "integer"}},
            "required": ["text", "vector", "dim"],
        },
        {
            "type": "object",
            "properties": {"vectors": VECTORS, "dims": {"type": "integer"}},
            "required": ["vectors", "dims"],
        },
    ]
}
SCORES: Schema = {
    "type": "object",
    "properties": {
        "query": {"type": "string"},
        "scores": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"document": {"type": "string"}, "score": {"type": "number"}},
                "required": ["document", "score"],
            },
        },
    },
    "required": ["query", "scores"],
}


async def embed(exchange: Exchange, value: Any) -> bytes:
    """The vector of a text, or vectors of several."""
    body = checked(EMBED, value)
    text, texts, config = body["text"], body["texts"], body["config"]
    if texts is None and text is None:
        raise ApiError("Validation", "text: is missing", param="text")
    served = exchange.find(body, EMBEDDING)
    pooling = served.model.manifest.pooling
    if config["pooling_strategy"] == "cls" and pooling != ("cls",):
        raise ApiError(
            "Validation",
            f"config.pooling_strategy: model {served.name} pools by {', '.join(pooling) or 'its own rule'}",
            param="config.pooling_strategy",
        )
    if texts is not None:
        tei.not_empty(texts, "texts")
    use = {"task": config["task_type"]}
    vectors = await exchange.run(
        served,
        [text] if texts is None else texts,
        truncate_dim=config["dimensions"] or None,
        **with_role(exchange, served, use),
    )
    width = vectors.shape[1]
    if texts is None:
        return dumped({"text": text, "vector": vectors[0], "dim": width})
    return b'{"dims":' + dumped(width) + b',"vectors":' + await listed(vectors) + b"}"


async def rank(exchange: Exchange, value: Any) -> bytes:
    """Scores of documents in the order in which they came, by which Weaviate tells them apart."""
    body = checked(RANK, value)
    texts = [text for text, _ in body["documents"]]
    tei.not_empty(texts, "documents")
    served = exchange.find(body, RERANKING, LATE_INTERACTION)
    scores = await scores_of(exchange, served, body["query"], texts, raw=False)
    pairs = zip(texts, scores, strict=True)
    return dumped({"query": body["query"], "scores": [{"document": text, "score": score} for text, score in pairs]})


def routes() -> list[Route]:
    """Of this dialect, but for /rerank, which others have too."""
    made = [
        Route(
            method="POST",
            path="/vectors",
            handler=posted(embed),
            body=EMBED,
            answer=ANSWER,
            group=GROUP,
            says="The vector of a text, or of several",
        ),
        Route(method="GET", path="/meta", handler=info, counted=False, group=GROUP, says="What is served"),
    ]
    for path, handler, says in (
        ("/.well-known/ready", health, "200 when the models are ready"),
        ("/.well-known/live", alive, "200 as long as the process answers"),
    ):
        made.append(Route(method="GET", path=path, handler=handler, public=True, counted=False, group=GROUP, says=says))
    return made
