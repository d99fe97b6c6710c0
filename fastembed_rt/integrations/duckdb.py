"""DuckDB: SQL functions that embed a column. Needs duckdb and pyarrow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import EmbeddingModel
from .columns import check_options
from .opening import needs, open_model

with needs("duckdb pyarrow", "duckdb"):
    import duckdb
    import pyarrow as pa

__all__ = ["register"]


def register(
    connection: duckdb.DuckDBPyConnection,
    model: str | os.PathLike[str] | EmbeddingModel,
    *,
    name: str = "embed",
    model_kwargs: Mapping[str, Any] | None = None,
    **encode_kwargs: Any,
) -> EmbeddingModel:
    """Make SQL functions `NAME(text)` and `NAME_query(text)`, FLOAT[dim] each, NULL where the text is.

    NAME embeds documents with the model's document prompt, NAME_query queries with its query prompt. DuckDB hands over
    a vector of rows at a time (2,048), as Arrow.

    Args:
        connection: whose functions they are.
        model: a model directory, a checkpoint or a hub repository; or an EmbeddingModel that is open.
        name: of the functions.
        model_kwargs: options of `EmbeddingModel.from_checkpoint`.
        **encode_kwargs: of `encode`: prompt_name, prompt, truncate_dim, normalize.

    Returns:
        The model, which has to stay open as long as the functions are called.

    Raises:
        InvalidInputError: an option that is not for columns.
        Others as `EmbeddingModel.from_checkpoint`; duckdb.Error: a name that a function has.
    """
    check_options(encode_kwargs)
    opened = open_model(EmbeddingModel, model, model_kwargs)
    dim = encode_kwargs.get("truncate_dim") or opened.dim

    def function(encode: Any) -> Any:
        def embed(texts: pa.ChunkedArray) -> pa.Array:
            rows = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
            known = rows.drop_null()
            vectors = np.asarray(encode(known, **encode_kwargs), np.float32).reshape(-1, dim)
            made = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
            if rows.null_count:  # a row of each text that is there, none where it is not
                there = np.asarray(rows.is_valid())
                made = made.take(pa.array(np.cumsum(there) - 1, mask=~there))
            return made

        return embed

    for suffix, encode in (("", opened.encode_document), ("_query", opened.encode_query)):
        connection.create_function(
            name + suffix, function(encode), ["VARCHAR"], f"FLOAT[{dim}]", type="arrow", null_handling="special"
        )
    return opened
