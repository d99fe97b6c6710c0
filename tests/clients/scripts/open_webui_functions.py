"""Open WebUI: what asks embedding servers and rerankers, cut out of its modules, which start a service at import."""

import ast
import logging
from importlib.metadata import distribution

import aiohttp
import requests
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told

model = CASE["embedding"]
NAMES = {
    "generate_openai_batch_embeddings",
    "agenerate_openai_batch_embeddings",
    "generate_ollama_batch_embeddings",
    "agenerate_ollama_batch_embeddings",
    "generate_embeddings",
    "ExternalReranker",
    "get_json_bearer_headers",
    "bearer_auth_header",
    "normalize_bearer_token",
}


def functions(field):
    """With the setting RAG_EMBEDDING_PREFIX_FIELD_NAME."""
    given = {
        "requests": requests,
        "aiohttp": aiohttp,
        "log": logging.getLogger(),
        "RAG_EMBEDDING_PREFIX_FIELD_NAME": field,
        "ENABLE_FORWARD_USER_INFO_HEADERS": False,
        "AIOHTTP_CLIENT_TIMEOUT": 60,
        "AIOHTTP_CLIENT_SESSION_SSL": True,
        "REQUESTS_VERIFY": True,
        "BaseReranker": object,
    }
    for place in ("utils/headers.py", "retrieval/utils.py", "retrieval/models/external.py"):
        path = distribution("open-webui").locate_file(f"open_webui/{place}")
        found = ast.parse(path.read_text(encoding="utf-8"))
        found.body = [node for node in found.body if getattr(node, "name", None) in NAMES]
        postponed = ast.parse("from __future__ import annotations").body
        found.body = [*postponed, *found.body]
        exec(compile(found, str(path), "exec"), given)
    return given


plain, with_field = functions(None), functions("input_type")
openai = {"engine": "openai", "model": model, "url": f"{URL}/v1", "key": KEY}
ollama = {"engine": "ollama", "model": model, "url": URL, "key": KEY}


@call
async def vectors_openai():
    return await plain["generate_embeddings"](text=TEXTS, **openai)


@call
async def vectors_ollama():
    return await plain["generate_embeddings"](text=TEXTS, **ollama)


@call
async def query_openai():
    return await with_field["generate_embeddings"](text=TEXTS, prefix="query", **openai)


@call
async def documents_openai():
    return await with_field["generate_embeddings"](text=TEXTS, prefix="document", **openai)


@call
async def query_ollama():
    return await with_field["generate_embeddings"](text=TEXTS, prefix="query", **ollama)


@call
def reranked():
    ranker = plain["ExternalReranker"](KEY, f"{URL}/v1/rerank", CASE["reranker"], 60)
    scores = ranker.predict([(QUERY, text) for text in TEXTS])
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


@call
async def unknown_model():
    await plain["generate_embeddings"](text=TEXTS, **{**openai, "model": "nobody"})


@call
async def wrong_key():
    await plain["generate_embeddings"](text=TEXTS, **{**ollama, "key": "wrong"})


told("open-webui")
