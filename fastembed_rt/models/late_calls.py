"""Texts of one call to a late-interaction encoder: their tokens, what fills queries up, and each row's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..run import batching
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import Window
from ..vectors.dense import Vectors


@dataclass(frozen=True)
class Role:
    """How texts on one side become tokens, and which of them have vectors."""

    tokenizer: TextTokenizer
    skiplist: npt.NDArray[np.int64]
    expansion_length: int


class Call:
    """Texts of one call to a late-interaction encoder."""

    def __init__(self, role: Role, prompt: str, expansion_token_id: int, *, attend: bool, dim: int) -> None:
        self._role = role
        self._prompt = prompt
        self._token = expansion_token_id
        self._attend = attend
        self._empty = np.empty((0, dim), np.float32)

    def tokenize(self, window: Window) -> Tokenized:
        """Rows of token ids, queries filled up."""
        made = self._role.tokenizer(window.texts, self._prompt, window.first, parallel=window.parallel)
        length = self._role.expansion_length
        if not length:
            return made
        seen = np.array([len(row) for row in made.ids], dtype=np.int64)
        # A text without a single token is left so: its masks would see nothing.
        missing = [max(length - len(row), 0) if len(row) else 0 for row in made.ids]
        full = [
            np.pad(row, (0, more), constant_values=self._token) for row, more in zip(made.ids, missing, strict=True)
        ]
        return replace(made, ids=full, seen=None if self._attend else seen)

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        """Tokens of each row that the others see: (B,)."""
        if tokenized.seen is not None:
            return tokenized.seen
        return np.array([len(row) for row in tokenized.ids], dtype=np.int64)

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> list[Vectors]:
        """Vectors (tokens, dim) of each text, without those that are skipped."""
        # A text without a single token has nothing from the graph.
        found = [self._empty if vectors is None else vectors for vectors in results]
        skiplist = self._role.skiplist
        if not len(skiplist):
            return found
        return [vectors[~np.isin(row, skiplist)] for row, vectors in zip(tokenized.ids, found, strict=True)]


def feeds(
    rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
) -> batching.Feeds:
    """What a graph of token vectors takes for a batch; `boundaries` (B,) is how many tokens of each row are seen."""
    made = batching.feeds(rows, inputs, pad_token_id, np.zeros_like(boundaries))
    if "seen" in inputs:  # target native
        made["seen"] = boundaries
    name = next((name for name in ("token_mask", "attention_mask") if name in made), None)
    if name is None:
        return made
    hidden = np.arange(made[name].shape[1]) >= boundaries[:, None]
    made[name][hidden] = 0
    return made


def split(vectors: Vectors, rows: Sequence[batching.Ids]) -> list[Vectors]:
    """Each row's part of packed (T, dim) or padded (B, S, dim) vectors: (tokens, dim) each."""
    if vectors.ndim == 2:
        parts = np.split(vectors, np.cumsum([len(row) for row in rows])[:-1])
    else:
        parts = [padded[: len(row)] for padded, row in zip(vectors, rows, strict=True)]
    # Copied: a part that somebody keeps would keep the whole batch, other calls' texts included.
    return parts if len(parts) == 1 else [part.copy() for part in parts]
