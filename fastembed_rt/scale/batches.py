"""Batches of rows as engines hand them over: what each kind is, known without importing any library.

Texts are taken out of a batch as they lie there, and the same kind of batch comes back with one column more; all other
columns are those that came, not copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInputError, InvalidTypeError
from .outputs import Output

LISTS = ("fixed", "list")  # how vectors lie in Arrow's types


@dataclass(frozen=True)
class Kind:
    """What is done with one kind of batch."""

    names: Callable[[Any], Sequence[str]]
    column: Callable[[Any, str], Any]
    # (batch, name, output, results, lists) -> the batch with a column of the results
    added: Callable[[Any, str, Output, Any, str | None], Any]


def kind_of(batch: object) -> Kind:
    """The kind of a batch.

    Raises:
        InvalidTypeError: nothing that is known here.
    """
    kind = type(batch)
    found = KINDS.get((kind.__module__.partition(".")[0], kind.__name__))
    if found is None and isinstance(batch, Mapping):
        found = COLUMNS
    if found is None:
        for base in kind.__mro__:  # a user's subclass of a frame
            found = found or KINDS.get((base.__module__.partition(".")[0], base.__name__))
    if found is None:
        raise InvalidTypeError(
            f"a batch is {kind.__module__}.{kind.__name__}; expected a Table or RecordBatch of pyarrow, a DataFrame of "
            "pandas or polars, or a dict of columns"
        )
    return found


def column_of(batch: Any, kind: Kind, name: str) -> Any:
    """A column of a batch.

    Raises:
        InvalidInputError: there is none of that name.
    """
    names = list(kind.names(batch))
    if name not in names:
        raise InvalidInputError(f"a batch has no column {name!r}; it has {', '.join(map(str, names)) or 'none'}")
    return kind.column(batch, name)


def arrow_column(output: Output, results: Any, *, fixed: bool) -> Any:
    """Results as a column of pyarrow."""
    import pyarrow

    return output.column(pyarrow, results, fixed=fixed)


def _to_arrow(batch: Any, name: str, output: Output, results: Any, lists: str | None) -> Any:
    import pyarrow

    made = output.column(pyarrow, results, fixed=lists != "list")
    field = pyarrow.field(name, output.type(pyarrow, fixed=lists != "list"))
    schema = batch.schema.append(field)  # metadata stays
    return type(batch).from_arrays([*batch.columns, made], schema=schema)


def _to_pandas(frame: Any, name: str, output: Output, results: Any, lists: str | None) -> Any:
    import pandas

    if lists is None:
        made: Any = output.objects(results)
        if isinstance(made, list):
            made = pandas.Series(made, index=frame.index, dtype=object)
    else:
        made = pandas.arrays.ArrowExtensionArray(arrow_column(output, results, fixed=lists == "fixed"))
    return frame.assign(**{name: made})


def _to_polars(frame: Any, name: str, output: Output, results: Any, lists: str | None) -> Any:
    import polars

    made = polars.from_arrow(arrow_column(output, results, fixed=lists != "list"))
    return frame.with_columns(made.alias(name))


def _to_columns(batch: Mapping[str, Any], name: str, output: Output, results: Any, lists: str | None) -> Any:
    return {**batch, name: output.numpy(results)}


ARROW = Kind(lambda batch: batch.schema.names, lambda batch, name: batch.column(name), _to_arrow)
COLUMNS = Kind(list, lambda batch, name: batch[name], _to_columns)
PANDAS = Kind(lambda frame: frame.columns, lambda frame, name: frame[name], _to_pandas)
POLARS = Kind(lambda frame: frame.columns, lambda frame, name: frame[name], _to_polars)
KINDS = {
    ("pyarrow", "Table"): ARROW,
    ("pyarrow", "RecordBatch"): ARROW,
    ("pandas", "DataFrame"): PANDAS,
    ("polars", "DataFrame"): POLARS,
}
