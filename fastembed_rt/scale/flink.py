"""Flink: a vectorized Python function for the Table API and SQL."""

from __future__ import annotations

from typing import Any

from .embed import Embed
from .required import required


def function(embed: Embed) -> Any:
    """A pandas UDF of the columns of texts: ARRAY<FLOAT>, or FLOAT where a row has one score.

    Embed's on_null holds for rows without a text. Rows a batch: python.fn-execution.arrow.batch.size. A Python worker
    has one slot's work: without threads=, its model has one thread.

    Raises:
        InvalidInputError: a task that gives neither.
    """
    from ..errors import InvalidInputError
    from .outputs import Dense, Score

    table = required("pyflink.table", "flink")
    udf = required("pyflink.table.udf", "flink").udf
    output = embed._plan.output
    kinds = {Dense: table.DataTypes.ARRAY(table.DataTypes.FLOAT()), Score: table.DataTypes.FLOAT()}
    if type(output) not in kinds:
        raise InvalidInputError("Flink's vectorized functions give vectors of one length, or scores")
    made = embed if embed.threads is not None else embed.replaced(threads=1)

    def results(*columns: Any) -> Any:
        import pandas

        found = made.results(*columns)
        return pandas.Series(found if found.ndim == 1 else list(found))

    return udf(results, result_type=kinds[type(output)], func_type="pandas")
