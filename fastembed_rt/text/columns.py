"""Columns of texts as other libraries hold them: recognised without importing any, turned into str piece by piece.

The tokenizer wants str in the end, and takes 10 us a text and more. Iterating over a column takes 0.2 to 6 us, its own
way to objects 0.01 to 0.9. So pieces go that way, and no list of a whole column is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidTypeError


class Column(Protocol):
    """A column to type checkers: numpy, pandas, polars."""

    def __len__(self) -> int:
        """Rows."""

    @property
    def dtype(self) -> Any:
        """Of its values."""


class ArrowColumn(Protocol):
    """A column to type checkers: pyarrow."""

    def __len__(self) -> int:
        """Rows."""

    @property
    def type(self) -> Any:
        """Of its values."""


Texts = str | Sequence[str] | Column | ArrowColumn  # one text or several
PIECE = 4096  # rows that are turned into str at a time


def column(inputs: object) -> tuple[int, Iterator[Any]] | None:
    """Rows and an iterator over them, str or null each; None for what is no column of a library known here.

    Raises:
        InvalidTypeError: a column of something else than texts.
    """
    kind = type(inputs)
    library = kind.__module__.partition(".")[0]
    reader = READERS.get(library)
    return None if reader is None else reader(inputs)


def is_null(value: object) -> bool:
    """Whether a row has no text: None, NaN, pandas' NA and NaT, a null of pyarrow."""
    if value is None:
        return True
    kind = type(value)
    if kind.__name__ in ("NAType", "NaTType") and kind.__module__.partition(".")[0] == "pandas":
        return True
    return isinstance(value, (float, np.floating)) and value != value  # noqa: PLR0124


def _pieces(length: int, piece: Any) -> tuple[int, Iterator[Any]]:
    def rows() -> Iterator[Any]:
        for start in range(0, length, PIECE):
            yield from piece(start, min(start + PIECE, length))

    return length, rows()


def _pyarrow(array: Any) -> tuple[int, Iterator[Any]] | None:
    if type(array).__name__ == "ChunkedArray":
        found = [_pyarrow(chunk) for chunk in array.chunks]
        _refuse_arrow(array.type)
        return len(array), (row for chunk in found if chunk is not None for row in chunk[1])
    if not hasattr(array, "type") or not hasattr(array, "to_numpy"):  # a table, a scalar
        return None
    _refuse_arrow(array.type)
    return _pieces(len(array), lambda start, stop: array[start:stop].to_numpy(zero_copy_only=False).tolist())


def _refuse_arrow(kind: Any) -> None:
    values = str(getattr(kind, "value_type", kind) if str(kind).startswith("dictionary") else kind)
    if values not in ("string", "large_string", "string_view", "null"):
        hint = "; cast it with .cast('string')" if "binary" in values else ""
        raise InvalidTypeError(f"inputs are a pyarrow column of {kind}, expected strings{hint}")


def _pandas(series: Any) -> tuple[int, Iterator[Any]] | None:
    if getattr(series, "ndim", None) != 1 or not hasattr(series, "to_numpy"):  # a DataFrame
        return None
    # By position, whatever the index is; `array` has no index of its own, and is what a Series holds.
    values = getattr(series, "array", series)
    return _pieces(len(values), lambda start, stop: values[start:stop].to_numpy(dtype=object).tolist())


def _polars(series: Any) -> tuple[int, Iterator[Any]] | None:
    if type(series).__name__ != "Series":
        return None
    kind = str(series.dtype)
    if kind.partition("(")[0] not in ("String", "Utf8", "Categorical", "Enum", "Null", "Object"):
        raise InvalidTypeError(f"inputs are a polars column of {kind}, expected String")
    return _pieces(len(series), lambda start, stop: series[start:stop].to_list())


def _numpy(array: Any) -> tuple[int, Iterator[Any]] | None:
    if getattr(array, "ndim", None) != 1:
        return None
    return _pieces(len(array), lambda start, stop: array[start:stop].tolist())


READERS = {"pyarrow": _pyarrow, "pandas": _pandas, "polars": _polars, "numpy": _numpy}
