"""MaxSim: the score of late interaction, from token vectors. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import InvalidInputError
from .dense import Vectors

PRODUCTS = 4_000_000  # of tokens with tokens that are held at a time
NOTHING = -1e6  # the score of a document without a token: below that of every other, and finite


def maxsim(
    queries: Vectors | Sequence[Vectors], documents: Vectors | Sequence[Vectors], dim: int, *, mean: bool = False
) -> Vectors:
    """Scores of n queries and m documents, each (tokens, dim): (n, m) float32; see LateInteractionModel.similarity."""
    left, right = _listed(queries, dim, "queries"), _listed(documents, dim, "documents")
    out = np.full((len(left), len(right)), NOTHING, np.float32)
    if not left:
        return out
    for places in _pieces(right, max(map(len, left))):
        tokens = np.concatenate([right[k] for k in places])
        starts = np.cumsum([0, *(len(right[k]) for k in places[:-1])])
        for row, query in enumerate(left):
            best = np.maximum.reduceat(query @ tokens.T, starts, axis=1)  # (query's tokens, documents)
            out[row, places] = best.sum(axis=0) / (max(len(query), 1) if mean else 1)
    return out


def _pieces(documents: Sequence[Vectors], longest_query: int) -> Iterator[list[int]]:
    """Numbers of documents that have tokens, in pieces that bound memory."""
    piece: list[int] = []
    tokens = 0
    for number, document in enumerate(documents):
        if not len(document):
            continue
        if piece and (tokens + len(document)) * longest_query > PRODUCTS:
            yield piece
            piece, tokens = [], 0
        piece.append(number)
        tokens += len(document)
    if piece:
        yield piece


def _listed(given: Vectors | Sequence[Vectors], dim: int, what: str) -> list[Vectors]:
    if isinstance(given, np.ndarray) and given.ndim == 2:
        given = [given]
    listed = [np.asarray(vectors, dtype=np.float32) for vectors in given]
    for number, vectors in enumerate(listed):
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise InvalidInputError(f"{what}: number {number} has shape {vectors.shape}, expected (tokens, {dim})")
    return listed
