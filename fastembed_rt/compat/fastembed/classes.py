"""fastembed's four classes of text models on model directories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from ...errors import InvalidInputError, ModelNotFoundError
from ...models import bm25
from ...models.embedding import EmbeddingModel
from ...models.late_interaction import LateInteractionModel
from ...models.reranker import Reranker
from ...models.sparse import SparseModel
from ...text.windows import TEXTS
from ...vectors.dense import Vectors
from .base import Entry, FastembedModel, NotSupportedError, counted, described, pieces, refuse, texts_of
from .descriptions import (
    DenseModelDescription,
    ModelDescription,
    ModelSource,
    PoolingType,
    SparseEmbedding,
    SparseModelDescription,
)

Registered = dict[str, Entry]
BM25 = SparseModelDescription(
    model=bm25.NAME,
    sources=ModelSource(hf=bm25.NAME),
    model_file="config.json",
    description="BM25 as sparse vectors, for a database that weighs words by how rare they are",
    license="apache-2.0",
    size_in_GB=0.01,
    additional_files=[f"{name}.txt" for name in bm25.LANGUAGES if name not in bm25.WITHOUT_STOP_WORDS],
    requires_idf=True,
    vocab_size=0,
)
UNBUILT = ("qdrant/bm42", "qdrant/minicoil")
OF_GRAPHS = ("provider", "device_ids", "threads")  # options that are nothing to BM25
V = TypeVar("V", Vectors, SparseEmbedding)


class _OfTexts(FastembedModel, Generic[V]):
    """Encoders that take queries as documents, without a prompt of the model's, as in fastembed.

    Where they have encoders of their own in the model, each goes through its own, as Jina v3's tasks do there.
    """

    _vectors: Callable[[Any, Any], Iterator[V]]

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[V]:
        """Vectors of texts, in order; begins when the first one is asked for.

        They are (dim,) float32, or a SparseEmbedding each.

        Args:
            documents: one text, or any number of them.
            batch_size: without effect: batches are made of tokens.
            parallel: without effect: one process uses all CPUs.
            **options: refused.
        """
        return self._embed("document", documents, batch_size, parallel, **options)

    def query_embed(self, query: str | Iterable[str], **options: Any) -> Iterator[V]:
        """Vectors of queries; arguments as for `embed`."""
        return self._embed("query", query, **options)

    def passage_embed(self, texts: Iterable[str], **options: Any) -> Iterator[V]:
        """`embed`."""
        return self._embed("document", texts, **options)

    def _embed(
        self, role: str, texts: Any, batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[V]:
        refuse("embed", options)
        yield from self._vectors(self.model.get().for_role(role), texts_of(texts))

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024, **options: Any) -> int:
        """Tokens of all texts together, special tokens included, each cut at the model's limit."""
        refuse("token_count", options)
        return _tokens(self.model.get(), texts_of(texts), batch_size)


class TextEmbedding(_OfTexts[Vectors]):
    """A sentence encoder with fastembed's calls; see docs/from-fastembed.md for what differs."""

    opens = EmbeddingModel
    registered: ClassVar[Registered] = {}

    def __init__(self, model_name: str = "BAAI/bge-small-en-v1.5", *arguments: Any, **options: Any) -> None:
        """Open a model; arguments as for `FastembedModel`."""
        super().__init__(model_name, *arguments, **options)

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        pooling: Any = PoolingType.DISABLED,
        normalization: bool = False,
        sources: Any = None,
        dim: int | None = None,
        model_file: str = "model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - fastembed's name
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Register a name for a model directory or a hub repository that holds one.

        Args:
            model: the name.
            pooling: checked against the graph's, which has done it; DISABLED takes what is there.
            normalization: unit length also where the graph does not normalize.
            sources: ModelSource(hf=...), a hub repository or a directory.
            dim: checked against the model's, where it is given.
            model_file: for people to read.
            description: for people to read.
            license: for people to read.
            size_in_gb: for people to read.
            additional_files: for people to read.

        Raises:
            InvalidInputError: a name that is registered, or no source; a ValueError.
        """
        facts = _facts(description, license, size_in_gb, additional_files)
        made = described(DenseModelDescription, model, sources, model_file, facts, dim=dim)
        name = getattr(pooling, "value", pooling)
        cls._register(made, name, normalization=normalization)

    def _vectors(self, model: EmbeddingModel, texts: Any) -> Iterator[Vectors]:
        settings: dict[str, Any] = {"prompt": "", "normalize": True if self._normalize else None}
        if isinstance(texts, list) and len(texts) <= TEXTS:
            yield from model.encode(texts, **settings)
        else:
            yield from model.embed(texts, **settings)


class SparseTextEmbedding(_OfTexts[SparseEmbedding]):
    """A sparse encoder with fastembed's calls; see docs/from-fastembed.md for what differs."""

    opens = SparseModel
    registered: ClassVar[Registered] = {}

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: Any,
        model_file: str = "model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - fastembed's name
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
        vocab_size: int | None = None,
        requires_idf: bool | None = None,
    ) -> None:
        """Register a name for a directory or a hub repository; arguments as for TextEmbedding's."""
        facts = _facts(description, license, size_in_gb, additional_files)
        own = {"vocab_size": vocab_size, "requires_idf": requires_idf}
        cls._register(described(SparseModelDescription, model, sources, model_file, facts, **own))

    @classmethod
    def _list_supported_models(cls) -> list[ModelDescription]:
        return [BM25, *super()._list_supported_models()]

    def _open(self) -> Any:
        name = self.model_name.lower()
        if name.startswith(UNBUILT) and name not in self.registered:
            raise NotSupportedError(
                f"{self.model_name} is not built here; of fastembed's sparse models without a head over words "
                f"{bm25.NAME} is, and any SPLADE"
            )
        if name != bm25.NAME.lower():
            return super()._open()
        options = {name: value for name, value in self._options.items() if name not in OF_GRAPHS}
        try:
            return bm25.BM25(self._place or bm25.NAME, **options)
        except ModelNotFoundError as error:
            raise NotSupportedError(str(error)) from error

    def _embed(
        self, role: str, texts: Any, batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[SparseEmbedding]:
        refuse("embed", options)
        model = self.model.get()
        if not isinstance(model, bm25.BM25):
            yield from super()._embed(role, texts)
        elif role == "document":
            yield from (SparseEmbedding.from_dict(model.weights(text)) for text in texts_of(texts))
        else:
            for text in texts_of(texts):
                indices = np.array(model.query_numbers(text), dtype=np.int64)
                yield SparseEmbedding(values=np.ones_like(indices), indices=indices)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024, **options: Any) -> int:
        """Tokens of all texts together, special tokens included, each cut at the model's limit; of BM25 all words."""
        model = self.model.get()
        if not isinstance(model, bm25.BM25):
            return super().token_count(texts, batch_size, **options)
        refuse("token_count", options)
        return sum(map(model.count_words, texts_of(texts)))

    def _vectors(self, model: SparseModel, texts: Any) -> Iterator[SparseEmbedding]:
        yield from map(SparseEmbedding.of, model.embed(texts, prompt=""))


class LateInteractionTextEmbedding(FastembedModel):
    """A late-interaction encoder with fastembed's calls; see docs/from-fastembed.md for what differs."""

    opens = LateInteractionModel
    registered: ClassVar[Registered] = {}

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: Any,
        dim: int | None = None,
        model_file: str = "model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - fastembed's name
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Register a name for a directory or a hub repository; arguments as for TextEmbedding's."""
        facts = _facts(description, license, size_in_gb, additional_files)
        cls._register(described(DenseModelDescription, model, sources, model_file, facts, dim=dim))

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[Vectors]:
        """Token vectors (tokens, dim) float32 of documents, in order; arguments as for TextEmbedding."""
        refuse("embed", options)
        model: LateInteractionModel = self.model.get()
        yield from model.embed_documents(texts_of(documents))

    def passage_embed(self, texts: Iterable[str], **options: Any) -> Iterator[Vectors]:
        """`embed`."""
        return self.embed(texts, **options)

    def query_embed(self, query: str | Iterable[str], **options: Any) -> Iterator[Vectors]:
        """Token vectors (tokens, dim) float32 of queries, in order."""
        refuse("query_embed", options)
        model: LateInteractionModel = self.model.get()
        for piece in pieces(texts_of(query), TEXTS):
            yield from model.encode_query(piece)

    def token_count(
        self,
        texts: str | Iterable[str],
        batch_size: int = 1024,
        is_doc: bool = True,
        include_extension: bool = False,
        **options: Any,
    ) -> int:
        """Tokens of all texts together, special tokens included.

        Args:
            texts: one or several.
            batch_size: texts that are tokenized at a time.
            is_doc: whether they are documents, or queries.
            include_extension: count markers, and the mask tokens that queries are filled up with.
            **options: refused.
        """
        refuse("token_count", options)
        model: LateInteractionModel = self.model.get()
        prompt = model.prompts.get("document" if is_doc else "query", "") if include_extension else ""
        least = model.expansion_length if include_extension and not is_doc else 0
        limit = model.document_length if is_doc else model.query_length
        total = 0
        for piece in pieces(texts_of(texts), batch_size):
            counts = model.count_tokens(piece, prompt=prompt)
            total += counted(np.maximum(counts, least), limit)
        return total


class TextCrossEncoder(FastembedModel):
    """A cross-encoder with fastembed's calls; see docs/from-fastembed.md for what differs."""

    opens = Reranker
    registered: ClassVar[Registered] = {}

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: Any,
        model_file: str = "model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - fastembed's name
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Register a name for a directory or a hub repository; arguments as for TextEmbedding's."""
        facts = _facts(description, license, size_in_gb, additional_files)
        cls._register(described(ModelDescription, model, sources, model_file, facts))

    def rerank(self, query: str, documents: Iterable[str], batch_size: int = 64, **options: Any) -> Iterator[float]:
        """Scores of documents to a query, in the documents' order: logits, as fastembed gives them."""
        return self.rerank_pairs(((query, document) for document in documents), batch_size, **options)

    def rerank_pairs(
        self, pairs: Iterable[tuple[str, str]], batch_size: int = 64, parallel: int | None = None, **options: Any
    ) -> Iterator[float]:
        """Scores of pairs of texts, in order: logits.

        Raises:
            InvalidInputError: a model with several labels.
        """
        refuse("rerank", options)
        model: Reranker = self.model.get()
        if len(model.labels) != 1:
            raise InvalidInputError(f"{self.model_name} gives {len(model.labels)} scores a pair; use Reranker.predict")
        for piece in pieces(pairs, TEXTS):
            scores: Any = model.predict(piece, prompt="", activation="identity")
            yield from scores.tolist()

    def token_count(self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024, **options: Any) -> int:
        """Tokens of all pairs together, special tokens included, each cut at the model's limit."""
        refuse("token_count", options)
        return _tokens(self.model.get(), pairs, batch_size)


def _facts(description: str, license_name: str, size: float, files: list[str] | None) -> dict[str, Any]:
    return {
        "description": description,
        "license": license_name,
        "size_in_GB": size,
        "additional_files": files or [],
    }


def _tokens(model: Any, texts: Iterable[Any], size: int) -> int:
    options = {} if isinstance(model, Reranker) else {"prompt": ""}
    return sum(counted(model.count_tokens(piece, **options), model.max_length) for piece in pieces(texts, size))
