"""Correctness, throughput, latency of one shape: raw samples, contenders in turn so that a warm card favours nobody."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .candidates import Contender, Encode
from .shapes import Shape, texts

SAMPLE = 1.0  # seconds of a throughput sample, at most, of whoever is slowest; a single batch may take more


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    tokens: int  # in a throughput sample, at most, and at least one batch
    calls: int  # single texts by length
    ends: float = math.inf  # by time.monotonic: nothing more is begun then

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.ends


def fidelity(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> dict[str, float]:
    """Cosines of rows; `centred` without what all vectors share, which random weights make most of."""
    wide, right = found.astype(np.float64), expected.astype(np.float64)
    middle = right.mean(axis=0)
    cosines, centred = _cosines(wide, right), _cosines(wide - middle, right - middle)
    between = _cosines(right[1:], right[:-1])
    return {
        "mean": float(cosines.mean()),
        "min": float(cosines.min()),
        "centred_min": float(centred.min()),
        "between_texts": float(between.mean()),
    }


def _cosines(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    made: npt.NDArray[np.float64] = (left * right).sum(axis=1) / lengths
    return made


def cells(plan: Plan, first: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """(tokens a text, texts that go together) to measure; `first` those that aims are about, if they are among them."""
    every = [(length, batch) for length in plan.lengths for batch in plan.batches]
    return sorted(every, key=lambda cell: cell not in first)


def throughput(
    shape: Shape, encoders: Mapping[str, Encode], plan: Plan, length: int, batch: int
) -> list[dict[str, Any]]:
    """Seconds for the same texts, so many of which go together: as many as take the slowest about SAMPLE seconds."""
    most = batch * max(plan.tokens // (batch * length), 1)
    work = texts(shape, [length] * most, seed=length)
    slowest = 0.0
    for encode in encoders.values():
        for _ in range(2):  # kernels are chosen, graphs captured, buffers grown
            start = time.perf_counter()
            encode(work[:batch], batch, length)
        slowest = max(slowest, time.perf_counter() - start)
    work = work[: batch * max(int(SAMPLE / slowest), 1)]
    for encode in encoders.values():
        encode(work, batch, length)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(plan.rounds):
        for name, encode in encoders.items():
            start = time.perf_counter()
            encode(work, batch, length)
            seconds[name].append(time.perf_counter() - start)
    return [
        {"contender": name, "length": length, "batch": batch, "texts": len(work), "seconds": samples}
        for name, samples in seconds.items()
    ]


def latency(
    shape: Shape, encoders: Mapping[str, Encode], contenders: Mapping[str, Contender], plan: Plan
) -> list[dict[str, Any]]:
    """Seconds of calls with one text each, by length; of our models as they are loaded by default."""
    rows = []
    for length in plan.lengths:
        work = texts(shape, [length] * plan.calls, seed=length)
        seconds: dict[str, list[float]] = {name: [] for name in encoders}
        batches = {name: 0 if contenders[name].ours else 1 for name in encoders}
        for name, encode in encoders.items():
            for text in work[:10]:
                encode([text], batches[name], length)
        for text in work:
            for name, encode in encoders.items():
                start = time.perf_counter()
                encode([text], batches[name], length)
                seconds[name].append(time.perf_counter() - start)
        rows += [{"contender": name, "length": length, "seconds": samples} for name, samples in seconds.items()]
    return rows


def mixed_lengths(lengths: Sequence[int], count: int) -> list[int]:
    """Lengths from two tokens to the longest, for correctness."""
    random = np.random.default_rng(0)
    return [2, max(lengths), *random.integers(2, max(lengths) + 1, count).tolist()]
