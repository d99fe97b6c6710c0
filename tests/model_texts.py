"""Texts that are odd, and what vectors of them are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import TEXTS
from tolerances import REFERENCE, close

from fastembed_rt.models import embedding, sentences

Vectors = npt.NDArray[np.float32]
DIM, MAX_LENGTH, POSITIONS = 24, 16, 48
LONG = "the cat runs under a tree and sleeps : " * 5
ODD_TEXTS = [
    "",
    " \t\n ",
    "\0",
    "a\0b",
    "[CLS] the [MASK] cat [SEP] [PAD] [UNK]",
    "[SEP]",
    "\ufeffthe cat",
    "x" * 500,
    "e\u0301t\u00e9 東京 🙂",
]
SOME = ["a cat", "the dog runs quickly", *ODD_TEXTS, *TEXTS, LONG]
POOLINGS = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]
both_targets = pytest.mark.parametrize("target", ["portable", "cpu"])


def assert_same(ours: Any, wanted: Any, tolerance: float = REFERENCE) -> None:
    close(ours, wanted, tolerance)


def unit(rows: Vectors) -> Vectors:
    """Rows of length one, in float64."""
    wide = rows.astype(np.float64)
    result: Vectors = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    return result


def small_windows(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Tokenize so many texts at a time, so that a few texts make several windows."""
    monkeypatch.setattr(sentences, "TEXTS", size)
    monkeypatch.setattr(embedding, "STREAM_TEXTS", (size,))
