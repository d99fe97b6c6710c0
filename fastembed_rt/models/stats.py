"""What a model has encoded since it was loaded, counted without a lock."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ..text.tokenizer import Tokenized

Counts = tuple[int, int, int]  # texts, tokens, truncated texts
NOTHING: Counts = (0, 0, 0)


@dataclass(frozen=True)
class EncodeStats:
    """What a model has encoded since it was loaded."""

    texts: int = 0
    tokens: int = 0  # after truncation, special tokens included
    truncated: int = 0  # texts that lost tokens to max_length

    def __add__(self, other: EncodeStats) -> EncodeStats:
        """Of both."""
        return EncodeStats(self.texts + other.texts, self.tokens + other.tokens, self.truncated + other.truncated)


class Counter:
    """Adds up; each thread writes a row of its own."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Counts] = {}

    def add(self, tokenized: Tokenized) -> None:
        """Some texts more."""
        thread = threading.get_ident()
        texts, tokens, truncated = self._by_thread.get(thread, NOTHING)
        self._by_thread[thread] = (texts + tokenized.texts, tokens + tokenized.tokens, truncated + tokenized.truncated)

    def total(self) -> EncodeStats:
        """Of all threads."""
        return sum((EncodeStats(*counts) for counts in list(self._by_thread.values())), EncodeStats())
