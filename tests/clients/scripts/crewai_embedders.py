"""CrewAI: its embedders for OpenAI and Ollama, as a crew's `embedder` names them; knowledge found again."""

import os

from calls import CASE, KEY, TEXTS, URL, call, told

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "OLLAMA_API_KEY": KEY}
from crewai.knowledge.storage.knowledge_storage import KnowledgeStorage
from crewai.rag.embeddings.factory import build_embedder

model = CASE["embedding"]


def vectors_of(provider, **config):
    return [list(map(float, vector)) for vector in build_embedder({"provider": provider, "config": config})(TEXTS)]


def openai(name=model, key=KEY, **config):
    return {"model_name": name, "api_key": key, "api_base": f"{URL}/v1", **config}


@call
def vectors_openai():
    return vectors_of("openai", **openai())


@call
def vectors_ollama():
    return vectors_of("ollama", url=URL, model_name=model)


@call
def retrieved():
    storage = KnowledgeStorage(embedder={"provider": "openai", "config": openai()}, collection_name="texts")
    storage.save(TEXTS)
    return [found["content"] for found in storage.search([TEXTS[1]], limit=1, score_threshold=0.0)]


@call
def unknown_model():
    vectors_of("openai", **openai("nobody"))


@call
def wrong_key():
    vectors_of("openai", **openai(key="wrong"))


told("crewai")
