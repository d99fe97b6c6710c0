"""Correctness, throughput, latency of one shape: raw samples, contenders in turn so that a warm card favours nobody."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .candidates import Encode
from .shapes import Shape, texts


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    tokens: int  # in a throughput sample, at least one batch
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


def throughput(
    shape: Shape, encoders: Mapping[str, Encode], plan: Plan, done: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Seconds for the same texts, by length and by how many texts go together; what is not `done`, in the time."""
    rows: list[dict[str, Any]] = []
    known = {(row["length"], row["batch"]) for row in done}
    for length in plan.lengths:
        for batch in plan.batches:
            if (length, batch) in known or plan.over():
                continue
            count = batch * max(plan.tokens // (batch * length), 1)
            work = texts(shape, [length] * count, seed=length)
            seconds: dict[str, list[float]] = {name: [] for name in encoders}
            for encode in encoders.values():
                for _ in range(2):  # kernels are chosen, graphs captured, buffers grown
                    encode(work, batch, length)
            for _ in range(plan.rounds):
                for name, encode in encoders.items():
                    start = time.perf_counter()
                    encode(work, batch, length)
                    seconds[name].append(time.perf_counter() - start)
            rows += [
                {"contender": name, "length": length, "batch": batch, "texts": count, "seconds": samples}
                for name, samples in seconds.items()
            ]
    return rows


def latency(shape: Shape, encoders: Mapping[str, Encode], plan: Plan) -> list[dict[str, Any]]:
    """Seconds of calls with one text each, by length."""
    rows = []
    for length in plan.lengths:
        work = texts(shape, [length] * plan.calls, seed=length)
        seconds: dict[str, list[float]] = {name: [] for name in encoders}
        for encode in encoders.values():
            for text in work[:10]:
                encode([text], 1, length)
        for text in work:
            for name, encode in encoders.items():
                start = time.perf_counter()
                encode([text], 1, length)
                seconds[name].append(time.perf_counter() - start)
        rows += [{"contender": name, "length": length, "seconds": samples} for name, samples in seconds.items()]
    return rows


def mixed_lengths(lengths: Sequence[int], count: int) -> list[int]:
    """Lengths from two tokens to the longest, for correctness."""
    random = np.random.default_rng(0)
    return [2, max(lengths), *random.integers(2, max(lengths) + 1, count).tolist()]
