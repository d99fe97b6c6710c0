"""AutoGen: a memory in Chroma, with a function of the caller's for its embeddings, as it asks for other addresses."""

import tempfile

from autogen_core.memory import MemoryContent, MemoryMimeType
from autogen_ext.memory.chromadb import (
    ChromaDBVectorMemory,
    CustomEmbeddingFunctionConfig,
    PersistentChromaDBVectorMemoryConfig,
)
from calls import CASE, KEY, TEXTS, URL, call, told
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction


def memory(name, key):
    def embed():
        return OpenAIEmbeddingFunction(api_key=key, api_base=f"{URL}/v1", model_name=name)

    config = PersistentChromaDBVectorMemoryConfig(
        collection_name="memory",
        persistence_path=tempfile.mkdtemp(),
        k=1,
        embedding_function_config=CustomEmbeddingFunctionConfig(function=embed, params={}),
    )
    return ChromaDBVectorMemory(config=config)


async def add(store):
    for text in TEXTS:
        await store.add(MemoryContent(content=text, mime_type=MemoryMimeType.TEXT))


@call
async def retrieved():
    store = memory(CASE["embedding"], KEY)
    await add(store)
    found = await store.query(TEXTS[1])
    await store.close()
    return [one.content for one in found.results]


@call
async def unknown_model():
    await add(memory("nobody", KEY))


told("autogen-ext")
