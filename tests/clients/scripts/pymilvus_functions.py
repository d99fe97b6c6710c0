"""pymilvus: its embedding functions for OpenAI and Cohere, and Voyage's reranker. (Gemini's calls pip.)"""

import voyageai
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from pymilvus.model.dense import (
    CohereEmbeddingFunction,
    OpenAIEmbeddingFunction,
)
from pymilvus.model.reranker import VoyageRerankFunction

model, dim = CASE["embedding"], CASE["dim"]


def openai(name=model, key=KEY, **options):
    return OpenAIEmbeddingFunction(name, api_key=key, base_url=f"{URL}/v1", max_retries=0, **options)


def listed(vectors):
    return [vector.tolist() for vector in vectors]


@call
def vectors_openai():
    return listed(openai()(TEXTS))


@call
def shorter():
    return listed(openai(dimensions=CASE["dimensions"]).encode_documents(TEXTS))


def cohere(**options):
    return CohereEmbeddingFunction(model, api_key=KEY, base_url=URL, **options)


@call
def query_cohere():
    return listed(cohere().encode_queries(TEXTS))


@call
def documents_cohere():
    return listed(cohere(embedding_types=["float"]).encode_documents(TEXTS))


@call
def reranked_voyage():
    function = VoyageRerankFunction(CASE["reranker"], api_key=KEY)
    function.client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1")  # it has no argument for it
    return [[found.index, found.score] for found in function(QUERY, TEXTS, top_k=2)]


@call
def unknown_model():
    openai("nobody")(TEXTS)


@call
def wrong_key():
    openai(key="wrong")(TEXTS)


told("pymilvus-model")
