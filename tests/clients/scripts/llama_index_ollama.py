"""llama-index-embeddings-ollama."""

from calls import CASE, KEY, TEXTS, URL, call, told
from llama_index.embeddings.ollama import OllamaEmbedding


def embedding(name=CASE["embedding"], key=KEY):
    headers = {"headers": {"Authorization": f"Bearer {key}"}}
    return OllamaEmbedding(model_name=name, base_url=URL, client_kwargs=headers)


@call
def vectors():
    return embedding().get_text_embedding_batch(TEXTS)


@call
def one():
    return [embedding().get_query_embedding(TEXTS[0])]


@call
async def asynchronous():
    return await embedding().aget_text_embedding_batch(TEXTS)


@call
def unknown_model():
    embedding("nobody").get_text_embedding_batch(TEXTS)


@call
def wrong_key():
    embedding(key="wrong").get_text_embedding_batch(TEXTS)


told("llama-index-embeddings-ollama")
