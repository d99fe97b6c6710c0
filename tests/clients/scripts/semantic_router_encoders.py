"""Semantic Router: its encoders for Jina, NVIDIA, Ollama and Cohere, which sends parts of texts."""

import os

from calls import CASE, KEY, TEXTS, URL, call, told
from semantic_router.encoders import CohereEncoder, JinaEncoder, NimEncoder, OllamaEncoder

model = CASE["embedding"]
os.environ["OLLAMA_API_KEY"], os.environ["CO_API_URL"] = KEY, URL  # neither encoder takes it


def jina(name=model, key=KEY):
    return JinaEncoder(name=name, api_key=key, base_url=f"{URL}/v1")


def nim():
    return NimEncoder(name=model, api_key=KEY, base_url=f"{URL}/v1")


def cohere():
    return CohereEncoder(name=model, cohere_api_key=KEY)


@call
def vectors_jina():
    return jina()(TEXTS)


@call
async def asynchronous():
    return await jina().acall(TEXTS)


@call
def query_nvidia():
    return nim().encode_queries(TEXTS)


@call
def documents_nvidia():
    return nim().encode_documents(TEXTS)


@call
def query_cohere():
    return cohere().encode_queries(TEXTS)


@call
def documents_cohere():
    return cohere().encode_documents(TEXTS)


@call
def vectors_ollama():
    return OllamaEncoder(name=model, base_url=URL)(TEXTS)


@call
def unknown_model():
    jina("nobody")(TEXTS)


@call
def wrong_key():
    jina(key="wrong")(TEXTS)


told("semantic-router")
