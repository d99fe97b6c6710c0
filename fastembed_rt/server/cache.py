"""Vectors of texts that have come before, in memory, within a budget of bytes.

Found by what decides a vector: the model's files and settings, the request's options, and a hash of the text. The
texts themselves are not kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST = 16  # bytes: two texts of 2^64 share one by chance
OVERHEAD = 320  # bytes of an entry besides its vector: key, two objects, a place in the table

Key = tuple[Hashable, bytes]


class VectorCache:
    """The least recently used go first. Safe to use from several event loops."""

    def __init__(self, most_bytes: int) -> None:
        """All entries together have at most so many bytes."""
        self.most_bytes = most_bytes
        self.bytes = self.hits = self.misses = self.dropped = 0
        self._lock = threading.Lock()
        self._entries: dict[Key, tuple[npt.NDArray[Any], int]] = {}  # vector and tokens; in order of use

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self, about: Hashable, texts: Sequence[str]) -> list[Key]:
        """Where the texts' vectors are; `about` says what else decides them."""
        return [
            (about, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest())
            for text in texts
        ]

    def find(self, keys: Sequence[Key]) -> list[tuple[npt.NDArray[Any], int] | None]:
        """Vectors and token counts of those that are there."""
        found = []
        entries = self._entries
        with self._lock:
            for key in keys:
                entry = entries.pop(key, None)
                if entry is not None:
                    entries[key] = entry  # used last
                found.append(entry)
            hits = sum(entry is not None for entry in found)
            self.hits += hits
            self.misses += len(found) - hits
        return found

    def put(self, keys: Sequence[Key], vectors: npt.NDArray[Any], tokens: Sequence[int]) -> None:
        """Keep vectors (n, dim) of n keys; what is too much goes."""
        with self._lock:
            for key, vector, count in zip(keys, vectors, tokens, strict=True):
                size = vector.nbytes + OVERHEAD
                if key in self._entries or size > self.most_bytes:
                    continue
                self._entries[key] = (np.array(vector), count)  # a copy: not the whole batch behind it
                self.bytes += size
                while self.bytes > self.most_bytes:
                    oldest = next(iter(self._entries))
                    gone, _ = self._entries.pop(oldest)
                    self.bytes -= gone.nbytes + OVERHEAD
                    self.dropped += 1
