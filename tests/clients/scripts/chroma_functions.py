"""Chroma: its embedding functions for TEI and for OpenAI's API, in a collection."""

import chromadb
from calls import CASE, KEY, TEXTS, URL, call, told
from chromadb.utils.embedding_functions import (
    HuggingFaceEmbeddingServer,
    OllamaEmbeddingFunction,
    OpenAIEmbeddingFunction,
)


def openai(name=CASE["embedding"], key=KEY):
    return OpenAIEmbeddingFunction(api_key=key, model_name=name, api_base=f"{URL}/v1")


@call
def vectors_openai():
    return [vector.tolist() for vector in openai()(TEXTS)]


@call
def vectors_tei():
    import os

    os.environ["TEI_KEY"] = KEY
    function = HuggingFaceEmbeddingServer(url=f"{URL}/embed", api_key_env_var="TEI_KEY")
    return [vector.tolist() for vector in function(TEXTS)]


@call
def vectors_ollama():
    function = OllamaEmbeddingFunction(url=URL, model_name=CASE["embedding"])
    function._client._client.headers["Authorization"] = f"Bearer {KEY}"  # it has no argument for it
    return [vector.tolist() for vector in function(TEXTS)]


@call
def retrieved():
    collection = chromadb.EphemeralClient().create_collection("texts", embedding_function=openai())
    collection.add(ids=[str(k) for k in range(len(TEXTS))], documents=TEXTS)
    return collection.query(query_texts=[TEXTS[1]], n_results=1)["documents"][0]


@call
def unknown_model():
    openai("nobody")(TEXTS)


told("chromadb")
