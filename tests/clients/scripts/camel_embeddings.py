"""CAMEL: its embeddings for any server of OpenAI's API."""

from calls import CASE, KEY, TEXTS, URL, call, told
from camel.embeddings import OpenAICompatibleEmbedding


def compatible(name=CASE["embedding"], key=KEY):
    return OpenAICompatibleEmbedding(model_type=name, api_key=key, url=f"{URL}/v1")


@call
def vectors():
    return compatible().embed_list(TEXTS)


@call
def dimensions():
    embedding = compatible()
    embedding.embed_list(TEXTS)
    return embedding.get_output_dim() == CASE["dim"]


@call
def unknown_model():
    compatible("nobody").embed_list(TEXTS)


@call
def wrong_key():
    compatible(key="wrong").embed_list(TEXTS)


told("camel-ai")
