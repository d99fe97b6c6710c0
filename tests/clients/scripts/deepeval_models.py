"""DeepEval: its embedding models for any server of OpenAI's API, and for Ollama."""

from calls import CASE, KEY, TEXTS, URL, call, told
from deepeval.models import LocalEmbeddingModel, OllamaEmbeddingModel

model = CASE["embedding"]


def local(name=model, key=KEY):
    return LocalEmbeddingModel(model=name, base_url=f"{URL}/v1", api_key=key)


@call
def vectors_local():
    return local().embed_texts(TEXTS)


@call
async def asynchronous():
    return await local().a_embed_texts(TEXTS)


@call
def one():
    return [local().embed_text(TEXTS[0])]


@call
def vectors_ollama():
    headers = {"Authorization": f"Bearer {KEY}"}
    return OllamaEmbeddingModel(model=model, base_url=URL, headers=headers).embed_texts(TEXTS)


@call
def unknown_model():
    local("nobody").embed_texts(TEXTS)


@call
def wrong_key():
    local(key="wrong").embed_texts(TEXTS)


told("deepeval")
