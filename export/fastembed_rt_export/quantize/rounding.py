"""Rounding weights so that the outputs keep their values, not the weights themselves.

Each integer in turn is set to what makes the squared error of the outputs least, all others as they are: coordinate
descent on the quadratic form that GPTQ (Frantar et al. 2022, arXiv:2210.17323) rounds by, as in QuantEase (Behdin et
al. 2023, arXiv:2309.01885). It starts from the nearest integers and every step lowers the error; nothing is inverted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..graph.weight import Array, Floats

Integers = npt.NDArray[np.int8]

TOKENS = 512  # whose products are added at a time, beside which no second copy of all inputs is held
COLUMNS = 512  # of a covariance that are added to at a time, for the same reason
PASSES = 2
BLOCK, FEW = 128, 16  # inputs whose error is followed by products, and integer by integer
LARGEST = np.float32(127)
# Of the mean square of an input, added to each: few tokens say nothing about many directions.
RIDGE = 0.1
STILL = 1e-3  # share of integers below which another pass is not worth its time


def second_moments(inputs: Floats, weights: Floats, divisor: Array | None = None) -> tuple[Floats, Floats]:
    """Mean (K,) and covariance (K, K) of inputs (n, K) over a divisor (K,), of which each counts by its weight (n,).

    The mean error of an output is taken off its bias, so only the covariance is to be kept small.
    """
    share = (weights / weights.sum()).astype(np.float32)
    mean: Floats = share @ inputs
    if divisor is not None:
        mean = (mean / divisor).astype(np.float32, copy=False)
    width = inputs.shape[1]
    blocks = [slice(begin, begin + COLUMNS) for begin in range(0, width, COLUMNS)]
    covariance = np.zeros((width, width), np.float32)
    for begin in range(0, len(inputs), TOKENS):
        some = inputs[begin : begin + TOKENS]
        centered = (some if divisor is None else some / divisor) - mean
        centered *= np.sqrt(share[begin : begin + TOKENS, None])
        for block in blocks:  # of one half, which is the other's mirror image
            covariance[block, block.start :] += centered[:, block].T @ centered[:, block.start :]
    for block in blocks:
        covariance[block.stop :, block] = covariance[block, block.stop :].T
    covariance[np.diag_indices_from(covariance)] += max(RIDGE * float(np.trace(covariance)) / len(covariance), 1e-12)
    return mean, covariance


def rounded(weight: Floats, scale: Floats, covariance: Floats) -> Integers:
    """(K, N) float and (N,) scales -> (K, N) integers in [-127, 127], for inputs of that covariance (K, K)."""
    integers: Integers = descended(weight, scale, covariance, to_integers).astype(np.int8)
    return integers


def to_integers(values: Floats) -> None:
    """The nearest in [-127, 127], in place."""
    np.rint(values, out=values)
    np.clip(values, -LARGEST, LARGEST, out=values)


def descended(
    weight: Floats, scale: Floats | np.float32, covariance: Floats, nearest: Callable[[Floats], None]
) -> Floats:
    """The same for numbers of another kind, which `nearest` rounds to in place: (K, N), as floats.

    A block of inputs has the slopes of its errors by one product; inside it, those of a few inputs follow from what the
    block's earlier ones moved by, and each input's own from the few before it. All in units of the scales.
    """
    error: Floats = (weight / scale).astype(np.float32, order="C", copy=False)
    values = error.copy()
    nearest(values)
    np.subtract(values, error, out=error)
    inputs, width = weight.shape
    step = (-1.0 / np.diag(covariance)).astype(np.float32)
    slope, moved = (np.empty((min(BLOCK, inputs), width), np.float32) for _ in range(2))
    few, one, better = np.empty((FEW, width), np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for _ in range(PASSES):
        changed = 0
        for begin in range(0, inputs, BLOCK):
            end = min(begin + BLOCK, inputs)
            np.matmul(covariance[begin:end], error, out=slope[: end - begin])
            for first in range(begin, end, FEW):
                last = min(first + FEW, end)
                if first > begin:
                    np.matmul(covariance[first:last, begin:first], moved[: first - begin], out=few[: last - first])
                    slope[first - begin : last - begin] += few[: last - first]
                for k in range(first, last):
                    own, value = slope[k - begin], values[k]
                    if k > first:
                        own += np.matmul(covariance[k, first:k], moved[first - begin : k - begin], out=one)
                    np.multiply(own, step[k], out=better)
                    better += value
                    nearest(better)
                    np.subtract(better, value, out=moved[k - begin])
                    value[...] = better
            error[begin:end] += moved[: end - begin]
            changed += int(np.count_nonzero(moved[: end - begin] != 0))
        if changed <= STILL * values.size:
            break
    return values
