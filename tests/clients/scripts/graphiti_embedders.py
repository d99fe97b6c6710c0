"""Graphiti: its embedders for OpenAI, Voyage and Gemini, which cut vectors to `embedding_dim` themselves."""

import voyageai
from calls import CASE, KEY, TEXTS, URL, call, told
from google import genai
from graphiti_core.embedder.gemini import GeminiEmbedder, GeminiEmbedderConfig
from graphiti_core.embedder.openai import OpenAIEmbedder, OpenAIEmbedderConfig
from graphiti_core.embedder.voyage import VoyageAIEmbedder, VoyageAIEmbedderConfig

model, dim = CASE["embedding"], CASE["dim"]


def openai(name=model, key=KEY):
    config = OpenAIEmbedderConfig(embedding_model=name, api_key=key, base_url=f"{URL}/v1", embedding_dim=dim)
    return OpenAIEmbedder(config)


@call
async def vectors_openai():
    return await openai().create_batch(TEXTS)


@call
async def one():
    return [await openai().create(input_data=[TEXTS[0]])]


@call
async def vectors_voyage():
    embedder = VoyageAIEmbedder(VoyageAIEmbedderConfig(embedding_model=model, api_key=KEY, embedding_dim=dim))
    embedder.client = voyageai.AsyncClient(api_key=KEY, base_url=f"{URL}/v1")
    return await embedder.create_batch(TEXTS)


@call
async def vectors_gemini():
    config = GeminiEmbedderConfig(embedding_model=model, api_key=KEY, embedding_dim=dim)
    client = genai.Client(api_key=KEY, http_options={"base_url": URL})
    return await GeminiEmbedder(config, client=client).create_batch(TEXTS)


@call
async def unknown_model():
    await openai("nobody").create_batch(TEXTS)


@call
async def wrong_key():
    await openai(key="wrong").create_batch(TEXTS)


told("graphiti-core")
