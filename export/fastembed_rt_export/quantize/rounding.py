"""Rounding weights so that the outputs keep their values, not the weights themselves.

Each integer in turn is set to what makes the squared error of the outputs least, all others as they are: coordinate
descent on the quadratic form that GPTQ (Frantar et al. 2022, arXiv:2210.17323) rounds by, as in QuantEase (Behdin et
al. 2023, arXiv:2309.01885). It starts from the nearest integers and every step lowers the error; nothing is inverted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..graph.weight import Floats

Integers = npt.NDArray[np.int8]

PASSES = 2
BLOCK, FEW = 128, 16  # inputs whose error is followed by products, and integer by integer
# Of the mean square of an input, added to each: few tokens say nothing about many directions.
RIDGE = 0.1
STILL = 1e-3  # share of integers below which another pass is not worth its time


def second_moments(inputs: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean (K,) and covariance (K, K) of inputs (n, K), of which each counts by its weight (n,).

    The mean error of an output is taken off its bias, so only the covariance is to be kept small.
    """
    share = (weights / weights.sum())[:, None].astype(np.float32)
    mean = share[:, 0] @ inputs
    centered = inputs - mean
    centered *= np.sqrt(share)
    covariance = centered.T @ centered
    covariance[np.diag_indices_from(covariance)] += max(RIDGE * float(np.trace(covariance)) / len(covariance), 1e-12)
    return mean, covariance


def rounded(weight: Floats, scale: Floats, covariance: Floats) -> Integers:
    """(K, N) float and (N,) scales -> (K, N) integers in [-127, 127], for inputs of that covariance (K, K)."""
    integers: Integers = descended(weight, scale, covariance, to_integers).astype(np.int8)
    return integers


def to_integers(values: Floats) -> None:
    """The nearest in [-127, 127], in place."""
    np.rint(values, out=values)
    np.minimum(np.maximum(values, -127, out=values), 127, out=values)


def descended(
    weight: Floats, scale: Floats | np.float32, covariance: Floats, nearest: Callable[[Floats], None]
) -> Floats:
    """The same for numbers of another kind, which `nearest` rounds to in place: (K, N), as floats."""
    values: Floats = (weight / scale).astype(np.float32)
    nearest(values)
    error = values * scale - weight
    inputs = len(weight)
    steps = np.diag(covariance)[:, None] * scale
    for _ in range(PASSES):
        changed = 0
        for begin in range(0, inputs, BLOCK):
            end = min(begin + BLOCK, inputs)
            slope = covariance[begin:end] @ error
            for first in range(begin, end, FEW):
                last = min(first + FEW, end)
                before = error[first:last].copy()
                for k in range(first, last):
                    better = values[k] - slope[k - begin] / steps[k]
                    nearest(better)
                    moved = better - values[k]
                    count = int(np.count_nonzero(moved))
                    if count:
                        changed += count
                        values[k] = better
                        moved *= scale
                        error[k] += moved
                        slope[k - begin + 1 : last - begin] += covariance[k, k + 1 : last, None] * moved
                if last < end:
                    slope[last - begin :] += covariance[last:end, first:last] @ (error[first:last] - before)
        if changed <= STILL * values.size:
            break
    return values
