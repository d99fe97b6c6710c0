"""pandas: vectors of a Series of texts, and similarities of a Series of vectors. Needs pandas alone.

Once this module is imported, both are methods under `series.fastembed_rt`.
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

with needs("pandas", "pandas"):
    import pandas as pd

__all__ = ["Accessor", "embed", "similarity"]


def embed(
    texts: pd.Series[Any],
    model: str | os.PathLike[str] | EmbeddingModel,
    *,
    role: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **encode_kwargs: Any,
) -> pd.Series[Any]:
    """Vectors of texts: a Series of arrays (dim,) float32 with the same index and name, None where the text is null.

    Args:
        texts: a Series of str, of whatever dtype.
        model: a model directory, a checkpoint or a hub repository; or an EmbeddingModel that is open, which is better
            where this is called more than once.
        role: "query" or "document" for the prompt and the encoder of that role; None: those of `encode`.
        model_kwargs: options of `EmbeddingModel.from_checkpoint`.
        **encode_kwargs: of `encode`: prompt_name, prompt, truncate_dim, normalize.

    Raises:
        InvalidTypeError: something else than a Series.
        Others as `EmbeddingModel.from_checkpoint` and `encode`.
    """
    _check(texts)
    _, encode = encoder(model, role, model_kwargs, encode_kwargs)
    known = texts.notna().to_numpy()
    out = np.full(len(texts), None, dtype=object)
    rows = iter(encode(texts[known]))
    for place in np.flatnonzero(known):
        out[place] = next(rows)
    return pd.Series(out, index=texts.index, name=texts.name)


def similarity(vectors: pd.Series[Any], query: npt.ArrayLike, model: EmbeddingModel | None = None) -> pd.Series[Any]:
    """Similarity of each vector to one vector (dim,): float32 with the same index, NaN where there is no vector.

    `model` says which similarity: its own; without it, the cosine.
    """
    _check(vectors)
    score = similarities(query, model)
    known = vectors.notna().to_numpy()
    out = np.full(len(vectors), np.nan, np.float32)
    if known.any():
        out[known] = score(np.stack(vectors[known].to_list()))
    return pd.Series(out, index=vectors.index, name=vectors.name)


def _check(column: object) -> None:
    if not isinstance(column, pd.Series):
        raise InvalidTypeError(f"the column is {type(column).__name__}; pass a Series, such as frame['text']")


@pd.api.extensions.register_series_accessor("fastembed_rt")
class Accessor:
    """`frame["text"].fastembed_rt.embed(model)` and `frame["vector"].fastembed_rt.similarity(query)`."""

    def __init__(self, series: pd.Series[Any]) -> None:
        self._series = series

    def embed(self, model: str | os.PathLike[str] | EmbeddingModel, **options: Any) -> pd.Series[Any]:
        """See `embed` of this module."""
        return embed(self._series, model, **options)

    def similarity(self, query: npt.ArrayLike, model: EmbeddingModel | None = None) -> pd.Series[Any]:
        """See `similarity` of this module."""
        return similarity(self._series, query, model)
