"""Vectors as int8 codes, each with a scale of its own, and their products with a question's. Knows arrays only.

A code depends on its own vector alone, so that files come and go without a range that all of them share.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..vectors.dense import products

Codes = npt.NDArray[np.int8]  # (n, dim) -127 to 127
Floats = npt.NDArray[np.float32]
LARGEST = 127
NUMBERS = 98_304  # turned into floats at a time: 384 KiB, which are multiplied while they are in the cache


class NotFiniteError(InvalidInputError):
    """A vector that no code stands for."""


def coded(vectors: Floats) -> tuple[Codes, Floats]:
    """(n, dim) -> codes (n, dim) and scales (n,), so that codes * scale is near the vector; zeros have scale 0.

    Raises:
        NotFiniteError: a number that is NaN or infinite.
    """
    if not np.isfinite(vectors).all():
        raise NotFiniteError("a vector of its text is not finite; take another precision of the model")
    scales: Floats = (np.abs(vectors).max(axis=1, initial=0.0) / LARGEST).astype(np.float32)
    steps = np.where(scales == 0, np.float32(1), scales)
    return np.rint(vectors / steps[:, None]).astype(np.int8), scales


def scores(
    codes: Codes, scales: Floats, question: Floats, product: Callable[[Floats, Floats], Floats] = np.dot
) -> Floats:
    """scale[n] * sum_k codes[n, k] * question[k] of every row, none left out: (n,) float32."""
    out = np.empty(len(codes), np.float32)
    wanted = np.ascontiguousarray(question, np.float32)
    step = max(1, NUMBERS // codes.shape[1])
    block = np.empty((min(step, len(codes)), codes.shape[1]), np.float32)
    for start in range(0, len(codes), step):
        rows = codes[start : start + step]
        floats = block[: len(rows)]
        np.copyto(floats, rows)
        out[start : start + len(rows)] = product(floats, wanted)
    out *= scales
    return out


def nearest(codes: Codes, scales: Floats, question: Floats, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Numbers and scores of the `count` nearest rows, the nearest first, of equal ones the first; no number is last.

    np.dot is fast and rounds by a row's place: whatever that may have moved is looked at again.
    """
    rough = scores(codes, scales, question)
    # Of a sum of dim products, in any order: dim roundings of all that is summed.
    most = LARGEST * float(np.max(np.abs(scales), initial=0.0)) * float(np.sum(np.abs(question), dtype=np.float64))
    near = _at_least(rough, count, 2 * codes.shape[1] * float(np.finfo(np.float32).eps) * most)
    found = scores(codes[near], scales[near], question, products)
    order = best(found, count)
    return near[order], found[order]


def best(found: Floats, count: int) -> npt.NDArray[np.int64]:
    """Numbers of the `count` largest, the largest first; of equal ones the first, and what is no number last."""
    candidates = _at_least(found, count, 0.0)
    values = np.where(np.isnan(found[candidates]), -np.inf, found[candidates])
    return candidates[np.argsort(-values, kind="stable")[:count]]


def _at_least(found: Floats, count: int, less: float) -> npt.NDArray[np.int64]:
    """Numbers, ascending, of the `count` largest, and of all that are smaller than these by no more than `less`."""
    found = np.where(np.isnan(found), -np.inf, found)
    count = min(count, len(found))
    if count == 0:
        return np.empty(0, np.int64)
    least = np.partition(found, len(found) - count)[len(found) - count]
    return np.flatnonzero(found >= least - less)
