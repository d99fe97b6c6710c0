"""mem0: its embedders for OpenAI, Ollama, LM Studio and text-embeddings-inference; memories found again."""

import os
import tempfile

from calls import CASE, KEY, TEXTS, URL, call, told

os.environ |= {"MEM0_TELEMETRY": "false", "OLLAMA_API_KEY": KEY}  # of the ollama client, for which mem0 has no setting
from mem0 import Memory
from mem0.utils.factory import EmbedderFactory

model = CASE["embedding"]


def embedder(provider, **config):
    return EmbedderFactory.create(provider, {"model": model, "api_key": KEY, **config}, None)


def openai(**config):
    return embedder("openai", openai_base_url=f"{URL}/v1", **config)


@call
def vectors_openai():
    return openai().embed_batch(TEXTS)


@call
def one():
    return [openai().embed(TEXTS[0], "search")]


@call
def shorter():
    return openai(embedding_dims=CASE["dimensions"]).embed_batch(TEXTS)


@call
def vectors_ollama():
    return embedder("ollama", ollama_base_url=URL).embed_batch(TEXTS)


@call
def vectors_lmstudio():
    return embedder("lmstudio", lmstudio_base_url=f"{URL}/v1").embed_batch(TEXTS)


@call
def retrieved():
    embedder = {"model": model, "api_key": KEY, "openai_base_url": f"{URL}/v1"}
    store = {"path": tempfile.mkdtemp(), "embedding_model_dims": CASE["dim"], "on_disk": False}
    memory = Memory.from_config(
        {
            "embedder": {"provider": "openai", "config": embedder},
            "llm": {"provider": "openai", "config": {"api_key": "unused"}},
            "vector_store": {"provider": "qdrant", "config": store},
            "history_db_path": ":memory:",
        }
    )
    for text in TEXTS:
        memory.add(text, user_id="u", infer=False)
    return [found["memory"] for found in memory.search(TEXTS[1], filters={"user_id": "u"}, top_k=1)["results"]]


@call
def unknown_model():
    embedder("openai", openai_base_url=f"{URL}/v1", model="nobody").embed_batch(TEXTS)


@call
def wrong_key():
    openai(api_key="wrong").embed_batch(TEXTS)


told("mem0ai")
