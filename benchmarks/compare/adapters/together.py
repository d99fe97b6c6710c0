"""What texts do to each other in one process: many callers at once, and neighbours in a batch. Any adapter's encoder.

Runs inside every contender's environment: numpy is all that it needs.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Encode = Callable[[list[str]], Any]
Rows = Callable[[list[Any]], Iterable[Any]]  # an array of numbers a text

# Callers at once may change rounding, not meaning: below this cosine a vector is another text's, or none.
LEAST_COSINE = 0.98
CHECKED = 16  # texts whose vectors are held against those of calls from one thread


class NotThreadSafeError(Exception):
    """Calls from several threads failed or gave other vectors than calls from one."""


def callers(encode: Encode, texts: Sequence[str], count: int, least: float) -> dict[str, Any]:
    """`count` threads, each asking for one text and then for the next that nobody has taken.

    Texts are asked again from the first one on, until `least` seconds are over.

    Returns:
        wall: seconds from the first call to the last answer; seconds: of each call.

    Raises:
        NotThreadSafeError: a call raised, or a vector is not its text's.
    """
    seconds: list[float] = []
    vectors: list[Any] = [None] * len(texts)
    failures: list[Exception] = []
    numbers = itertools.count()
    taking, together = threading.Lock(), threading.Barrier(count + 1)
    end = 0.0

    def call() -> None:
        together.wait()
        while not failures:
            with taking:
                number = next(numbers)
            if number >= len(texts) and time.perf_counter() >= end:
                return
            place = number % len(texts)
            start = time.perf_counter()
            try:
                found = encode([texts[place]])
            except Exception as error:  # noqa: BLE001  any failure of any library is an answer
                failures.append(error)
                return
            seconds.append(time.perf_counter() - start)
            if number < len(texts):
                vectors[place] = found

    threads = [threading.Thread(target=call, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    end = time.perf_counter() + least
    together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    if failures:
        first = failures[0]
        raise NotThreadSafeError(f"with {count} callers: {type(first).__name__}: {_line(first)}")
    for place in range(0, len(texts), max(1, len(texts) // CHECKED)):
        cosine = _cosine(vectors[place], encode([texts[place]]))
        if not cosine >= LEAST_COSINE:  # NaN is strange too
            raise NotThreadSafeError(f"with {count} callers: a vector has cosine {cosine:.3f} to its text's own")
    return {"wall": wall, "seconds": seconds}


def invariance(rows: Rows, texts: Sequence[Any]) -> dict[str, float]:
    """Largest absolute difference of a text's numbers: `alone` against the batch, and in another `order` of it."""

    def encoded(some: Sequence[Any]) -> list[Any]:
        return [np.asarray(row, dtype=np.float32) for row in rows(list(some))]

    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    batch = encoded(texts)
    alone = [encoded([text])[0] for text in texts]
    shuffled = encoded([texts[place] for place in order])
    return {
        "alone": max(map(_apart, alone, batch)),
        "order": max(map(_apart, shuffled, [batch[place] for place in order])),
    }


def _apart(left: Any, right: Any) -> float:
    return float(np.abs(left - right).max())


def _cosine(left: Any, right: Any) -> float:
    a, b = np.asarray(left, dtype=np.float64).ravel(), np.asarray(right, dtype=np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
