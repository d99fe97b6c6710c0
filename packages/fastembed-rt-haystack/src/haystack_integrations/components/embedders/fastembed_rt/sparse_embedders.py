"""Sparse embedders: weights of words of a text as a query, of documents as documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from haystack import Document, component
from haystack.dataclasses import SparseEmbedding

from fastembed_rt import SparseModel

from .base import Embedder, OfDocuments


@component
class FastEmbedRtSparseTextEmbedder(Embedder):
    """Words of a text, such as a user's question, with the model's query prompt.

    ```python
    embedder = FastEmbedRtSparseTextEmbedder(model="./my-splade")
    embedding = embedder.run("which dog runs?")["sparse_embedding"]
    ```
    """

    kind = SparseModel

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, text: str) -> dict[str, Any]:
        """`sparse_embedding`: the token ids and weights of a text.

        Raises:
            TypeError: something that is no str.
        """
        self.warm_up()
        return {"sparse_embedding": _sparse(self._model.encode_query(self._text(text), **self.encode_kwargs))}

    @component.output_types(sparse_embedding=SparseEmbedding)
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` for asyncio: the event loop stays free, calls that wait together are run together."""
        await self.warm_up_async()
        return {"sparse_embedding": _sparse(await self._model.aencode_query(self._text(text), **self.encode_kwargs))}


@component
class FastEmbedRtSparseDocumentEmbedder(OfDocuments):
    """Words of documents with the model's document prompt, all in one call: the model makes its own batches.

    ```python
    embedder = FastEmbedRtSparseDocumentEmbedder(model="./my-splade")
    documents = embedder.run([Document(content="a dog runs")])["documents"]
    ```
    """

    kind = SparseModel

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """`documents`: copies of those given, each with its `sparse_embedding`.

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
    return [
        replace(document, sparse_embedding=_sparse(vector)) for document, vector in zip(documents, vectors, strict=True)
    ]


def _sparse(vector: Any) -> SparseEmbedding:
    return SparseEmbedding(indices=vector.indices.tolist(), values=vector.values.tolist())
