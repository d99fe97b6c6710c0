"""LightRAG: its functions for OpenAI, NVIDIA, Jina, Gemini and Ollama, by use; rerank by Cohere's and Jina's."""

import os

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told

os.environ["OLLAMA_API_KEY"] = KEY
from lightrag.llm.gemini import gemini_embed
from lightrag.llm.jina import jina_embed
from lightrag.llm.nvidia_openai import nvidia_openai_embed
from lightrag.llm.ollama import ollama_embed
from lightrag.llm.openai import openai_embed
from lightrag.rerank import cohere_rerank, jina_rerank
from lightrag.utils import EmbeddingFunc

model, dim = CASE["embedding"], CASE["dim"]


def of(function, size=dim, texts=TEXTS, context=None, **options):
    """As LightRAG itself calls it: the sizes are checked, and sent where the function has a place for them."""
    wrapped = EmbeddingFunc(
        embedding_dim=size,
        func=lambda texts, **given: function.func(texts, **{"api_key": KEY, "model": model, **options, **given}),
        supports_asymmetric=context is not None,
    )
    given = {} if context is None else {"context": context}
    return wrapped(texts, **given)


@call
async def vectors_openai():
    return (await of(openai_embed, base_url=f"{URL}/v1")).tolist()


@call
async def shorter():
    size = CASE["dimensions"]
    return (await of(openai_embed, size, base_url=f"{URL}/v1", embedding_dim=size)).tolist()


@call
async def query_nvidia():
    return (await of(nvidia_openai_embed, base_url=f"{URL}/v1", input_type="query")).tolist()


@call
async def document_nvidia():
    return (await of(nvidia_openai_embed, base_url=f"{URL}/v1")).tolist()


@call
async def too_long_nvidia():
    await of(nvidia_openai_embed, texts=["the cat " * CASE["too_long"]], base_url=f"{URL}/v1")


@call
async def query_jina():
    options = {"base_url": f"{URL}/v1/embeddings", "embedding_dim": dim}
    return (await of(jina_embed, context="query", **options)).tolist()


@call
async def document_jina():
    options = {"base_url": f"{URL}/v1/embeddings", "embedding_dim": dim}
    return (await of(jina_embed, context="document", **options)).tolist()


@call
async def query_gemini():
    return (await of(gemini_embed, context="query", base_url=URL)).tolist()


@call
async def document_gemini():
    return (await of(gemini_embed, context="document", base_url=URL)).tolist()


@call
async def vectors_ollama():
    found = await ollama_embed.func(TEXTS, embed_model=model, host=URL)
    return found.tolist()


def ranked(found):
    return [[entry["index"], entry["relevance_score"]] for entry in found]


@call
async def reranked_cohere():
    return ranked(await cohere_rerank(QUERY, TEXTS, 2, KEY, CASE["reranker"], f"{URL}/v2/rerank"))


@call
async def reranked_jina():
    return ranked(await jina_rerank(QUERY, TEXTS, None, KEY, CASE["reranker"], f"{URL}/v1/rerank"))


@call
async def unknown_model():
    await of(openai_embed, base_url=f"{URL}/v1", model="nobody")


@call
async def wrong_key():
    await of(openai_embed, base_url=f"{URL}/v1", api_key="wrong")


told("lightrag-hku")
