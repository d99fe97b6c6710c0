"""AgentScope: its embedding models for OpenAI and Ollama, by size."""

import os

from agentscope.credential import OllamaCredential, OpenAICredential
from agentscope.embedding import OllamaEmbeddingModel, OpenAIEmbeddingModel
from calls import CASE, KEY, TEXTS, URL, call, told

os.environ["OLLAMA_API_KEY"] = KEY  # its credential has none


async def openai(name=CASE["embedding"], key=KEY, size=CASE["dim"]):
    credential = OpenAICredential(api_key=key, base_url=f"{URL}/v1")
    return (await OpenAIEmbeddingModel(credential, name, size)(TEXTS)).embeddings


@call
async def vectors_openai():
    return await openai()


@call
async def shorter():
    return await openai(size=CASE["dimensions"])


@call
async def vectors_ollama():
    model = OllamaEmbeddingModel(OllamaCredential(host=URL), CASE["embedding"], CASE["dim"])
    return (await model(TEXTS)).embeddings


@call
async def unknown_model():
    await openai("nobody")


@call
async def wrong_key():
    await openai(key="wrong")


told("agentscope")
