"""Token counts as a SentenceTransformer itself makes them, whichever backend runs behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BATCH = 32


def token_counter(model: Any) -> Callable[[list[str]], list[int]]:
    """Function from texts to tokens after truncation, special tokens included."""
    # Renamed in sentence-transformers 6; the old name goes through a deprecation.
    tokenize = getattr(model, "preprocess", None) or model.tokenize

    def count(texts: list[str]) -> list[int]:
        counts: list[int] = []
        for first in range(0, len(texts), BATCH):
            counts += tokenize(texts[first : first + BATCH])["attention_mask"].sum(1).tolist()
        return counts

    return count
