"""What is counted of one model. Requests by its event loop, batches by the threads that run them.

By hand: an observation costs half a microsecond here and four in prometheus_client, and a request makes several.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

from ..manifest import RERANKING

DURATIONS = [1e-5 * 1.5**k for k in range(1, 36)]  # seconds
LENGTHS = [2.0**k for k in range(20)]  # tokens of a request
BATCH_TEXTS = [2.0**k for k in range(13)]
BATCH_TOKENS = [2.0**k for k in range(21)]


class Histogram:
    """How many observations are at or below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Meters:
    """Of one model."""

    def __init__(self, name: str, task: str, capacity: int) -> None:
        """`capacity` is what a batch has room for, in tokens."""
        self.name, self._capacity = name, capacity
        self.family = "te_predict" if task == RERANKING else "te_embed"
        self.single = self.batch_requests = self.single_success = self.batch_success = 0
        self.duration, self.tokenization = Histogram(DURATIONS), Histogram(DURATIONS)
        self.queue, self.inference = Histogram(DURATIONS), Histogram(DURATIONS)
        self.length = Histogram(LENGTHS)
        self.batch_size, self.batch_tokens = Histogram(BATCH_TEXTS), Histogram(BATCH_TOKENS)
        self.padded_tokens = self.capacity_tokens = 0
        self.truncated = 0  # texts, by models that were here before a reload
        self.batch_seconds = 0.0
        self._lock = threading.Lock()

    def request(self, texts: int, tokens: int, total: float, times: tuple[float, float, float], *, done: bool) -> None:
        """One that was answered, with what it asked for if `done`; times of tokenizing, waiting and batches."""
        if texts == 1:
            self.single += 1
            self.single_success += done
        else:
            self.batch_requests += 1
            self.batch_success += done
        if done:
            self.duration.observe(total)
            self.tokenization.observe(times[0])
            self.queue.observe(times[1])
            self.inference.observe(times[2])
            self.length.observe(tokens)

    def batch(self, texts: int, tokens: int, padded: int, seconds: float) -> None:
        """One that ran, `padded` tokens with padding."""
        with self._lock:
            self.batch_size.observe(texts)
            self.batch_tokens.observe(tokens)
            self.padded_tokens += padded
            self.capacity_tokens += max(self._capacity, padded)
            self.batch_seconds += seconds
