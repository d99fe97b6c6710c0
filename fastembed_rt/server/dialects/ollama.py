"""Ollama: /api/embed, /api/embeddings, and what its clients ask before they send texts.

`options` and `keep_alive` are not looked at: a model's length and its place in memory are those that it is served with.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Any

from ...manifest import EMBEDDING
from ..errors import ApiError
from ..exchange import Exchange, Response, checked
from ..inputs import Texts
from ..models import Served
from ..routes import Route
from ..schema import Anything, Body, Flag, Key, Schema, Text, Whole
from ..writing import dumped, listed
from .roles import with_role
from .tei import posted
from .tei_bodies import USE, VECTORS

LATEST = ":latest"  # the tag of a name that was given none
NAMED = [Key("model", Text(), None), Key("name", Text(), None, "what older clients call `model`")]
UNREAD = [Key("options", Anything(), None, "not looked at"), Key("keep_alive", Anything(), None, "not looked at")]
EMBED = Body(
    "OllamaEmbedRequest",
    [
        Key("input", Texts()),
        *NAMED,
        Key("truncate", Flag(), True, "cut texts over the model's length; false makes them an error"),
        Key("dimensions", Whole(), None, "first so many numbers of each vector (Matryoshka); 0 for all"),
        *USE,
        *UNREAD,
    ],
)
EMBEDDINGS = Body("OllamaEmbeddingsRequest", [Key("prompt", Text(), None), *NAMED, *USE, *UNREAD])
SHOW = Body("OllamaShowRequest", NAMED)
PULL = Body("OllamaPullRequest", [*NAMED, Key("stream", Flag(), True, "not looked at")])
EMBED_ANSWER: Schema = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "embeddings": VECTORS,
        "total_duration": {"type": "integer"},
        "load_duration": {"type": "integer"},
        "prompt_eval_count": {"type": "integer"},
    },
    "required": ["model", "embeddings"],
}


def error(problem: ApiError) -> bytes:
    """One key with the sentence, as Ollama has it."""
    return dumped({"error": problem.message})


def find(exchange: Exchange, body: dict[str, Any]) -> Served:
    """The model that is meant, with or without the tag that Ollama puts behind a name without one."""
    name = body["model"] or body["name"]
    if name and not exchange.app.models.known(name):
        name = name.removesuffix(LATEST)
    return exchange.find({"model": name}, EMBEDDING)


async def embed(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts; of no texts none, by which clients ask whether the model is there."""
    body = checked(EMBED, value)
    served = find(exchange, body)
    texts = body["input"].texts
    vectors: Any = []
    if texts:
        vectors = await exchange.run(
            served,
            texts,
            truncate_dim=body["dimensions"] or None,
            truncation="truncate" if body["truncate"] else "error",
            **with_role(exchange, served, body),
        )
    about = {
        "model": body["model"] or body["name"] or served.name,
        "total_duration": int((time.monotonic() - exchange.began) * 1e9),
        "load_duration": 0,
        "prompt_eval_count": exchange.tokens,
    }
    return dumped(about)[:-1] + b',"embeddings":' + await listed(vectors) + b"}"


async def embeddings(exchange: Exchange, value: Any) -> bytes:
    """The vector of one text, as the first clients have it; none without a text."""
    body = checked(EMBEDDINGS, value)
    served = find(exchange, body)
    if body["prompt"] is None:
        return dumped({"embedding": []})
    vectors = await exchange.run(served, [body["prompt"]], truncation="truncate", **with_role(exchange, served, body))
    return dumped({"embedding": vectors[0]})


async def tags(exchange: Exchange) -> Response:
    """The encoders that are served."""
    return Response(dumped({"models": [_entry(exchange, served) for served in _encoders(exchange)]}))


async def running(exchange: Exchange) -> Response:
    """The same, each of which is in memory as long as the server runs."""
    models = [
        {**_entry(exchange, served), "expires_at": "9999-12-31T23:59:59Z", "size_vram": 0}
        for served in _encoders(exchange)
    ]
    return Response(dumped({"models": models}))


async def version(exchange: Exchange) -> Response:
    """This server's."""
    return Response(dumped({"version": exchange.app.version}))


async def show(exchange: Exchange, value: Any) -> bytes:
    """Size of a model's vectors and the tokens that it reads, under Ollama's names."""
    served = find(exchange, checked(SHOW, value))
    model = served.model
    kind = model.manifest.source.model_type
    info = {
        "general.architecture": kind,
        f"{kind}.context_length": model.max_length,
        f"{kind}.embedding_length": model.dim,
    }
    about = {"modelfile": "", "parameters": "", "template": "", "details": _details(served), "model_info": info}
    return dumped({**about, "capabilities": ["embedding"], "modified_at": _since(exchange)})


async def pull(exchange: Exchange) -> Response:
    """Success where the model is served: nothing is fetched. A line a step, of which there is one, streamed or not."""
    find(exchange, checked(PULL, await exchange.json()))
    return Response(dumped({"status": "success"}) + b"\n", content_type=b"application/x-ndjson")


def _encoders(exchange: Exchange) -> list[Served]:
    return [served for served in exchange.app.models.all if served.task == EMBEDDING]


def _entry(exchange: Exchange, served: Served) -> dict[str, Any]:
    name = served.name if ":" in served.name else served.name + LATEST
    return {
        "name": name,
        "model": name,
        "modified_at": _since(exchange),
        "size": sum(file.size for file in served.model.variant.files),
        "digest": hashlib.sha256(served.identity.encode()).hexdigest(),
        "details": _details(served),
    }


def _details(served: Served) -> dict[str, Any]:
    kind = served.model.manifest.source.model_type
    return {
        "parent_model": "",
        "format": "onnx",
        "family": kind,
        "families": [kind],
        "parameter_size": "",
        "quantization_level": served.model.precision.upper(),
    }


def _since(exchange: Exchange) -> str:
    return datetime.fromtimestamp(exchange.app.started, UTC).isoformat().replace("+00:00", "Z")


def routes() -> list[Route]:
    """Of this dialect."""
    made = [
        Route(
            method="POST",
            path=path,
            handler=posted(answer),
            body=body,
            answer=schema,
            error=error,
            counted=counted,
            group="Ollama",
            says=says,
        )
        for path, answer, body, schema, counted, says in (
            ("/api/embed", embed, EMBED, EMBED_ANSWER, True, "Vectors of texts"),
            ("/api/embeddings", embeddings, EMBEDDINGS, {"type": "object"}, True, "The vector of one text"),
            ("/api/show", show, SHOW, {"type": "object"}, False, "What a model is"),
        )
    ]
    made.append(
        Route(
            method="POST",
            path="/api/pull",
            handler=pull,
            body=PULL,
            answer={"type": "object"},
            answer_type="application/x-ndjson",
            error=error,
            counted=False,
            group="Ollama",
            says="Whether a model is served",
        )
    )
    for path, handler, says in (
        ("/api/tags", tags, "The encoders that are served"),
        ("/api/ps", running, "The same"),
        ("/api/version", version, "This server's version"),
    ):
        made.append(
            Route(
                method="GET",
                path=path,
                handler=handler,
                answer={"type": "object"},
                error=error,
                counted=False,
                group="Ollama",
                says=says,
            )
        )
    return made
