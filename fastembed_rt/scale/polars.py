"""polars: an expression over a column, and `pl.col("text").fastembed_rt.embed("my-model")` once this is imported."""

from __future__ import annotations

import os
from typing import Any

from .embed import Embed
from .required import required

pl: Any = required("polars", "polars")


def expression(embed: Embed, texts: Any = None) -> Any:
    """The column of an Embed as an expression: an Array of floats, or what its task gives.

    Args:
        embed: what to add; its model has this process's CPUs and serves all of polars' threads.
        texts: an expression instead of the column `embed` names; for rerankers a struct of both.
    """
    names = embed.columns
    given = texts if texts is not None else pl.col(names[0]) if len(names) == 1 else pl.struct(*names)
    # An empty Series of the type: polars wants to know it before there are rows.
    kind = pl.from_arrow(embed.arrow(*([] for _ in names))).dtype

    def results(series: Any) -> Any:
        columns = [series] if len(names) == 1 else series.struct.unnest().get_columns()
        return pl.from_arrow(embed.arrow(*columns))

    return given.map_batches(results, return_dtype=kind, is_elementwise=True).alias(embed.into)


def apply(frame: Any, embed: Embed) -> Any:
    """A DataFrame or LazyFrame with the column of an Embed."""
    return frame.with_columns(expression(embed))


@pl.api.register_expr_namespace("fastembed_rt")
class Expressions:
    """What expressions of texts have under `.fastembed_rt`."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def embed(self, model: str | os.PathLike[str] | Embed, **options: Any) -> Any:
        """Vectors of the texts by a model; options as of Embed."""
        made = model if isinstance(model, Embed) else Embed(model, **options)
        return expression(made, self._texts)
