"""Griptape: its embedding drivers for OpenAI and NVIDIA, text by text."""

from calls import CASE, KEY, TEXTS, URL, call, told
from griptape.drivers.embedding.nvidia_nim import NvidiaNimEmbeddingDriver
from griptape.drivers.embedding.openai import OpenAiEmbeddingDriver
from griptape.tokenizers import SimpleTokenizer

# Its own tokenizer for other models fetches OpenAI's file.
counting = SimpleTokenizer(characters_per_token=4, max_input_tokens=512, max_output_tokens=0)


def driver(kind, name=CASE["embedding"], key=KEY):
    return kind(model=name, base_url=f"{URL}/v1", api_key=key, tokenizer=counting, max_attempts=1)


def openai(**options):
    return [driver(OpenAiEmbeddingDriver, **options).embed(text) for text in TEXTS]


def nvidia(use):
    return [driver(NvidiaNimEmbeddingDriver).embed(text, vector_operation=use) for text in TEXTS]


@call
def vectors_openai():
    return openai()


@call
def query_nvidia():
    return nvidia("query")


@call
def documents_nvidia():
    return nvidia("upsert")


@call
def unknown_model():
    openai(name="nobody")


@call
def wrong_key():
    openai(key="wrong")


told("griptape")
