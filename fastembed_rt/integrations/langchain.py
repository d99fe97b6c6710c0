"""LangChain: embeddings, a reranker as document compressor, and a cross-encoder. Needs langchain-core alone.

Sparse vectors for hybrid retrieval have a module of their own, langchain_qdrant, since their interface is Qdrant's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import EmbeddingModel, Reranker
from ..models.kept_options import ModelOptions
from ..models.reranker import Ranked
from .opening import KeepsOptions, fingerprint, needs, open_model, several, single

with needs("langchain-core", "langchain"):
    from langchain_core.callbacks import Callbacks
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

__all__ = ["FastEmbedRtCrossEncoder", "FastEmbedRtEmbeddings", "FastEmbedRtRerank"]
CONFIG = ConfigDict(
    extra="forbid",
    arbitrary_types_allowed=True,
    protected_namespaces=(),
    hide_input_in_errors=True,  # a hub token may be in it
)


class FastEmbedRtEmbeddings(KeepsOptions, BaseModel, Embeddings):
    """Vectors for LangChain: documents with the model's document prompt, queries with its query prompt.

    Lists of as many texts as there are go in one call; the model makes its own batches. Pickles and copies share the
    model's engine; pickles have no hub token.
    """

    model: str | Path | EmbeddingModel
    """A model directory, a checkpoint or a hub repository; or an EmbeddingModel that is open."""
    model_kwargs: ModelOptions = Field(default_factory=ModelOptions)
    """Options of `EmbeddingModel.from_checkpoint`, such as precision, threads, prompts, truncate_dim."""
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of each call's `encode`, such as prompt_name, prompt, normalize, truncate_dim."""
    query_encode_kwargs: dict[str, Any] | None = None
    """The same for queries; None takes encode_kwargs."""
    show_progress: bool = False
    """A tqdm bar over the documents on stderr."""

    model_config = CONFIG
    _model: EmbeddingModel = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """Open the model.

        Raises:
            ModelNotFoundError, ModelFormatError and others: as `EmbeddingModel.from_checkpoint`.
        """
        super().__init__(**fields)
        self._model = open_model(EmbeddingModel, self.model, self.model_kwargs)

    @property
    def client(self) -> EmbeddingModel:
        """The model itself, for what LangChain has no method for."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """A name for caches of these vectors: with the model, prompts and options, of documents and of queries.

        Raises:
            InvalidInputError: int8 or uint8 without ranges, whose vectors are those of one call alone.
        """
        named = (
            fingerprint(self._model, "document", self.encode_kwargs),
            fingerprint(self._model, "query", self._of_queries),
        )
        return "-".join(dict.fromkeys(named))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors (n, dim) of texts to search in, as lists of numbers that are float32's."""
        found: list[list[float]] = self._model.encode_document(several(texts), **self._of_documents).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        """The vector (dim,) of a question."""
        found: list[float] = self._model.encode_query(single(text), **self._of_queries).tolist()
        return found

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` for asyncio: the event loop stays free, and calls that wait together are run together."""
        found: list[list[float]] = (await self._model.aencode_document(several(texts), **self._of_documents)).tolist()
        return found

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` for asyncio."""
        found: list[float] = (await self._model.aencode_query(single(text), **self._of_queries)).tolist()
        return found

    @property
    def _of_documents(self) -> dict[str, Any]:
        return {"show_progress_bar": self.show_progress, **self.encode_kwargs}

    @property
    def _of_queries(self) -> dict[str, Any]:
        return self.encode_kwargs if self.query_encode_kwargs is None else self.query_encode_kwargs


class FastEmbedRtRerank(KeepsOptions, BaseDocumentCompressor):
    """Documents by falling score of a reranker, for a ContextualCompressionRetriever or any other chain.

    What comes back are copies with the score in `metadata["relevance_score"]`; the documents given stay as they are.
    """

    model: str | Path | Reranker
    """A model directory, a checkpoint or a hub repository; or a Reranker that is open."""
    top_n: int | None = Field(default=3, ge=1)
    """The best so many; None for all."""
    model_kwargs: ModelOptions = Field(default_factory=ModelOptions)
    """Options of `Reranker.from_checkpoint`."""
    rank_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of each call's `rank`, such as prompt_name, prompt, activation."""

    model_config = CONFIG
    _model: Reranker = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """Open the model; errors as for FastEmbedRtEmbeddings."""
        super().__init__(**fields)
        self._model = open_model(Reranker, self.model, self.model_kwargs)

    @property
    def client(self) -> Reranker:
        """The model itself."""
        return self._model

    def rerank(
        self, documents: Sequence[str | Document], query: str, *, top_n: int | None = None
    ) -> list[dict[str, Any]]:
        """`{"index": ..., "relevance_score": ...}` of the best documents, by falling score; `top_n` instead of ours."""
        return _as_rows(self._model.rank(query, _contents(documents), **self._options(top_n)))

    async def arerank(
        self, documents: Sequence[str | Document], query: str, *, top_n: int | None = None
    ) -> list[dict[str, Any]]:
        """`rerank` for asyncio."""
        return _as_rows(await self._model.arank(query, _contents(documents), **self._options(top_n)))

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Copies of the best documents, by falling score."""
        return _scored(documents, self._model.rank(query, _contents(documents), **self._options(None)))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """`compress_documents` for asyncio: the event loop stays free."""
        return _scored(documents, await self._model.arank(query, _contents(documents), **self._options(None)))

    def _options(self, top_n: int | None) -> dict[str, Any]:
        return {"top_k": self.top_n if top_n is None else top_n, **self.rank_kwargs}


class FastEmbedRtCrossEncoder(KeepsOptions, BaseModel, BaseCrossEncoder):
    """Scores of pairs, for LangChain's own CrossEncoderReranker."""

    model: str | Path | Reranker
    """A model directory, a checkpoint or a hub repository; or a Reranker that is open."""
    model_kwargs: ModelOptions = Field(default_factory=ModelOptions)
    """Options of `Reranker.from_checkpoint`."""
    predict_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of each call's `predict`, such as prompt_name, prompt, activation."""

    model_config = CONFIG
    _model: Reranker = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """Open the model; errors as for FastEmbedRtEmbeddings."""
        super().__init__(**fields)
        self._model = open_model(Reranker, self.model, self.model_kwargs)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """One score a pair, in order."""
        found: list[float] = self._model.predict(list(text_pairs), **self.predict_kwargs).tolist()
        return found


def _contents(documents: Iterable[str | Document]) -> list[str]:
    # What is neither is for the model to name.
    return [getattr(entry, "page_content", entry) for entry in several(documents)]


def _as_rows(ranked: Iterable[Ranked]) -> list[dict[str, Any]]:
    return [{"index": entry.index, "relevance_score": entry.score} for entry in ranked]


def _scored(documents: Sequence[Document], ranked: Iterable[Ranked]) -> list[Document]:
    made = []
    for entry in ranked:
        found = documents[entry.index]
        metadata = {**found.metadata, "relevance_score": entry.score}
        made.append(found.model_copy(update={"metadata": metadata}))
    return made
