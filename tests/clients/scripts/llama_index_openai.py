"""llama-index-embeddings-openai: batches of ten texts."""

from calls import CASE, KEY, TEXTS, URL, call, told
from llama_index.embeddings.openai import OpenAIEmbedding


def embedding(name=CASE["embedding"], key=KEY, **options):
    return OpenAIEmbedding(model_name=name, api_base=f"{URL}/v1", api_key=key, max_retries=0, **options)


@call
def vectors():
    return embedding().get_text_embedding_batch(TEXTS)


@call
def many():
    return embedding().get_text_embedding_batch(TEXTS * 5)


@call
def one():
    return [embedding().get_query_embedding(TEXTS[0])]


@call
def shorter():
    return embedding(dimensions=CASE["dimensions"]).get_text_embedding_batch(TEXTS)


@call
async def asynchronous():
    return await embedding().aget_text_embedding_batch(TEXTS)


@call
def unknown_model():
    embedding("nobody").get_text_embedding_batch(TEXTS)


@call
def wrong_key():
    embedding(key="wrong").get_text_embedding_batch(TEXTS)


told("llama-index-embeddings-openai")
