"""Semantic Kernel: its embedding services for OpenAI, Ollama, Google and NVIDIA."""

from calls import CASE, KEY, TEXTS, URL, call, told
from ollama import AsyncClient
from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.nvidia import NvidiaEmbeddingPromptExecutionSettings, NvidiaTextEmbedding
from semantic_kernel.connectors.ai.ollama import OllamaTextEmbedding
from semantic_kernel.connectors.ai.open_ai import OpenAIEmbeddingPromptExecutionSettings, OpenAITextEmbedding

model = CASE["embedding"]


def openai(name=model, key=KEY):
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)
    return OpenAITextEmbedding(name, async_client=client)


@call
async def vectors_openai():
    return (await openai().generate_embeddings(TEXTS, batch_size=3)).tolist()


@call
async def shorter():
    settings = OpenAIEmbeddingPromptExecutionSettings(dimensions=CASE["dimensions"])
    return (await openai().generate_embeddings(TEXTS, settings)).tolist()


@call
async def vectors_ollama():
    client = AsyncClient(host=URL, headers={"Authorization": f"Bearer {KEY}"})
    return (await OllamaTextEmbedding(ai_model_id=model, client=client).generate_embeddings(TEXTS)).tolist()


@call
async def query_nvidia():
    service = NvidiaTextEmbedding(ai_model_id=model, api_key=KEY, base_url=f"{URL}/v1")
    settings = NvidiaEmbeddingPromptExecutionSettings(input_type="query")
    return (await service.generate_embeddings(TEXTS, settings)).tolist()


@call
async def unknown_model():
    await openai("nobody").generate_embeddings(TEXTS)


@call
async def wrong_key():
    await openai(key="wrong").generate_embeddings(TEXTS)


told("semantic-kernel")
