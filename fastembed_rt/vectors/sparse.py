"""Sparse vectors: what is not zero, by index; their arithmetic. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, InvalidTypeError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class SparseVector:
    """One text's weights of words."""

    indices: npt.NDArray[np.int64]  # (k,) ascending, below dim: token ids
    values: Floats  # (k,) none of them zero
    dim: int

    @classmethod
    def zero(cls, dim: int) -> SparseVector:
        """No words at all."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float32), dim)

    def __repr__(self) -> str:
        return f"SparseVector({len(self)} of {self.dim} dimensions)"

    def __len__(self) -> int:
        return len(self.indices)

    def to_dense(self) -> Floats:
        """(dim,) with the zeros."""
        out = np.zeros(self.dim, np.float32)
        out[self.indices] = self.values
        return out

    def as_dict(self) -> dict[int, float]:
        """Values by index, for a vector database."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))

    def heaviest(self, count: int) -> SparseVector:
        """The largest `count` values; of equal ones those with the smaller indices."""
        if len(self) <= count:
            return self
        kept = np.sort(np.argsort(-self.values, kind="stable")[:count])
        return SparseVector(self.indices[kept], self.values[kept], self.dim)


def sparse_rows(weights: Floats) -> list[SparseVector]:
    """Each row of (n, dim) without its zeros."""
    dim = weights.shape[1]
    found = []
    for row in weights:
        indices = np.flatnonzero(row)
        found.append(SparseVector(indices, row[indices], dim))
    return found


def similarity(
    function: str, left: SparseVector | Sequence[SparseVector], right: SparseVector | Sequence[SparseVector]
) -> Floats:
    """Similarity matrix of n and m sparse vectors: (n, m) float32; distances are negated. Computed in float64.

    Raises:
        InvalidInputError: vectors of different vocabularies, a function that does not exist.
    """
    rows, columns = _listed(left), _listed(right)
    dims = {vector.dim for vector in (*rows, *columns)}
    if len(dims) > 1:
        raise InvalidInputError(f"sparse vectors of {sorted(dims)} dimensions do not fit together")
    if function not in ("dot", "cosine", "euclidean", "manhattan"):
        raise InvalidInputError(f"similarity {function!r} is not known; known: dot, cosine, euclidean, manhattan")
    out = np.zeros((len(rows), len(columns)), np.float32)
    if not out.size:
        return out
    places = np.concatenate([vector.indices for vector in columns])
    values = np.concatenate([vector.values for vector in columns]).astype(np.float64)
    owner = np.repeat(np.arange(len(columns)), [len(vector) for vector in columns])
    dense = np.zeros(dims.pop())
    for k, vector in enumerate(rows):
        own = vector.values.astype(np.float64)
        dense[vector.indices] = own
        there = dense[places]
        if function in ("dot", "cosine"):
            terms, rest = there * values, 0.0
        elif function == "euclidean":
            # Where the right side has words, and then where only the left side has some.
            terms, rest = (there - values) ** 2 - there**2, float(own @ own)
        else:
            terms, rest = np.abs(there - values) - np.abs(there), float(np.abs(own).sum())
        sums = np.bincount(owner, terms, minlength=len(columns)) + rest
        out[k] = -np.sqrt(np.maximum(sums, 0.0)) if function == "euclidean" else sums
        dense[vector.indices] = 0.0
    if function == "manhattan":
        return -out
    if function == "cosine":
        lengths = [np.maximum([np.linalg.norm(v.values) for v in side], 1e-12) for side in (rows, columns)]
        return (out / lengths[0][:, None] / lengths[1]).astype(np.float32)
    return out


def _listed(vectors: SparseVector | Sequence[SparseVector]) -> list[SparseVector]:
    found = [vectors] if isinstance(vectors, SparseVector) else list(vectors)
    for vector in found:
        if not isinstance(vector, SparseVector):
            raise InvalidTypeError(f"{type(vector).__name__} is not a SparseVector, which encode returns")
    return found
