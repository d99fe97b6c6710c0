"""Ranges that clip, as published: percentile, least squared error and least divergence. For `ingredients` alone.

Each replaces the range that the export has chosen for a layer's inputs; smoothing and outlier channels stay.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from fastembed_rt_export.quantize import ranges

Bounds = Callable[[Any], tuple[float, float]]  # of values (n,): the least and the largest that keep their value

BINS = 2048
STEPS = 128  # of the magnitudes of eight bits
SHARES = np.linspace(0.2, 1.0, 33)  # of a whole range, that are compared


def clipped(rule: Bounds) -> AbstractContextManager[Any]:
    """Ranges of stock operators chosen by a rule, while this lasts; narrow ranges with tails stay as they are."""
    chosen = ranges.choose

    def choose(inputs: ranges.Inputs, outputs: ranges.Outputs, **how: bool) -> Any:
        group = chosen(inputs, outputs, **how)
        sample = np.delete(ranges.divided(inputs.sample, group.smooth), list(group.outliers), axis=1)
        scale, zero_point = ranges.scale_of(*rule(sample.ravel()))
        return replace(group, scale=scale, zero_point=zero_point)

    return mock.patch.object(ranges, "choose", choose)


def percentile(share: float) -> Bounds:
    """The range that holds this share of the values."""
    beyond = (1 - share) / 2
    return lambda values: (float(np.quantile(values, beyond)), float(np.quantile(values, 1 - beyond)))


def least_squares(values: Any) -> tuple[float, float]:
    """The share of the whole range with the smallest squared error of the values."""
    low, high = float(values.min()), float(values.max())

    def error(share: float) -> float:
        scale, zero = ranges.scale_of(low * share, high * share)
        made = np.clip(np.rint(values / np.float32(scale)), -zero, 255 - zero) * np.float32(scale)
        return float(np.square(made - values).sum(dtype=np.float64))

    best = float(min(SHARES, key=error))
    return low * best, high * best


def least_divergence(values: Any) -> tuple[float, float]:
    """The largest magnitude with the smallest Kullback-Leibler divergence between the values' histogram and that of
    their integers (Migacz, "8-bit inference with TensorRT", GTC 2017)."""
    counts, edges = np.histogram(np.abs(values), BINS)

    def divergence(kept: int) -> float:
        exact = counts[:kept].astype(np.float64)
        exact[-1] += counts[kept:].sum()
        parts = np.linspace(0, kept, STEPS + 1).astype(int)[:-1]
        full = counts[:kept] > 0
        sums, filled = np.add.reduceat(counts[:kept], parts), np.add.reduceat(full, parts)
        each = np.repeat(sums / np.maximum(filled, 1), np.diff([*parts, kept])) * full
        both = (exact > 0) & (each > 0)
        p, q = exact / exact.sum(), each / max(each.sum(), 1)
        # What is clipped falls into a bin that may be empty otherwise: its share counts as lost.
        return float((p[both] * np.log(p[both] / q[both])).sum() + p[~both].sum())

    most = float(edges[min(range(STEPS, BINS + 1, 16), key=divergence)])
    return max(float(values.min()), -most), min(float(values.max()), most)
