"""Similarities of vectors, all with all and row by row, and the enumeration that names them; in numpy."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import pairwise as pairwise_of
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ...vectors import quantized
from ...vectors.dense import Vectors, normalized, similarity
from ...vectors.sparse import SparseVector
from ...vectors.sparse import similarity as sparse_similarity
from .. import tensors

BLOCK = 64  # sparse vectors whose zeros are in memory at a time
NAMES = ("cosine", "dot", "euclidean", "manhattan")


class SimilarityFunction(Enum):
    """Names of similarities, by the members that sentence-transformers has."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # an alias there too
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def to_similarity_fn(name: str | SimilarityFunction) -> Callable[[Any, Any], Any]:
        """The function of all with all: (n, dim) and (m, dim) -> (n, m)."""
        return MATRICES[similarity_name(name, "a similarity")]

    @staticmethod
    def to_similarity_pairwise_fn(name: str | SimilarityFunction) -> Callable[[Any, Any], Any]:
        """The function row by row: (n, dim) and (n, dim) -> (n,)."""
        return PAIRS[similarity_name(name, "a similarity")]

    @staticmethod
    def possible_values() -> list[str]:
        """The names."""
        return list(NAMES)


def similarity_name(given: Any, who: str) -> str:
    """The name of a similarity given by name or as a member of an enumeration.

    Raises:
        InvalidInputError: none of the four.
    """
    name = given.value if isinstance(given, Enum) else given
    if name not in NAMES:
        raise InvalidInputError(f"{who}: similarity {name!r} is not known; known: {', '.join(NAMES)}")
    return str(name)


def floats(given: Any) -> Vectors:
    """Vectors in whatever form, dense float32 (n, dim) or (dim,)."""
    if isinstance(given, SparseVector):
        return given.to_dense()
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], SparseVector):
        return np.stack([vector.to_dense() for vector in given])
    made: Vectors = np.asarray(tensors.to_array(given), dtype=np.float32)
    return made


def matrix(name: str, left: Any, right: Any) -> Any:
    """All with all: (n, dim) and (m, dim) -> (n, m) float32; a tensor where torch is installed."""
    sides = [sparse(side) for side in (left, right)]
    if None not in sides:
        return tensors.like_theirs(sparse_similarity(name, *sides))  # type: ignore[arg-type]
    return tensors.like_theirs(similarity(name, floats(left), floats(right)))


def pairwise(name: str, left: Any, right: Any) -> Any:
    """Row by row: (n, dim) and (n, dim) -> (n,) float32, of two vectors a number; a tensor where torch is installed."""
    words = [sparse(side) for side in (left, right)]
    if words == [None, None]:
        return tensors.like_theirs(_row_by_row(name, floats(left), floats(right)))
    sides = [floats(side) if found is None else found for side, found in zip((left, right), words, strict=True)]
    sides = [side if isinstance(side, list) else np.atleast_2d(side) for side in sides]
    count = max(map(len, sides))
    if any(len(side) not in (1, count) for side in sides):
        raise InvalidInputError(f"{len(sides[0])} and {len(sides[1])} vectors are not as many as each other")
    made = np.empty(count, np.float32)
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        made[rows] = _row_by_row(name, *(floats(side if len(side) == 1 else side[rows]) for side in sides))
    return tensors.like_theirs(np.asarray(made[0]) if _is_one(left) and _is_one(right) else made)


def _is_one(given: Any) -> bool:
    """Whether this is one vector (dim,), and not several."""
    return isinstance(given, SparseVector) or getattr(given, "ndim", 2) == 1


def _row_by_row(name: str, a: Vectors, b: Vectors) -> Vectors:
    if name == "cosine":
        a, b = normalized(a), normalized(b)
    if name in ("cosine", "dot"):
        made = np.einsum("...d,...d->...", a, b)
    elif name == "euclidean":
        made = -np.sqrt(((a - b) ** 2).sum(axis=-1))
    else:
        made = -np.abs(a - b).sum(axis=-1)
    return np.asarray(made, dtype=np.float32)


def quantize_embeddings(embeddings: Any, precision: str, ranges: Any = None, calibration_embeddings: Any = None) -> Any:
    """Vectors (n, dim) or (dim,) in another precision; of a list of (tokens, dim) a list, with one range for all."""
    if isinstance(embeddings, list):
        if not embeddings:
            return []
        arrays = [tensors.to_array(entry) for entry in embeddings]
        if arrays[0].ndim == 2:
            of_all = np.concatenate(arrays) if calibration_embeddings is None else calibration_embeddings
            useful = quantized.of_use(precision, ranges, of_all if len(of_all) else None)
            made = quantized.form(precision, arrays[0].shape[1], *useful)
            return [made(array) for array in arrays]
    return quantized.quantize_embeddings(tensors.to_array(embeddings), precision, ranges, calibration_embeddings)


def sparse(given: Any) -> list[SparseVector] | None:
    """Sparse vectors of a list of them or of a sparse tensor (n, dim) or (dim,); None of anything dense."""
    if isinstance(given, SparseVector):
        return [given]
    if isinstance(given, (list, tuple)) and given:
        if sparse(given[0]) is None:  # before the numbers of a list of lists are looked at one by one
            return None
        rows = [sparse(entry) for entry in given]
        return None if None in rows else [vector for row in rows for vector in row or ()]
    if not tensors.is_tensor(given) or not given.is_sparse:
        return None
    held = given.detach().coalesce().cpu()
    places, values = held.indices().numpy(), held.values().float().numpy()
    dim = int(held.shape[-1])
    if held.ndim == 1:
        return [SparseVector(places[0].astype(np.int64), values, dim)]
    ends = np.searchsorted(places[0], np.arange(held.shape[0] + 1))
    columns = places[1].astype(np.int64)
    return [SparseVector(columns[a:b], values[a:b], dim) for a, b in pairwise_of(ends)]


def cos_sim(a: Any, b: Any) -> Any:
    """Cosine of all with all: (n, dim) and (m, dim) -> (n, m)."""
    return matrix("cosine", a, b)


def dot_score(a: Any, b: Any) -> Any:
    """Dot product of all with all: (n, dim) and (m, dim) -> (n, m)."""
    return matrix("dot", a, b)


def euclidean_sim(a: Any, b: Any) -> Any:
    """Negated Euclidean distance of all with all: (n, dim) and (m, dim) -> (n, m)."""
    return matrix("euclidean", a, b)


def manhattan_sim(a: Any, b: Any) -> Any:
    """Negated Manhattan distance of all with all: (n, dim) and (m, dim) -> (n, m)."""
    return matrix("manhattan", a, b)


def pairwise_cos_sim(a: Any, b: Any) -> Any:
    """Cosine row by row: (n, dim) and (n, dim) -> (n,)."""
    return pairwise("cosine", a, b)


def pairwise_dot_score(a: Any, b: Any) -> Any:
    """Dot product row by row: (n, dim) and (n, dim) -> (n,)."""
    return pairwise("dot", a, b)


def pairwise_euclidean_sim(a: Any, b: Any) -> Any:
    """Negated Euclidean distance row by row: (n, dim) and (n, dim) -> (n,)."""
    return pairwise("euclidean", a, b)


def pairwise_manhattan_sim(a: Any, b: Any) -> Any:
    """Negated Manhattan distance row by row: (n, dim) and (n, dim) -> (n,)."""
    return pairwise("manhattan", a, b)


pytorch_cos_sim = cos_sim
MATRICES = dict(zip(NAMES, (cos_sim, dot_score, euclidean_sim, manhattan_sim), strict=True))
PAIRS = dict(
    zip(NAMES, (pairwise_cos_sim, pairwise_dot_score, pairwise_euclidean_sim, pairwise_manhattan_sim), strict=True)
)
