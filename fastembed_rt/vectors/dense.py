"""Arithmetic on finished vectors: normalization, similarities, means of chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError

Vectors = npt.NDArray[np.float32]  # (dim,) of a text, (n, dim) of several
EPSILON = 1e-12  # torch.nn.functional.normalize


def normalized(vectors: Vectors) -> Vectors:
    """Rows divided by their L2 norm: (n, dim) -> (n, dim); zero rows stay zero."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), EPSILON)
    result: Vectors = (vectors / lengths).astype(np.float32, copy=False)
    return result


def chunk_means(vectors: Vectors, owner: npt.NDArray[np.int64], texts: int, *, again: bool) -> Vectors:
    """Mean over the rows of each text: (rows, dim) and (rows,) ascending owners -> (texts, dim).

    Texts of one row keep it bit by bit; means are normalized when `again`.
    """
    if len(vectors) == texts:
        return vectors
    starts = np.searchsorted(owner, np.arange(texts))
    counts = np.diff([*starts, len(owner)])
    means: Vectors = (np.add.reduceat(vectors, starts, axis=0) / counts[:, None]).astype(np.float32)
    if again:
        several = counts > 1
        means[several] = normalized(means[several])
    return means


def products(rows: Vectors, vector: Vectors) -> Vectors:
    """The dot product of each row with a vector: (n, dim) and (dim,) -> (n,), the same wherever a row stands.

    Those of BLAS round by the row's place, so that equal rows would not be equally near.
    """
    found: Vectors = np.einsum("nd,d->n", rows, vector, optimize=False)
    return found


def _products(left: Vectors, right: Vectors) -> Vectors:
    if 1 not in (len(left), len(right)):
        return left @ right.T
    return products(right, left[0])[None] if len(left) == 1 else products(left, right[0])[:, None]


def similarity(function: str, left: npt.ArrayLike, right: npt.ArrayLike) -> Vectors:
    """Similarity matrix: (n, dim) or (dim,) and (m, dim) or (dim,) -> (n, m) float32; distances are negated.

    The functions are sentence-transformers': cosine, dot, euclidean, manhattan. Beside one vector, equal vectors have
    equal similarities, to the last bit.
    """
    a, b = (np.atleast_2d(np.asarray(side, dtype=np.float32)) for side in (left, right))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InvalidInputError(f"vectors of shapes {a.shape} and {b.shape} do not fit; expected (n, dim) and (m, dim)")
    if function == "cosine":
        a, b = normalized(a), normalized(b)
    if function in ("cosine", "dot"):
        return _products(a, b)
    if function == "euclidean":
        # Differences, not a^2 + b^2 - 2ab, which loses the digits of near vectors; row by row bounds memory.
        rows = [-np.sqrt(((row - b) ** 2).sum(axis=1)) for row in a]
    elif function == "manhattan":
        rows = [-np.abs(row - b).sum(axis=1) for row in a]
    else:
        raise InvalidInputError(f"similarity {function!r} is not known; known: cosine, dot, euclidean, manhattan")
    return np.array(rows, dtype=np.float32).reshape(len(a), len(b))
