"""LangChain's hybrid retrieval in Qdrant: sparse vectors of a SparseModel. Needs langchain-qdrant alone."""

from __future__ import annotations

import os
from typing import Any

from .. import SparseModel
from .opening import needs, open_model, several, single

with needs("langchain-qdrant", "langchain-qdrant"):
    from langchain_qdrant import SparseEmbeddings, SparseVector

__all__ = ["FastEmbedRtSparseEmbeddings"]


class FastEmbedRtSparseEmbeddings(SparseEmbeddings):
    """Sparse vectors for QdrantVectorStore(sparse_embedding=...), of documents and queries with their prompts."""

    def __init__(
        self,
        model: str | os.PathLike[str] | SparseModel,
        *,
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        query_encode_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Open the model.

        Args:
            model: a model directory, a checkpoint or a hub repository; or a SparseModel that is open.
            model_kwargs: options of `SparseModel.from_checkpoint`.
            encode_kwargs: options of each call's `encode`, such as max_active_dims, prompt_name, prompt.
            query_encode_kwargs: the same for queries; None takes encode_kwargs.

        Raises:
            As `SparseModel.from_checkpoint`.
        """
        self.client = open_model(SparseModel, model, model_kwargs)
        self._of_documents = encode_kwargs or {}
        self._of_queries = self._of_documents if query_encode_kwargs is None else query_encode_kwargs

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Weights of words of each text, by token id."""
        return [_as_theirs(vector) for vector in self.client.encode_document(several(texts), **self._of_documents)]

    def embed_query(self, text: str) -> SparseVector:
        """Weights of words of a question, by token id."""
        return _as_theirs(self.client.encode_query(single(text), **self._of_queries))

    async def aembed_documents(self, texts: list[str]) -> list[SparseVector]:
        """`embed_documents` for asyncio: the event loop stays free."""
        return [
            _as_theirs(vector) for vector in await self.client.aencode_document(several(texts), **self._of_documents)
        ]

    async def aembed_query(self, text: str) -> SparseVector:
        """`embed_query` for asyncio."""
        return _as_theirs(await self.client.aencode_query(single(text), **self._of_queries))


def _as_theirs(vector: Any) -> SparseVector:
    return SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
