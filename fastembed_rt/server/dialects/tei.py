"""text-embeddings-inference: /embed and what belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from ...manifest import EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE
from ...vectors.dense import similarity
from ..errors import ApiError
from ..exchange import Exchange, Response, checked
from ..inputs import Given
from ..models import Served
from ..routes import Route
from ..writing import dumped, listed
from . import tei_bodies as bodies
from .roles import with_role
from .scores import best_first, shares

Answer = Callable[[Exchange, Any], Awaitable[bytes]]
GROUP = "text-embeddings-inference"


def posted(answer: Answer) -> Callable[[Exchange], Awaitable[Response]]:
    """A route's handler out of what answers a body."""

    async def handle(exchange: Exchange) -> Response:
        return Response(await answer(exchange, await exchange.json()))

    return handle


def cutting(body: dict[str, Any]) -> dict[str, Any]:
    """What a request says of texts that are too long, as options of a model."""
    policy = {None: None, True: "truncate", False: "error"}[body["truncate"]]
    return {"truncation": policy, "truncation_side": body["truncation_direction"]}


def not_empty(texts: Sequence[Any], name: str) -> None:
    """Raise ApiError where there are no texts."""
    if not texts:
        raise ApiError("Empty", f"`{name}` cannot be empty", param=name)


async def vectors_of(exchange: Exchange, served: Served, given: Given, *, name: str = "inputs", **options: Any) -> Any:
    """What an encoder makes of inputs: vectors (n, dim), or something for each."""
    not_empty(given.texts, name)
    return await exchange.run(served, given.texts, ids=given.ids, **options)


async def embed(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts."""
    body = checked(bodies.EMBED, value)
    served = exchange.find(body, EMBEDDING)
    vectors = await vectors_of(
        exchange,
        served,
        body["inputs"],
        normalize=body["normalize"],
        truncate_dim=body["dimensions"] or None,
        **with_role(exchange, served, body),
        **cutting(body),
    )
    return await listed(vectors)


async def embed_all(exchange: Exchange, value: Any) -> bytes:
    """Vectors of all tokens: an encoder's states, or what late interaction compares."""
    body = checked(bodies.EMBED_ALL, value)
    served = exchange.find(body, EMBEDDING, LATE_INTERACTION)
    options = with_role(exchange, served, body) | cutting(body)
    if served.task == LATE_INTERACTION:
        return await listed(await vectors_of(exchange, served, body["inputs"], **options), at_once=1)
    found = await vectors_of(exchange, served, body["inputs"], output="tokens", **options)
    return await listed([tokens.vectors for tokens in found], at_once=1)


async def embed_sparse(exchange: Exchange, value: Any) -> bytes:
    """Sparse vectors of texts."""
    body = checked(bodies.EMBED_ALL, value)
    served = exchange.find(body, SPARSE)
    options = with_role(exchange, served, body) | cutting(body)
    found = await vectors_of(exchange, served, body["inputs"], **options)
    return await listed(found, _pairs)


def _pairs(vectors: Sequence[Any]) -> bytes:
    """Sparse vectors as JSON: what is written at a time is all that stands in memory as objects."""
    pairs = [zip(vector.indices.tolist(), vector.values.tolist(), strict=True) for vector in vectors]
    return dumped([[{"index": index, "value": value} for index, value in pair] for pair in pairs])


async def predict(exchange: Exchange, value: Any) -> bytes:
    """Scores of pairs, the best label first."""
    body = checked(bodies.PREDICT, value)
    served = exchange.find(body, RERANKING)
    given = body["inputs"]
    not_empty(given.texts, "inputs")
    logits = await exchange.run(served, given.texts, **instructed(served, body), **cutting(body))
    scores = logits if body["raw_scores"] else shares(logits)
    labels = served.model.labels
    rows = [[{"score": row[k], "label": labels[k]} for k in best_first(row)] for row in scores]
    return dumped(rows[0] if given.single else rows)


async def rerank(exchange: Exchange, value: Any) -> bytes:
    """Texts by falling score to the query."""
    body = checked(bodies.RERANK, value)
    texts = body["texts"]
    not_empty(texts, "texts")
    served = exchange.find(body, RERANKING, LATE_INTERACTION)
    options = {**instructed(served, body), **cutting(body)}
    scores = await scores_of(exchange, served, body["query"], texts, raw=body["raw_scores"], **options)
    rows = [{"index": k, "score": scores[k]} for k in best_first(scores)]
    if body["return_text"]:
        rows = [{"index": row["index"], "text": texts[row["index"]], "score": row["score"]} for row in rows]
    return dumped(rows)


def instructed(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    """The prompt of a reranker, where the body has one."""
    given = {key.name: body[key.name] for key in bodies.INSTRUCTED if body[key.name] is not None}
    if given and served.task != RERANKING:
        name = next(iter(given))
        raise ApiError("Validation", f"{name}: model {served.name} is no reranker; leave it out", param=name)
    return given


async def scores_of(
    exchange: Exchange, served: Served, query: str, texts: Sequence[str], *, raw: bool, **options: Any
) -> np.ndarray[Any, Any]:
    """Scores (n,) of texts to a query: of a reranker between 0 and 1 unless `raw`, MaxSim as it is."""
    if served.task == LATE_INTERACTION:
        asked, documents = await asyncio.gather(
            exchange.run(served, [query], role="query", **options),
            exchange.run(served, texts, role="document", **options),
        )
        found: np.ndarray[Any, Any] = served.model.similarity(asked, documents)[0]
        return found
    labels = served.model.labels
    if len(labels) != 1:
        raise ApiError(
            "Validation", f"model {served.name} gives {len(labels)} scores a pair, so it has no order: POST /predict"
        )
    logits = await exchange.run(served, [(query, text) for text in texts], **options)
    scores: np.ndarray[Any, Any] = (logits if raw else shares(logits))[:, 0]
    return scores


async def similarities(exchange: Exchange, value: Any) -> bytes:
    """Cosines of sentences to one."""
    body = checked(bodies.SIMILARITY, value)
    inputs, parameters = body["inputs"], body["parameters"]
    if not inputs["sentences"]:
        raise ApiError("Empty", "`inputs.sentences` cannot be empty", param="inputs.sentences")
    served = exchange.find(body, EMBEDDING)
    texts = [inputs["source_sentence"], *inputs["sentences"]]
    vectors = await exchange.run(served, texts, **exchange.options(parameters), **cutting(parameters))
    return dumped(similarity("cosine", vectors[:1], vectors[1:])[0])


OWN = {EMBEDDING: embed, RERANKING: predict, SPARSE: embed_sparse, LATE_INTERACTION: embed_all}


async def own(exchange: Exchange, value: Any) -> bytes:
    """What the model is for: the route of its task, or what the body looks like."""
    if isinstance(value, dict):
        if "instances" in value:
            return await vertex(exchange, value)
        if "query" in value and "texts" in value:
            return await rerank(exchange, value)
        if isinstance(value.get("inputs"), dict):
            return await similarities(exchange, value)
    served = exchange.find(value if isinstance(value, dict) and isinstance(value.get("model"), str) else {})
    return await OWN[served.task](exchange, value)


async def vertex(exchange: Exchange, value: Any) -> bytes:
    """Several bodies of the model's own route in one."""
    instances = checked(bodies.VERTEX, value)["instances"]
    exchange.check_count(sum(map(_inputs, instances)))
    made = []
    for instance in instances:
        if not _nested(instance):
            made.append(await own(exchange, instance))
        exchange.check_time()
        await asyncio.sleep(0)  # what the cache has takes no time to wait for
    return b'{"predictions":[' + b",".join(made) + b"]}"


def _inputs(instance: Any) -> int:
    """How many inputs a body has: as many as its longest list."""
    lists = [value for value in instance.values() if isinstance(value, list)] if isinstance(instance, dict) else []
    return max(map(len, lists), default=1)


def _nested(instance: Any) -> bool:
    if isinstance(instance, dict) and "instances" in instance:
        raise ApiError("Validation", "instances: an instance holds instances", param="instances")
    return False


async def health(exchange: Exchange) -> Response:
    """200 once every model has answered, until the server drains."""
    await exchange.app.ready()
    return Response(b"{}")


async def alive(exchange: Exchange) -> Response:
    """200 as long as the process answers."""
    return Response(b"{}")


async def info(exchange: Exchange) -> Response:
    """The first model and the limits, under text-embeddings-inference's keys; all models in a list."""
    served = exchange.app.models.find(exchange.model)
    limits = exchange.app.limits
    about = served.about() | {
        "max_concurrent_requests": limits.max_concurrent_requests,
        "max_client_batch_size": limits.max_client_batch_size,
        "max_batch_requests": None,
        "auto_truncate": True,
        "tokenization_workers": served.model.threads,
        "version": exchange.app.version,
        "sha": None,
        "docker_label": None,
        "models": [other.about() for other in exchange.app.models.all],
    }
    return Response(dumped(about))


def routes() -> list[Route]:
    """Of this dialect."""
    made = [
        Route(method="POST", path=path, handler=posted(answer), body=body, answer=shape, group=GROUP, says=says)
        for path, answer, body, shape, says in (
            ("/embed", embed, bodies.EMBED, bodies.VECTORS, "Vectors of texts"),
            ("/embed_all", embed_all, bodies.EMBED_ALL, bodies.LISTED, "Vectors of all tokens of texts"),
            ("/embed_sparse", embed_sparse, bodies.EMBED_ALL, bodies.SPARSE, "Sparse vectors of texts"),
            ("/predict", predict, bodies.PREDICT, bodies.PREDICTIONS, "Scores of pairs of texts"),
            ("/similarity", similarities, bodies.SIMILARITY, bodies.NUMBERS, "Cosines of sentences to one"),
            ("/vertex", vertex, bodies.VERTEX, {}, "Several bodies in one, as Vertex AI sends them"),
            ("/", own, None, {}, "The route of the model's own task"),
            ("/invocations", own, None, {}, "The same, as SageMaker calls it"),
        )
    ]
    for path, handler, says in (
        ("/health", health, "200 when the models are ready"),
        ("/ping", health, "200 when the models are ready"),
        ("/", health, "200 when the models are ready"),
        ("/livez", alive, "200 as long as the process answers"),
    ):
        made.append(Route(method="GET", path=path, handler=handler, public=True, counted=False, group=GROUP, says=says))
    made.append(Route(method="GET", path="/info", handler=info, counted=False, group=GROUP, says="What is served"))
    return made
