"""llama-index-embeddings-text-embeddings-inference; it does not look at the status of an answer."""

from calls import CASE, KEY, TEXTS, URL, call, told
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference


def embedding(key=KEY, base=URL):
    return TextEmbeddingsInference(model_name=CASE["embedding"], base_url=base, auth_token=key)


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
def of_a_model():
    return embedding(base=f"{URL}/{CASE['embedding']}").get_text_embedding_batch(TEXTS)


@call
def wrong_key():
    return embedding("wrong").get_text_embedding_batch(TEXTS)


told("llama-index-embeddings-text-embeddings-inference")
