"""The tools, with the bounds of what they take, on the official SDK; over stdio or HTTP on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

from ... import EmbeddingModel, Reranker, __version__
from ...errors import FastembedRtError, InvalidInputError
from ..opening import needs
from . import stdio
from .folder import Folder, Found

with needs("mcp", "mcp"):
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp_types import ToolAnnotations
    from pydantic import Field

__all__ = ["make_server", "serve"]
MOST_TEXTS, MOST_CHARACTERS, MOST_IN_ALL, MOST_HITS = 256, 100_000, 1_000_000, 100
INSTRUCTIONS = (
    "Meaning of texts as vectors, computed on this machine. Use similarity and rerank to compare texts; embed only "
    "where the numbers themselves are wanted."
)
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
Best = Annotated[int, Field(ge=1, le=MOST_HITS)]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What embed gives."""

    dim: int
    vectors: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """What similarity gives: a row for each text on the left, a number in it for each on the right."""

    function: str
    scores: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A document in the order of relevance."""

    index: int
    score: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What rerank gives."""

    documents: list[Ranked]
    scored_by: str  # "reranker" or "vectors"


def make_server(
    model: EmbeddingModel, *, reranker: Reranker | None = None, folder: Folder | None = None
) -> MCPServer[Any]:
    """A server whose tools are embed, similarity, rerank, and search where there is a folder.

    The folder is the one that the server was started with: no tool takes a path. Lists of more than 256 texts, texts of
    more than 100,000 characters and calls of more than 1,000,000 are refused with the bound that they are over.
    """
    made: MCPServer[Any] = MCPServer(
        "fastembed-rt", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING", subscriptions=False
    )
    reading = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

    @made.tool(title="Vectors of texts", annotations=reading)
    async def embed(
        texts: Texts, role: Literal["query", "document"] | None = None, truncate_dim: int | None = None
    ) -> Vectors:
        """Give the vector of each text, as a list of numbers.

        role: "query" for questions and "document" for what is searched, where the two are compared with each other.
        truncate_dim: only so many numbers of each vector.
        """
        _bounded(texts)
        calls = {"query": model.aencode_query, "document": model.aencode_document}
        call = model.aencode if role is None else calls[role]
        vectors = await _said(call(texts, truncate_dim=truncate_dim))
        return Vectors(dim=vectors.shape[1], vectors=vectors.tolist())

    @made.tool(title="Similarity of texts", annotations=reading)
    async def similarity(left: Texts, right: Texts | None = None) -> Similarities:
        """Compare each text on the left with each on the right (without: with each other); higher means closer."""
        others = left if right is None else right
        _bounded([*left, *others])
        vectors = await _said(model.aencode([*left, *([] if right is None else right)]))
        rows, columns = vectors[: len(left)], vectors[-len(others) :]
        return Similarities(function=model.manifest.similarity, scores=model.similarity(rows, columns).tolist())

    @made.tool(title="Documents by relevance", annotations=reading)
    async def rerank(query: Text, documents: Texts, top_k: Best = 10) -> Ranking:
        """Put documents in the order in which they answer a query, the best first, at most top_k of them."""
        _bounded([query, *documents])
        if reranker is not None:
            ranked = await _said(reranker.arank(query, documents, top_k=top_k))
            rows = [Ranked(index=row.index, score=row.score, text=row.text) for row in ranked]
            return Ranking(documents=rows, scored_by="reranker")
        of_documents, of_query = await _said(
            asyncio.gather(model.aencode_document(documents), model.aencode_query(query))
        )
        scores = model.similarity(of_documents, of_query[None])[:, 0]
        order = np.argsort(-scores, kind="stable")[:top_k].tolist()
        rows = [Ranked(index=k, score=float(scores[k]), text=documents[k]) for k in order]
        return Ranking(documents=rows, scored_by="vectors")

    if folder is not None:
        known = folder

        @made.tool(title="Search in the folder", annotations=reading)
        async def search(query: Text, top_k: Best = 5) -> Found:
            """Find the parts of the folder's files that answer a query best, each with its file and lines."""
            _bounded([query])
            return await _said(asyncio.to_thread(known.search, query, top_k))

    return made


def serve(
    server: MCPServer[Any],
    *,
    transport: str = "stdio",
    host: str = "127.0.0.1",
    port: int = 8090,
    listeners: Sequence[socket.socket] | None = None,
) -> None:
    """Run until the client leaves (stdio) or a signal comes (http, at /mcp).

    Args:
        server: of `make_server`.
        transport: "stdio" or "http".
        host: of http, an address of this machine alone.
        port: of http.
        listeners: of http, what `listen` made for this host and port.

    Raises:
        InvalidInputError: a host that other machines reach: the tools ask nobody for a key. Standard input or output is
            closed, or the port is taken.
        OSError: standard output takes nothing any more.
    """
    if transport == "stdio":
        check_streams()
        asyncio.run(stdio.run(server))
        return
    import uvicorn  # comes with the SDK

    found = listen(host, port) if listeners is None else listeners
    named = sorted({"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host})
    known = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{name}:*" for name in named],
        allowed_origins=[f"http://{name}:*" for name in named],
    )
    app = server.streamable_http_app(stateless_http=True, json_response=True, host=host, transport_security=known)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=list(found))


def check_streams() -> None:
    """Raise InvalidInputError where messages over standard input and output would go nowhere."""
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:
            raise InvalidInputError(f"standard {name} is closed, and messages go there; open it, or use http")


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on an address of this machine alone.

    Raises:
        InvalidInputError: another machine's, or the port is taken or not ours to take.
    """
    if not is_loopback(host):
        raise InvalidInputError(
            f"host {host!r} is not possible: the tools ask for no key, so they are for this machine alone; "
            "pass 127.0.0.1, ::1 or localhost"
        )
    address = "127.0.0.1" if host == "localhost" else host
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [socket.create_server((address, port), family=family)]
    except OSError as error:
        raise InvalidInputError(f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bounded(texts: list[str]) -> None:
    total = sum(map(len, texts))
    if total > MOST_IN_ALL:
        raise ToolError(f"{total} characters in all are too many; at most {MOST_IN_ALL} a call")


async def _said(work: Awaitable[T]) -> T:
    """What was awaited; an error of ours as one that the client may read."""
    try:
        return await work
    except FastembedRtError as error:
        raise ToolError(str(error)) from error
