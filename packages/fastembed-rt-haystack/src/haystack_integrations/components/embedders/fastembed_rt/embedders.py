"""Dense embedders: a vector of a text as a query, of documents as documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from haystack import Document, component

from fastembed_rt import EmbeddingModel

from .base import Embedder, OfDocuments


@component
class FastEmbedRtTextEmbedder(Embedder):
    """Embeds a text, such as a user's question, with the model's query prompt.

    ```python
    embedder = FastEmbedRtTextEmbedder(model="./my-model")
    embedding = embedder.run("which dog runs?")["embedding"]
    ```
    """

    kind = EmbeddingModel

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """`embedding`: the vector of a text, (dim,).

        Raises:
            TypeError: something that is no str.
        """
        self.warm_up()
        return {"embedding": self._model.encode_query(self._text(text), **self.encode_kwargs).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` for asyncio: the event loop stays free, calls that wait together are run together."""
        await self.warm_up_async()
        return {"embedding": (await self._model.aencode_query(self._text(text), **self.encode_kwargs)).tolist()}


@component
class FastEmbedRtDocumentEmbedder(OfDocuments):
    """Embeds documents with the model's document prompt, all in one call: the model makes its own batches.

    ```python
    embedder = FastEmbedRtDocumentEmbedder(model="./my-model")
    documents = embedder.run([Document(content="a dog runs")])["documents"]
    ```
    """

    kind = EmbeddingModel

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """`documents`: copies of those given, each with its `embedding` (dim,).

        Raises:
            TypeError: something that is no list of Document.
        """
        texts = self._texts(documents)
        self.warm_up()
        vectors = self._model.encode_document(texts, show_progress_bar=self.progress_bar, **self.encode_kwargs)
        return {"documents": _embedded(documents, vectors)}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run` for asyncio: the event loop stays free, calls that wait together are run together."""
        texts = self._texts(documents)
        await self.warm_up_async()
        vectors = await self._model.aencode_document(texts, show_progress_bar=self.progress_bar, **self.encode_kwargs)
        return {"documents": _embedded(documents, vectors)}


def _embedded(documents: list[Document], vectors: Any) -> list[Document]:
    return [replace(document, embedding=vector.tolist()) for document, vector in zip(documents, vectors, strict=True)]
