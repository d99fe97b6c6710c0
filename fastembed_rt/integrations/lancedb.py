"""LanceDB: an embedding function in its registry, and a reranker. Needs lancedb alone.

Importing this module registers the function as "fastembed-rt". A process that opens a stored table has to import it
before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .. import EmbeddingModel, LateInteractionModel, Reranker
from ..errors import InvalidInputError
from ..models.kept_options import KeptOptions, ModelOptions, kept, without_secrets
from .opening import KeepsOptions, check_fields, name_of, needs, several, shared_model

with needs("lancedb", "lancedb"):
    import lancedb.rerankers
    import pyarrow as pa
    from lancedb.embeddings import TextEmbeddingFunction, register
    from pydantic import Field, PrivateAttr

__all__ = ["FastEmbedRtEmbeddings", "FastEmbedRtReranker"]


@register("fastembed-rt")
class FastEmbedRtEmbeddings(KeepsOptions, TextEmbeddingFunction):  # type: ignore[misc]  # which is not followed
    """Vectors for tables: the source column with the model's document prompt, queries with its query prompt.

    Attributes:
        name: a model directory, a checkpoint or a hub repository; the table stores it.
        model_kwargs: options of `EmbeddingModel.from_checkpoint`, such as precision, threads, prompts.
        encode_kwargs: options of each call's `encode`, such as prompt_name, prompt, normalize, truncate_dim.
        max_retries: 0: what fails here fails again, and waits for nobody.
    """

    name: str
    model_kwargs: ModelOptions = Field(default_factory=ModelOptions)
    encode_kwargs: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    max_retries: int = 0
    model_config = {"protected_namespaces": (), "hide_input_in_errors": True}  # noqa: RUF012
    _model: Any = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        """Name a model; see the attributes. `create` is LanceDB's way to do so.

        Raises:
            InvalidInputError: an argument that is none of them.
        """
        check_fields(type(self).__name__, fields.keys() - type(self).model_fields.keys())
        super().__init__(**fields)

    @classmethod
    def create(cls, **fields: Any) -> FastEmbedRtEmbeddings:
        """Name a model; LanceDB keeps these arguments beside the fields."""
        if "model_kwargs" in fields:
            fields["model_kwargs"] = kept(fields["model_kwargs"])
        made: FastEmbedRtEmbeddings = super().create(**fields)
        return made

    def safe_model_dump(self) -> dict[str, Any]:
        """What a table stores: the arguments of `create`, without a hub token."""
        stored = dict(super().safe_model_dump())
        if "model_kwargs" in stored:
            stored["model_kwargs"] = without_secrets(stored["model_kwargs"])
        return stored

    @property
    def client(self) -> EmbeddingModel:
        """The model itself, opened once in a process for all functions with these options."""
        if self._model is None:
            self._model = shared_model(EmbeddingModel, self.name, self.model_kwargs)
        return self._model  # type: ignore[no-any-return]

    def ndims(self) -> int:
        """Length of the vectors."""
        return int(self.encode_kwargs.get("truncate_dim") or self.client.dim)

    def generate_embeddings(self, texts: Sequence[str] | Any, *_: Any, **__: Any) -> list[Any]:
        """Vectors (dim,) float32 of texts to search in, all in one call; None where there is no text."""
        return self._of(self.client.encode_document, texts)

    def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[Any]:
        """The vector of a query, in a list."""
        return self._of(self.client.encode_query, self.sanitize_input(query))

    def _of(self, encode: Any, texts: Iterable[Any]) -> list[Any]:
        found = several(texts)
        made = iter(encode([text for text in found if text is not None], **self.encode_kwargs))
        return [None if text is None else next(made) for text in found]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FastEmbedRtEmbeddings) and self._about() == other._about()

    def __hash__(self) -> int:
        return hash(self._about())

    def _about(self) -> tuple[str, ...]:
        return self.name, repr(sorted(self.model_kwargs.items())), repr(sorted(self.encode_kwargs.items()))


class FastEmbedRtReranker(lancedb.rerankers.Reranker):  # type: ignore[misc]  # which is not followed
    """Results of vector, full-text and hybrid search in the order of a cross-encoder's, or of MaxSim's, scores."""

    model_kwargs = KeptOptions()

    def __init__(
        self,
        model: str | os.PathLike[str],
        column: str = "text",
        return_score: str = "relevance",
        *,
        late_interaction: bool = False,
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Name a model; it opens with the first results.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            column: the texts that are compared with the query.
            return_score: "relevance", or "all" to keep the scores of the searches too.
            late_interaction: the model is one of token vectors, not a cross-encoder.
            model_kwargs: options of `from_checkpoint`, such as precision, threads.
        """
        super().__init__(return_score)
        self.model, self.column, self.late_interaction = name_of(model), column, late_interaction
        self.model_kwargs = model_kwargs or {}

    def __str__(self) -> str:
        return f"FastEmbedRtReranker(model={self.model})"

    @cached_property
    def client(self) -> Reranker | LateInteractionModel:
        """The model itself."""
        if self.late_interaction:
            return shared_model(LateInteractionModel, self.model, self.model_kwargs)
        return shared_model(Reranker, self.model, self.model_kwargs)

    def rerank_vector(self, query: str, vector_results: Any) -> Any:
        """Results of vector search (pyarrow.Table) by falling `_relevance_score`."""
        return self._reranked(query, vector_results)

    def rerank_fts(self, query: str, fts_results: Any) -> Any:
        """Results of full-text search by falling `_relevance_score`."""
        return self._reranked(query, fts_results)

    def rerank_hybrid(self, query: str, vector_results: Any, fts_results: Any) -> Any:
        """Results of both, each row once, by falling `_relevance_score`."""
        if self.score == "all":
            return self._reranked(query, self._merge_and_keep_scores(vector_results, fts_results))
        return self._reranked(query, self.merge_results(vector_results, fts_results))

    def _reranked(self, query: str, results: Any) -> Any:
        if self.column not in results.column_names:
            raise InvalidInputError(
                f"results have no column {self.column!r} to compare with the query; they have "
                f"{', '.join(results.column_names)}: pass column="
            )
        if self.score == "relevance":
            results = results.drop_columns([name for name in ("_distance", "_score") if name in results.column_names])
        texts = [text or "" for text in results[self.column].to_pylist()]
        order = self.client.rank(query, texts) if texts else []
        ranked = results.take(pa.array([entry.index for entry in order], pa.int64()))
        scores = np.array([entry.score for entry in order], np.float32)
        return ranked.append_column("_relevance_score", pa.array(scores, pa.float32()))
