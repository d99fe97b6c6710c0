"""cognee: its engines for LiteLLM, OpenAI's API and Ollama's, which sends longer texts than a model reads in parts."""

import os
from importlib.util import find_spec
from pathlib import Path

from calls import CASE, KEY, TEXTS, URL, call, told

os.environ |= {  # LiteLLM has tiktoken's files, which are fetched else
    "TIKTOKEN_CACHE_DIR": str(Path(find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers"),
    "LLM_API_KEY": KEY,
    "TELEMETRY_DISABLED": "1",
    "HF_HUB_OFFLINE": "1",
}
from cognee.infrastructure.databases.vector.embeddings.LiteLLMEmbeddingEngine import LiteLLMEmbeddingEngine
from cognee.infrastructure.databases.vector.embeddings.OllamaEmbeddingEngine import OllamaEmbeddingEngine
from cognee.infrastructure.databases.vector.embeddings.OpenAICompatibleEmbeddingEngine import (
    OpenAICompatibleEmbeddingEngine,
)

model, dim = CASE["embedding"], CASE["dim"]


def ollama():
    return OllamaEmbeddingEngine(model, dim, endpoint=f"{URL}/api/embed", huggingface_tokenizer="gpt2")


@call
async def vectors_litellm():
    options = {"dimensions": dim, "api_key": KEY, "endpoint": f"{URL}/v1"}
    return list(await LiteLLMEmbeddingEngine(f"hosted_vllm/{model}", "hosted_vllm", **options).embed_text(TEXTS))


@call
async def vectors_openai():
    return list(await OpenAICompatibleEmbeddingEngine(model, dim, endpoint=URL, api_key=KEY).embed_text(TEXTS))


@call
async def vectors_ollama():
    return list(await ollama().embed_text(TEXTS))


@call
async def length_ollama():
    return await ollama().input_limit()


@call
async def in_parts_ollama():
    return list(await ollama().embed_text(["the cat " * CASE["too_long"]]))


told("cognee")
