"""Chonkie: its embeddings through LiteLLM, and a semantic chunker with them."""

import os
from pathlib import Path

import litellm

# It counts tokens with tiktoken, which would fetch its vocabulary: LiteLLM brings a copy.
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers")

from calls import CASE, KEY, TEXTS, URL, call, told
from chonkie import SemanticChunker
from chonkie.embeddings import LiteLLMEmbeddings


def embeddings(name=CASE["embedding"], key=KEY):
    return LiteLLMEmbeddings(model=f"openai/{name}", api_base=f"{URL}/v1", api_key=key, dimension=CASE["dim"])


@call
def vectors():
    return [vector.tolist() for vector in embeddings().embed_batch(TEXTS)]


@call
def one():
    return [embeddings().embed(TEXTS[0]).tolist()]


@call
def chunks_are_the_text():
    text = "The dog runs. The dog plays. The house is red. The house is new. "
    chunker = SemanticChunker(embedding_model=embeddings(), min_characters_per_sentence=5)
    return "".join(chunk.text for chunk in chunker.chunk(text)) == text


@call
def unknown_model():
    embeddings("nobody").embed(TEXTS[0])


@call
def wrong_key():
    embeddings(key="wrong").embed(TEXTS[0])


told("chonkie")
