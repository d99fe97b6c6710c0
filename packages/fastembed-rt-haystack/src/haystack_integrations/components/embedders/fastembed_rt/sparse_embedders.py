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

    def __init__(
        self,
        model: str,
        prefix: str = "",
        suffix: str = "",
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        progress_bar: bool = False,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first text.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            prefix: put before each text, behind the model's own prompt.
            suffix: put behind each text.
            model_kwargs: options of `SparseModel.from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of `encode`, such as prompt_name, prompt, max_active_dims.
            progress_bar: on stderr.
        """
        # Not super(): the decorator makes another class of this one.
        Embedder.__init__(self, model, prefix, suffix, model_kwargs, encode_kwargs, progress_bar)

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
        self.warm_up()
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

    def __init__(
        self,
        model: str,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first documents.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            prefix: put before each text, behind the model's own prompt.
            suffix: put behind each text.
            meta_fields_to_embed: fields of `meta` that stand before a document's content.
            embedding_separator: between those fields and the content.
            model_kwargs: options of `SparseModel.from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of `encode`, such as prompt_name, prompt, max_active_dims.
            progress_bar: on stderr.
        """
        OfDocuments.__init__(
            self,
            meta_fields_to_embed,
            embedding_separator,
            model=model,
            prefix=prefix,
            suffix=suffix,
            model_kwargs=model_kwargs,
            encode_kwargs=encode_kwargs,
            progress_bar=progress_bar,
        )

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
        self.warm_up()
        vectors = await self._model.aencode_document(texts, show_progress_bar=self.progress_bar, **self.encode_kwargs)
        return {"documents": _embedded(documents, vectors)}


def _embedded(documents: list[Document], vectors: Any) -> list[Document]:
    return [
        replace(document, sparse_embedding=_sparse(vector)) for document, vector in zip(documents, vectors, strict=True)
    ]


def _sparse(vector: Any) -> SparseEmbedding:
    return SparseEmbedding(indices=vector.indices.tolist(), values=vector.values.tolist())
