"""Rerank as Cohere, Jina, vLLM, infinity and NVIDIA have it; scores of pairs as vLLM has them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from ...manifest import EMBEDDING, LATE_INTERACTION, RERANKING
from ..errors import ApiError
from ..exchange import Exchange, checked
from ..inputs import Cut, Documents, Texts
from ..models import Served
from ..routes import Route
from ..schema import Anything, Body, Flag, Key, Listed, Schema, Text, Whole
from ..writing import dumped
from . import tei, tei_bodies, weaviate
from .openai import CUTS, error, usage
from .scores import best_first, shares
from .tei import posted, scores_of

RERANK = Body(
    "RankRequest",
    [
        Key("query", Text("What is deep learning?")),
        Key("documents", Documents()),
        Key("model", Text(), None),
        Key("top_n", Whole(), None, "only the best so many; 0 for all"),
        Key("top_k", Whole(), None, "the same, of Voyage's clients"),
        Key("truncation", Flag(), None, "of Voyage's clients: false makes a text over the model's length an error"),
        Key("return_documents", Flag(), None, "the documents beside their scores"),
        Key("raw_scores", Flag(), False, "logits instead of numbers between 0 and 1"),
        *tei_bodies.INSTRUCTED,
        Key("max_tokens_per_doc", Anything(), None, "not looked at: the model's length holds"),
    ],
)
EXTRA = ("top_n", "top_k", "truncation", "return_documents", "max_tokens_per_doc")  # with documents alone
EITHER = Body(
    "AnyRerankRequest",
    [
        Key("query", Text("What is deep learning?")),
        Key("texts", Listed(Text()), None),
        Key("documents", Documents(), None),
        *(key for key in tei_bodies.RERANK.keys if key.name not in ("query", "texts")),
        *(key for key in RERANK.keys if key.name in EXTRA),
        Key("property", Text(), None, "of Weaviate's: scores in the documents' order"),
    ],
    "with `texts` as text-embeddings-inference has it, with `documents` as Cohere, Jina, vLLM and infinity do",
)
RESULT: Schema = {
    "type": "object",
    "properties": {
        "index": {"type": "integer"},
        "relevance_score": {"type": "number"},
        "document": {"anyOf": [{"type": "object", "properties": {"text": {"type": "string"}}}, {"type": "string"}]},
    },
    "required": ["index", "relevance_score"],
}
RANKED: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "results": {"type": "array", "items": RESULT},
        "data": {"type": "array", "items": RESULT},
        "usage": {"type": "object"},
        "meta": {"type": "object"},
    },
    "required": ["id", "model", "results"],
}
RANKING = Body(
    "NvidiaRankingRequest",
    [
        Key("query", Body("RankingQuery", [Key("text", Text("What is deep learning?"))])),
        Key(
            "passages",
            Listed(Body("RankingPassage", [Key("text", Text()), Key("image", Anything(), None, "refused")]), least=1),
        ),
        Key("model", Text(), None),
        Key("truncate", Cut(), None, "which end a text over the model's length loses; none: an error"),
    ],
)
RANKINGS: Schema = {
    "type": "object",
    "properties": {
        "rankings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"index": {"type": "integer"}, "logit": {"type": "number"}},
                "required": ["index", "logit"],
            },
        },
        "usage": {"type": "object"},
    },
    "required": ["rankings"],
}
SCORE = Body(
    "ScoreRequest",
    [
        Key("text_1", Texts(), None),
        Key("text_2", Texts(), None),
        Key("queries", Texts(), None, "instead of text_1"),
        Key("documents", Texts(), None, "instead of text_2"),
        *tei_bodies.INSTRUCTED,
        Key("model", Text(), None),
    ],
)


async def rerank(exchange: Exchange, value: Any) -> bytes:
    """Documents by falling score to the query."""
    body = checked(RERANK, value)
    texts = [text for text, _ in body["documents"]]
    tei.not_empty(texts, "documents")
    served = exchange.find(body, RERANKING, LATE_INTERACTION)
    options = tei.instructed(served, body) | ({"truncation": "error"} if body["truncation"] is False else {})
    scores = await scores_of(exchange, served, body["query"], texts, raw=body["raw_scores"], **options)
    # infinity's are strings where others' are objects; of the clients that send documents only its own has raw_scores.
    plain = exchange.infinity or "raw_scores" in value
    results = []
    for k in best_first(scores)[: body["top_n"] or body["top_k"] or None]:
        result: dict[str, Any] = {"index": k, "relevance_score": scores[k]}
        if body["return_documents"]:
            text, document = body["documents"][k]
            result["document"] = text if plain else document
        results.append(result)
    about = {
        "id": exchange.request_id,
        "object": "rerank",
        "created": int(time.time()),
        "model": served.name,
        "results": results,
        "usage": usage(exchange),
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }
    if "top_k" in value or "truncation" in value:  # Voyage's clients, which send both, look for another name
        about["data"] = results
    return dumped(about)


async def ranking(exchange: Exchange, value: Any) -> bytes:
    """NVIDIA's: passages by falling logit."""
    body = checked(RANKING, value)
    for k, passage in enumerate(body["passages"]):
        if passage["image"] is not None:
            place = f"passages.{k}.image"
            raise ApiError("Validation", f"{place}: the models here read texts alone; leave it out", param=place)
    texts = [passage["text"] for passage in body["passages"]]
    tei.not_empty(texts, "passages")
    served = exchange.find(body, RERANKING, LATE_INTERACTION)
    scores = await scores_of(exchange, served, body["query"]["text"], texts, raw=True, **CUTS[body["truncate"]])
    rankings = [{"index": k, "logit": scores[k]} for k in best_first(scores)]
    return dumped({"rankings": rankings, "usage": usage(exchange)})


async def either(exchange: Exchange, value: Any) -> bytes:
    """By what the body holds: texts, or documents; of Weaviate's a property, too."""
    if not isinstance(value, dict) or "documents" not in value or "texts" in value:
        return await tei.rerank(exchange, value)
    return await (weaviate.rank if "property" in value else rerank)(exchange, value)


async def score(exchange: Exchange, value: Any) -> bytes:
    """Scores of pairs: of one text with each of several, or of several with as many."""
    body = checked(SCORE, value)
    sides = []
    for first, second in (("text_1", "queries"), ("text_2", "documents")):
        given = body[first] or body[second]
        if given is None:
            raise ApiError("Validation", f"{first}: is missing", param=first)
        tei.not_empty(given.texts, first)
        sides.append(given.texts)
    left, right = sides
    if len(left) not in (1, len(right)):
        raise ApiError("Validation", f"text_1: {len(left)} texts for {len(right)}; send one, or as many as text_2 has")
    left = left * len(right) if len(left) == 1 else left
    served = exchange.find(body, RERANKING, EMBEDDING, LATE_INTERACTION)
    scores = await _scores(exchange, served, left, right, tei.instructed(served, body))
    data = [{"index": k, "object": "score", "score": found} for k, found in enumerate(scores)]
    about = {"id": exchange.request_id, "object": "list", "created": int(time.time()), "model": served.name}
    return dumped({**about, "data": data, "usage": usage(exchange)})


async def _scores(
    exchange: Exchange, served: Served, left: list[str], right: list[str], options: dict[str, Any]
) -> list[float]:
    """Of a reranker between 0 and 1, of an embedding model cosines, of late interaction MaxSim."""
    if served.task == RERANKING:
        logits = await exchange.run(served, list(zip(left, right, strict=True)), **options)
        if logits.shape[1] != 1:
            raise ApiError("Validation", f"model {served.name} gives several scores a pair: POST /predict")
        rows: list[float] = shares(logits)[:, 0].tolist()
        return rows
    sides = [*dict.fromkeys(left)]
    queries, documents = await asyncio.gather(
        exchange.run(served, sides, role="query"), exchange.run(served, right, role="document")
    )
    place = {text: k for k, text in enumerate(sides)}
    if served.task == LATE_INTERACTION:
        similarity = served.model.similarity
        return [float(similarity(queries[place[text]], documents[k])[0, 0]) for k, text in enumerate(left)]
    a, b = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (queries, documents))
    cosines: list[float] = np.einsum("ij,ij->i", a[[place[text] for text in left]], b).tolist()
    return cosines


def routes() -> list[Route]:
    """Of this dialect."""
    group = "Ranking"
    return [
        Route(
            method="POST",
            path="/rerank",
            handler=posted(either),
            body=EITHER,
            answer={"anyOf": [RANKED, tei_bodies.RANKS, weaviate.SCORES]},
            group=group,
            says="Texts or documents by their score to a query",
        ),
        *(
            Route(
                method="POST",
                path=path,
                handler=posted(rerank),
                body=RERANK,
                answer=RANKED,
                error=error,
                group=group,
                says="Documents by their score to a query",
            )
            for path in ("/v1/rerank", "/v2/rerank")
        ),
        Route(
            method="POST",
            path="/v1/ranking",
            handler=posted(ranking),
            body=RANKING,
            answer=RANKINGS,
            error=error,
            group=group,
            says="Passages by their logit for a query",
        ),
        *(
            Route(
                method="POST",
                path=path,
                handler=posted(score),
                body=SCORE,
                error=error,
                group=group,
                says="Scores of pairs of texts",
            )
            for path in ("/score", "/v1/score")
        ),
    ]
