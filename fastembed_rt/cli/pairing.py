"""Rows and what a model makes of their texts, side by side again although the model reads ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from .readers import Record

T = TypeVar("T")


def paired(records: Iterator[Record], results: Callable[[Iterator[str]], Iterator[T]]) -> Iterator[tuple[Record, T]]:
    """Each record with its result, in order; as many records wait as the model reads ahead, which is bounded."""
    ahead: deque[Record] = deque()

    def texts() -> Iterator[str]:
        for record in records:
            ahead.append(record)
            yield record.text

    count = 0
    for result in results(texts()):
        count += 1
        yield ahead.popleft(), result
    if ahead:
        raise RuntimeError(f"the model gave {count} results and left {len(ahead)} texts without one")
