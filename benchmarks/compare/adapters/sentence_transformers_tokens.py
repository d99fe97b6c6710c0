"""Token counts as a SentenceTransformer itself makes them, whichever backend runs behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

BATCH = 32


def token_counter(model: Any) -> Callable[[list[str]], list[int]]:
    """Function from texts to tokens after truncation, special tokens included."""
    # Renamed in sentence-transformers 6; the old name goes through a deprecation.
    tokenize = getattr(model, "preprocess", None) or model.tokenize

    def count(texts: list[str]) -> list[int]:
        counts: list[int] = []
        for first in range(0, len(texts), BATCH):
            found = tokenize(texts[first : first + BATCH])
            if "offsets" in found:  # of a table of words: all ids one after the other, and where each text begins
                counts += np.diff(found["offsets"], append=len(found["input_ids"])).tolist()
            else:
                counts += found["attention_mask"].sum(1).tolist()
        return counts

    return count
