"""Logits to what clients call scores, and their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...models.reranker import sigmoid, softmax


def shares(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits (n, labels) -> numbers between 0 and 1: of one label its own, of several their shares."""
    return sigmoid(logits) if logits.shape[1] == 1 else softmax(logits)


def best_first(scores: np.ndarray[Any, Any]) -> list[int]:
    """Places by falling score; equal ones keep their order."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
