"""Results of each task as columns: of Arrow, as numpy, as objects. Knows no model and no table.

`fixed` asks for fixed-size lists, where all rows have one length. Numbers are never copied, only where rows have their
own lengths and have to lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..vectors.sparse import SparseVector

Array = npt.NDArray[Any]
MOST = 2**31 - 1  # numbers in one array of Arrow's lists, whose offsets are int32
FLOAT32 = np.dtype(np.float32)


class Output(Protocol):
    """What a model gives for rows."""

    def empty(self) -> Any:
        """Results of no rows."""

    def type(self, arrow: Any, *, fixed: bool) -> Any:
        """Arrow's type of the column; `arrow` is pyarrow."""

    def column(self, arrow: Any, results: Any, *, fixed: bool) -> Any:
        """Arrow's column of the results."""

    def numpy(self, results: Any) -> Any:
        """What stands in a dict of columns: one array, or a list where rows have their own lengths."""

    def objects(self, results: Any) -> Any:
        """Each row's result, a list of views or an array of numbers."""


@dataclass(frozen=True)
class Dense:
    """Vectors of one length: (n, width)."""

    width: int
    dtype: np.dtype[Any] = FLOAT32

    def empty(self) -> Array:  # noqa: D102
        return np.empty((0, self.width), self.dtype)

    def type(self, arrow: Any, *, fixed: bool) -> Any:  # noqa: D102
        return _list_of(arrow, arrow.from_numpy_dtype(self.dtype), self.width if fixed else -1)

    def column(self, arrow: Any, results: Array, *, fixed: bool) -> Any:  # noqa: D102
        flat = arrow.array(np.ascontiguousarray(results).reshape(-1), arrow.from_numpy_dtype(self.dtype))
        if fixed:
            return arrow.FixedSizeListArray.from_arrays(flat, type=self.type(arrow, fixed=True))
        return arrow.ListArray.from_arrays(_starts(arrow, np.full(len(results), self.width)), flat)

    def numpy(self, results: Array) -> Array:  # noqa: D102
        return results

    def objects(self, results: Array) -> list[Any]:  # noqa: D102
        return list(results)


@dataclass(frozen=True)
class Score:
    """One score a row: (n,) float32."""

    def empty(self) -> Array:  # noqa: D102
        return np.empty(0, np.float32)

    def type(self, arrow: Any, *, fixed: bool) -> Any:  # noqa: D102
        return arrow.float32()

    def column(self, arrow: Any, results: Array, *, fixed: bool) -> Any:  # noqa: D102
        return arrow.array(results, arrow.float32())

    def numpy(self, results: Array) -> Array:  # noqa: D102
        return results

    def objects(self, results: Array) -> Array:  # noqa: D102
        return results


@dataclass(frozen=True)
class Sparse:
    """Weights of words: a struct of `indices` and `values`, lists of one length in each row."""

    def empty(self) -> list[SparseVector]:  # noqa: D102
        return []

    def type(self, arrow: Any, *, fixed: bool) -> Any:  # noqa: D102
        return arrow.struct([("indices", arrow.list_(arrow.int32())), ("values", arrow.list_(arrow.float32()))])

    def column(self, arrow: Any, results: Sequence[SparseVector], *, fixed: bool) -> Any:  # noqa: D102
        starts = _starts(arrow, [len(vector) for vector in results])
        indices = _joined([vector.indices for vector in results], np.dtype(np.int32))
        values = _joined([vector.values for vector in results], FLOAT32)
        lists = [arrow.ListArray.from_arrays(starts, arrow.array(part)) for part in (indices, values)]
        return arrow.StructArray.from_arrays(lists, fields=list(self.type(arrow, fixed=False)))

    def numpy(self, results: Sequence[SparseVector]) -> list[Any]:  # noqa: D102
        return self.objects(results)

    def objects(self, results: Sequence[SparseVector]) -> list[Any]:  # noqa: D102
        return [{"indices": vector.indices.astype(np.int32), "values": vector.values} for vector in results]


@dataclass(frozen=True)
class Tokens:
    """A vector a token: (tokens, width) float32 of each row."""

    width: int

    def empty(self) -> list[Array]:  # noqa: D102
        return []

    def type(self, arrow: Any, *, fixed: bool) -> Any:  # noqa: D102
        return arrow.list_(_list_of(arrow, arrow.float32(), self.width if fixed else -1))

    def column(self, arrow: Any, results: Sequence[Array], *, fixed: bool) -> Any:  # noqa: D102
        flat = _joined(results, FLOAT32).reshape(-1, self.width)
        inner = Dense(self.width).column(arrow, flat, fixed=fixed)
        return arrow.ListArray.from_arrays(_starts(arrow, [len(vectors) for vectors in results]), inner)

    def numpy(self, results: Sequence[Array]) -> list[Any]:  # noqa: D102
        return list(results)

    def objects(self, results: Sequence[Array]) -> list[Any]:  # noqa: D102
        return list(results)


def _list_of(arrow: Any, values: Any, width: int) -> Any:
    return arrow.list_(values, width)


def _joined(parts: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    return np.concatenate(parts).astype(dtype, copy=False) if len(parts) else np.empty(0, dtype)


def _starts(arrow: Any, lengths: Sequence[int] | Array) -> Any:
    """Where each row's list begins, and where the last ends.

    Raises:
        InvalidInputError: more numbers than one array of lists can hold.
    """
    ends = np.cumsum(np.concatenate(([0], np.asarray(lengths, np.int64))))
    if ends[-1] > MOST:
        raise InvalidInputError(
            f"a batch of {len(ends) - 1} rows gives {ends[-1]} numbers, and an Arrow list array holds {MOST}; have the "
            "engine make smaller batches"
        )
    return arrow.array(ends.astype(np.int32))
