"""polars: vectors of a column of texts, and similarities of a column of vectors, as expressions. Needs polars alone.

Expressions work in eager and lazy frames. Once this module is imported, they are also methods under
`pl.col("text").fastembed_rt`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import EmbeddingModel
from ..errors import InvalidTypeError
from .columns import encoder, similarities
from .opening import needs

with needs("polars", "polars"):
    import polars as pl

__all__ = ["Expressions", "embed", "similarity"]


def embed(
    texts: str | pl.Expr,
    model: str | os.PathLike[str] | EmbeddingModel,
    *,
    role: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **encode_kwargs: Any,
) -> pl.Expr:
    """Vectors of a column of texts: Array(Float32, dim), null where the text is null.

    A call of the model for each batch of rows that polars passes on: in the default engine all rows at once.

    Args:
        texts: a column's name or an expression of String.
        model: a model directory, a checkpoint or a hub repository, opened now; or an EmbeddingModel that is open.
        role: "query" or "document" for the prompt and the encoder of that role; None: those of `encode`.
        model_kwargs: options of `EmbeddingModel.from_checkpoint`.
        **encode_kwargs: of each call's `encode`: prompt_name, prompt, truncate_dim, normalize.

    Raises:
        InvalidTypeError: something else than a name or an expression.
        Others as `EmbeddingModel.from_checkpoint`, and when it runs as `encode`.
    """
    dim, encode = encoder(model, role, model_kwargs, encode_kwargs)
    kind = pl.Array(pl.Float32, dim)

    def vectors(column: pl.Series) -> pl.Series:
        known = column.is_not_null()
        if known.all():
            return pl.Series(encode(column), dtype=kind)
        out = np.zeros((len(column), dim), np.float32)
        out[known.to_numpy()] = encode(column.filter(known))
        return _only_where(known, pl.Series(out, dtype=kind))

    return _column(texts).map_batches(vectors, return_dtype=kind, is_elementwise=True)


def similarity(vectors: str | pl.Expr, query: npt.ArrayLike, model: EmbeddingModel | None = None) -> pl.Expr:
    """Similarity of each vector of a column to one vector (dim,): Float32, null where the vector is null.

    `model` says which similarity: its own; without it, the cosine.
    """
    score = similarities(query, model)

    def scores(column: pl.Series) -> pl.Series:
        known = column.is_not_null()
        given = column.filter(known)
        out = np.zeros(len(column), np.float32)
        if len(given):
            out[known.to_numpy()] = score(given.explode().to_numpy().reshape(len(given), -1))
        return _only_where(known, pl.Series(out))

    return _column(vectors).map_batches(scores, return_dtype=pl.Float32, is_elementwise=True)


def _column(wanted: str | pl.Expr) -> pl.Expr:
    if isinstance(wanted, str):
        return pl.col(wanted)
    if not isinstance(wanted, pl.Expr):
        raise InvalidTypeError(
            f"the column is {type(wanted).__name__}; pass its name or an expression (encode takes a Series)"
        )
    return wanted


def _only_where(known: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(known).then(values)).to_series()


@pl.api.register_expr_namespace("fastembed_rt")
class Expressions:
    """`pl.col("text").fastembed_rt.embed(model)` and `pl.col("vector").fastembed_rt.similarity(query)`."""

    def __init__(self, column: pl.Expr) -> None:
        self._column = column

    def embed(self, model: str | os.PathLike[str] | EmbeddingModel, **options: Any) -> pl.Expr:
        """See `embed` of this module."""
        return embed(self._column, model, **options)

    def similarity(self, query: npt.ArrayLike, model: EmbeddingModel | None = None) -> pl.Expr:
        """See `similarity` of this module."""
        return similarity(self._column, query, model)
