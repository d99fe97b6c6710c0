"""Agno: its embedders for OpenAI, Jina, Gemini, Mistral, Voyage, Cohere and Ollama, and its reranker for Cohere."""

import asyncio

import cohere
from agno.knowledge.document import Document
from agno.knowledge.embedder.cohere import CohereEmbedder
from agno.knowledge.embedder.google import GeminiEmbedder
from agno.knowledge.embedder.jina import JinaEmbedder
from agno.knowledge.embedder.mistral import MistralEmbedder
from agno.knowledge.embedder.ollama import OllamaEmbedder
from agno.knowledge.embedder.openai import OpenAIEmbedder
from agno.knowledge.embedder.voyageai import VoyageAIEmbedder
from agno.knowledge.reranker.cohere import CohereReranker
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from ollama import Client

model, dim = CASE["embedding"], CASE["dim"]


def each(embedder):
    return [embedder.get_embedding(text) for text in TEXTS]


def together(embedder):
    return asyncio.run(embedder.async_get_embeddings_batch_and_usage(TEXTS))[0]


def openai(name=model, key=KEY, size=dim):
    options = {"client_params": {"max_retries": 0}}
    return OpenAIEmbedder(id=name, dimensions=size, base_url=f"{URL}/v1", api_key=key, **options)


def jina(**options):
    return JinaEmbedder(
        id=model, **{"dimensions": dim, "base_url": f"{URL}/v1/embeddings", "api_key": KEY, "timeout": 60, **options}
    )


@call
def vectors_openai():
    return each(openai())


@call
def vectors_openai_together():
    return together(openai())


@call
def shorter():
    return each(openai(size=CASE["dimensions"]))


@call
def vectors_jina():
    return each(jina())


@call
def vectors_jina_together():
    return together(jina())


@call
def late_chunking():
    each(jina(late_chunking=True))


@call
def query_gemini():
    return each(
        GeminiEmbedder(id=model, dimensions=dim, api_key=KEY, client_params={"http_options": {"base_url": URL}})
    )


@call
def vectors_mistral():
    return each(MistralEmbedder(id=model, api_key=KEY, endpoint=URL))


@call
def document_voyage():
    parameters = {"request_params": {"input_type": "document"}, "client_params": {"base_url": f"{URL}/v1"}}
    return each(VoyageAIEmbedder(id=model, api_key=KEY, **parameters))


@call
def query_cohere():
    return each(CohereEmbedder(id=model, api_key=KEY, client_params={"base_url": URL}))


@call
def vectors_ollama():
    headers = {"Authorization": f"Bearer {KEY}"}
    return each(OllamaEmbedder(id=model, dimensions=dim, ollama_client=Client(host=URL, headers=headers)))


@call
def reranked():
    client = cohere.Client(api_key=KEY, base_url=URL)
    ranker = CohereReranker(model=CASE["reranker"], cohere_client=client, top_n=2)
    found = ranker.rerank(QUERY, [Document(content=text) for text in TEXTS])
    return [[TEXTS.index(document.content), document.reranking_score] for document in found]


@call
def unknown_model():
    each(openai("nobody"))


@call
def wrong_key():
    each(openai(key="wrong"))


told("agno")
