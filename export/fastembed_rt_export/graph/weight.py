"""Weights that are read when they are written: shape now, values on demand, so an export never holds two copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedCheckpointError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
AT_A_TIME = 64  # columns


def in_rows(array: Array, dtype: np.dtype[Any] | None = None) -> Array:
    """The array in C order: itself, or a copy; a transposed matrix a few columns at a time, three times as fast."""
    if array.flags.c_contiguous or array.ndim != 2:
        return np.ascontiguousarray(array, dtype=dtype)
    made = np.empty(array.shape, dtype or array.dtype)
    for begin in range(0, array.shape[1], AT_A_TIME):
        made[:, begin : begin + AT_A_TIME] = array[:, begin : begin + AT_A_TIME]
    return made


@dataclass(frozen=True)
class Weight:
    """A tensor under the name it has in the checkpoint; `load` reads it anew at each call."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Array]
    dtype: np.dtype[Any] = field(default=np.dtype(np.float32))
    take: Callable[[Sequence[int]], Array] | None = None  # some rows, where they can be read without the others

    def at(self, rows: Sequence[int]) -> Array:
        """Some rows of it, in that order."""
        return self.load()[list(rows)] if self.take is None else self.take(rows)

    def map(self, suffix: str, function: Callable[[Array], Array], shape: tuple[int, ...] | None = None) -> Weight:
        """Weight computed from this one when it is read; `shape` when the function changes it."""
        return Weight(f"{self.name}{suffix}", shape or self.shape, lambda: function(self.load()))

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def contents(self) -> memoryview:
        """Its values as they lie in a file."""
        array = in_rows(self.load(), self.dtype)
        if array.shape != self.shape:
            raise ValueError(f"weight {self.name} came as {array.shape}, {self.shape} was announced")
        view: memoryview = array.reshape(-1).view(np.uint8).data
        return view

    @property
    def transposed(self) -> Weight:
        """(out, in) as checkpoints store linear layers -> (in, out) as MatMul takes them."""
        return self.map(".T", lambda array: array.T, self.shape[::-1])

    def cast(self, dtype: np.dtype[Any]) -> Weight:
        """In a narrower float type; a value that it cannot hold is an error when it is read."""

        def load() -> Array:
            wide = self.load()
            with np.errstate(over="ignore"):
                narrow = wide.astype(dtype)
            if not np.isfinite(narrow.astype(np.float32)).all():
                largest = float(np.abs(wide).max())
                raise UnsupportedCheckpointError(
                    f"{self.name} has values to {largest:.3g}, which {dtype} does not hold; use bf16"
                )
            return narrow

        return Weight(f"{self.name}.{dtype}", self.shape, load, dtype)

    def rows(self, start: int, stop: int) -> Weight:
        """The rows from `start` to before `stop`."""
        return self.map(f".rows.{start}-{stop}", lambda array: array[start:stop], (stop - start, *self.shape[1:]))

    def scaled(self, factor: float) -> Weight:
        """Every value times `factor`, computed in float64 and rounded once."""
        return self.map(".scaled", lambda array: (array.astype(np.float64) * factor).astype(np.float32))


@dataclass(frozen=True)
class Linear:
    """A linear layer as checkpoints hold it: y = x @ weight.T + bias; weight (out, in), bias (out,)."""

    weight: Weight
    bias: Weight | None = None

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.weight.shape[1]

    def scaled(self, factor: float) -> Linear:
        """Layer whose output is `factor` times this one's."""
        return Linear(self.weight.scaled(factor), self.bias.scaled(factor) if self.bias else None)


@dataclass(frozen=True)
class Norm:
    """A normalization of the last dimension: weight and bias (H,), epsilon; `rms`: by root mean square, no bias."""

    weight: Weight
    bias: Weight | None
    epsilon: float
    rms: bool = False

    def scaled(self, factor: float) -> Norm:
        """Normalization whose output is `factor` times this one's."""
        return replace(self, weight=self.weight.scaled(factor), bias=self.bias.scaled(factor) if self.bias else None)
