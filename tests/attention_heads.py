"""Heads of attention for tests: queries, keys and values, (tokens, SIZE) each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SIZE = 32
FAR_ROWS = (0, 3, 4, 17, 47, 48, 60, 150, 299)  # with scores farther than 96 from 0, which take another way


def random_head(length: int, spread: float, seed: int = 0) -> tuple[Array, Array, Array]:
    """Queries and keys whose scores have about this deviation, and values around 0.3."""
    random = np.random.default_rng(seed + length)
    deviation = (spread / SIZE**0.5) ** 0.5
    query, key = (random.normal(0, deviation, (length, SIZE)).astype(np.float32) for _ in range(2))
    value = random.normal(0.3, 1, (length, SIZE)).astype(np.float32)
    return query, key, value


def with_sinks(length: int, share: float, places: tuple[int, ...], value_scale: float) -> tuple[Array, Array, Array]:
    """A head whose queries all give `share` to the keys at some places, in equal parts; the others get the rest.

    A trained model's sinks have small values, so that what the other keys add is much of the output.
    """
    query, key, value = random_head(length, 0.1)
    score = np.log(share / len(places) / (1 - share) * (length - len(places)))
    query[:, 0], key[:, 0] = 2.0, 0.0
    key[list(places)] = 0.0
    key[list(places), 0] = score / 2
    value[list(places)] *= value_scale
    return query, key, value


def with_far_rows(length: int = 300, rows: tuple[int, ...] = FAR_ROWS) -> tuple[Array, Array, Array]:
    """A head of which some queries have far larger scores."""
    query, key, value = random_head(length, 4)
    query[list(rows)] *= 40
    return query, key, value
