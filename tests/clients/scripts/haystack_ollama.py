"""ollama-haystack: its two embedders; the key goes by the variable that Ollama's client reads."""

import os

from calls import CASE, KEY, TEXTS, URL, call, told

os.environ["OLLAMA_API_KEY"] = KEY
from haystack import Document
from haystack_integrations.components.embedders.ollama import (
    OllamaDocumentEmbedder,
    OllamaTextEmbedder,
)


@call
def documents():
    embedder = OllamaDocumentEmbedder(model=CASE["embedding"], url=URL, progress_bar=False)
    return [document.embedding for document in embedder.run([Document(content=text) for text in TEXTS])["documents"]]


@call
def text():
    return [OllamaTextEmbedder(model=CASE["embedding"], url=URL).run(TEXTS[0])["embedding"]]


@call
def unknown_model():
    OllamaTextEmbedder(model="nobody", url=URL).run(TEXTS[0])


told("ollama-haystack")
