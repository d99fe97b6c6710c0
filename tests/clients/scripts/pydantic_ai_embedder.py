"""Pydantic AI: its Embedder over OpenAI's, Cohere's, Voyage's and Google's clients, queries and documents."""

import cohere
import voyageai
from calls import CASE, KEY, TEXTS, URL, call, told
from google import genai
from openai import AsyncOpenAI
from pydantic_ai import Embedder
from pydantic_ai.embeddings.cohere import CohereEmbeddingModel
from pydantic_ai.embeddings.google import GoogleEmbeddingModel
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.embeddings.voyageai import VoyageAIEmbeddingModel
from pydantic_ai.providers.cohere import CohereProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.voyageai import VoyageAIProvider

model = CASE["embedding"]


def openai(name=model, key=KEY):
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)
    return Embedder(OpenAIEmbeddingModel(name, provider=OpenAIProvider(openai_client=client)))


@call
async def documents_openai():
    found = await openai().embed_documents(TEXTS)
    assert found.usage.input_tokens > 0 and found.model_name == model
    return list(found.embeddings)


@call
async def shorter():
    return list((await openai().embed_documents(TEXTS, settings={"dimensions": CASE["dimensions"]})).embeddings)


@call
async def query_openai():
    settings = {"extra_body": {"input_type": "query"}}
    return list((await openai().embed_query(TEXTS, settings=settings)).embeddings)


def cohere_embedder():
    client = cohere.AsyncClientV2(api_key=KEY, base_url=URL)
    return Embedder(CohereEmbeddingModel(model, provider=CohereProvider(cohere_client=client)))


@call
async def query_cohere():
    return list((await cohere_embedder().embed_query(TEXTS)).embeddings)


@call
async def documents_cohere():
    return list((await cohere_embedder().embed_documents(TEXTS)).embeddings)


@call
async def too_long_cohere():
    await cohere_embedder().embed_documents(["the cat " * CASE["too_long"]])  # it wants an error unless told to cut


def voyage_embedder():
    client = voyageai.AsyncClient(api_key=KEY, base_url=f"{URL}/v1")
    return Embedder(VoyageAIEmbeddingModel(model, provider=VoyageAIProvider(voyageai_client=client)))


@call
async def query_voyage():
    return list((await voyage_embedder().embed_query(TEXTS)).embeddings)


@call
async def documents_voyage():
    return list((await voyage_embedder().embed_documents(TEXTS)).embeddings)


@call
async def too_long_voyage():
    await voyage_embedder().embed_documents(["the cat " * CASE["too_long"]])


def google_embedder():
    client = genai.Client(api_key=KEY, http_options={"base_url": URL})
    return Embedder(GoogleEmbeddingModel(model, provider=GoogleProvider(client=client)))


@call
async def query_google():
    return list((await google_embedder().embed_query(TEXTS)).embeddings)


@call
async def documents_google():
    return list((await google_embedder().embed_documents(TEXTS)).embeddings)


@call
async def unknown_model():
    await openai("nobody").embed_documents(TEXTS)


@call
async def wrong_key():
    await openai(key="wrong").embed_documents(TEXTS)


told("pydantic-ai-slim")
