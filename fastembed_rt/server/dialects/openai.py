"""OpenAI: /v1/embeddings and /v1/models."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...manifest import EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE
from ...vectors import quantized
from ..errors import ApiError
from ..exchange import Exchange, Response, checked
from ..inputs import Cut, InputsOrObjects
from ..routes import Route
from ..schema import Anything, Body, Choice, Flag, Key, Schema, Text, Whole
from ..writing import VECTORS_AT_ONCE, dumped, listed
from .roles import TASK, with_role
from .tei import posted, vectors_of
from .tei_bodies import NUMBERS, USE

RANGED = ("int8", "uint8")
FORM = Choice(("float", "base64", "binary", "ubinary", *RANGED))
CUTS: dict[str | None, dict[str, str | None]] = {  # as options of a model
    None: {"truncation": None, "truncation_side": None},
    "none": {"truncation": "error", "truncation_side": None},
    "end": {"truncation": "truncate", "truncation_side": "right"},
    "start": {"truncation": "truncate", "truncation_side": "left"},
}
EMBEDDINGS = Body(
    "EmbeddingsRequest",
    [
        Key("input", InputsOrObjects()),
        Key("model", Text(), None),
        Key("encoding_format", Choice(("float", "base64")), "float", "base64: of float32, little endian"),
        Key("embedding_type", FORM, None, "the same, of Jina's clients"),
        Key("output_dtype", FORM, None, "the same, of Voyage's and Mistral's clients"),
        Key("dimensions", Whole(), None, "first so many numbers of each vector; 0 and null for all"),
        Key("output_dimension", Whole(), None, "the same, of Voyage's and Mistral's clients"),
        Key("truncate", Cut(), None, "which end a text over the model's length loses; false, none: an error"),
        Key("truncation", Flag(), None, "the same, of Voyage's clients"),
        Key("normalized", Flag(), None, "whether vectors have length 1; of Jina's clients"),
        Key("late_chunking", Flag(), False, "refused: a vector would depend on the texts beside it"),
        Key("user", Anything(), None, "not looked at"),
        *USE,
        TASK,
    ],
)
EMBEDDING_ENTRY: Schema = {
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
        "id": {"type": "string"},
        "object": {"const": "list"},
        "data": {"type": "array", "items": EMBEDDING_ENTRY},
        "model": {"type": "string"},
        "usage": USAGE,
    },
    "required": ["object", "data", "model", "usage"],
}


CAPABILITIES = {EMBEDDING: ["embed"], RERANKING: ["rerank", "classify"], SPARSE: [], LATE_INTERACTION: ["rerank"]}


def error(problem: ApiError) -> bytes:
    """OpenAI's shape, and beside it text-embeddings-inference's keys on these routes, and Jina's `detail`."""
    about = {"message": problem.message, "type": problem.openai_type, "param": problem.param, "code": problem.kind}
    beside = {"message": problem.message, "type": problem.kind, "code": problem.status, "detail": problem.message}
    return dumped({"error": about, **beside})


async def embeddings(exchange: Exchange, value: Any) -> bytes:
    """Vectors of texts."""
    body = checked(EMBEDDINGS, value)
    served = exchange.find(body, EMBEDDING)
    form = _form(body)
    if body["late_chunking"]:
        what = "a vector would depend on the texts beside it; send each text as it is, without late chunking"
        raise ApiError("Validation", f"late_chunking: {what}", param="late_chunking")
    vectors = await vectors_of(
        exchange,
        served,
        body["input"],
        name="input",
        normalize=body["normalized"],
        truncate_dim=body["dimensions"] or body["output_dimension"] or None,
        **CUTS["none" if body["truncation"] is False else body["truncate"]],
        **with_role(exchange, served, body),
    )
    encoded = as_bits(form) if form.endswith("binary") else as_base64 if form == "base64" else list
    made = await a_list("list", "embedding", encoded, vectors, served.name, exchange)
    return dumped({"id": exchange.request_id})[:-1] + b"," + made[1:]  # which Mistral's clients want


def _form(body: dict[str, Any]) -> str:
    """How vectors are written. Bits are numbers whatever `encoding_format` says: clients take a string for float32."""
    for key in ("embedding_type", "output_dtype"):
        check_form(key, body[key])
    kind = body["output_dtype"]
    form: str = body["embedding_type"] or (None if kind == "float" else kind) or body["encoding_format"]
    return form


def check_form(key: str, form: str | None) -> None:
    """Raise ApiError for whole numbers of a range."""
    if form in RANGED:
        raise ApiError(
            "Validation",
            f"{key}: {form} needs ranges of the numbers, which a single request does not have; ask for float, base64, "
            "binary or ubinary",
            param=key,
        )


async def a_list(
    kind: str,
    entry: str,
    encoded: Callable[[Any], Sequence[Any]],
    values: Sequence[Any],
    model: str,
    exchange: Exchange,
    key: str = "",
    at_once: int = VECTORS_AT_ONCE,
) -> bytes:
    """A list of numbered entries as OpenAI has it; `key` is the entries' own, where it is not their kind.

    `at_once` of them are written between two looks at other connections.
    """
    if len(values) <= at_once:
        rows = [{"object": entry, key or entry: made, "index": k} for k, made in enumerate(encoded(values))]
        return dumped({"object": kind, "data": rows, "model": model, "usage": usage(exchange)})
    start = 0

    def entries(some: Sequence[Any]) -> bytes:
        nonlocal start
        written = [{"object": entry, key or entry: made, "index": start + k} for k, made in enumerate(encoded(some))]
        start += len(some)
        return dumped(written)

    data = await listed(values, entries, at_once)
    used = dumped(usage(exchange))
    return b'{"object":' + dumped(kind) + b',"data":' + data + b',"model":' + dumped(model) + b',"usage":' + used + b"}"


def usage(exchange: Exchange) -> dict[str, int]:
    """Tokens of a request, as they ran."""
    tokens = exchange.tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def as_base64(vectors: Sequence[np.ndarray[Any, Any]] | np.ndarray[Any, Any]) -> list[str]:
    """Vectors (n, dim) as float32, little endian, in base64."""
    return [
        binascii.b2a_base64(np.ascontiguousarray(vector, dtype="<f4").data, newline=False).decode("ascii")
        for vector in vectors
    ]


def as_bits(form: str) -> Callable[[Any], list[list[int]]]:
    """What makes of vectors (n, dim) rows of dim / 8 whole numbers, a bit for each number that is above 0.

    `form` is binary (-128 to 127) or ubinary (0 to 255).
    """

    def made(vectors: Any) -> list[list[int]]:
        given = np.asarray(vectors)
        rows: list[list[int]] = quantized.form(form, given.shape[1])(given).tolist()
        return rows

    return made


async def models(exchange: Exchange) -> Response:
    """What is served."""
    return Response(dumped({"object": "list", "data": [entry(exchange, name) for name in exchange.app.names]}))


async def infinity_models(exchange: Exchange) -> Response:
    """The same for infinity's client, which refuses an entry without `stats` and another owner."""
    data = []
    for name in exchange.app.names:
        served = exchange.app.models.find(name)
        about = {"owned_by": "infinity", "backend": served.model.target, "capabilities": CAPABILITIES[served.task]}
        data.append({**entry(exchange, name), **about, "stats": {}})
    return Response(dumped({"object": "list", "data": data}))


async def model(exchange: Exchange) -> Response:
    """One of them."""
    return Response(dumped(entry(exchange, exchange.app.models.find(exchange.variable).name)))


def entry(exchange: Exchange, name: str) -> dict[str, Any]:
    """What the list says of a model."""
    task = exchange.app.models.find(name).task
    return {"id": name, "object": "model", "created": exchange.app.started, "owned_by": "fastembed-rt", "task": task}


def routes() -> list[Route]:
    """Of this dialect."""
    made = [
        Route(
            method="POST",
            path=path,
            handler=posted(embeddings),
            body=EMBEDDINGS,
            answer=ANSWER,
            error=error,
            group="OpenAI",
            says="Vectors of texts",
        )
        for path in ("/v1/embeddings", "/embeddings")
    ]
    for path, handler, says in (
        ("/v1/models", models, "What is served"),
        ("/models", infinity_models, "What is served, as infinity says it"),
        ("/v1/models/{}", model, "One model"),
    ):
        made.append(
            Route(method="GET", path=path, handler=handler, error=error, counted=False, group="OpenAI", says=says)
        )
    return made
