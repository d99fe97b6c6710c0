"""Task scores as the benchmarks define them: rank correlation, nDCG and recall at 10. Pure functions of vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
DEPTH = 10  # results looked at


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0, ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def spearman(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Rank correlation."""
    a, b = ranks(np.asarray(left, np.float64)), ranks(np.asarray(right, np.float64))
    return float(np.corrcoef(a, b)[0, 1])


def unit(vectors: Vectors) -> Vectors:
    """Rows at length one: (n, dim) -> (n, dim)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normed: Vectors = vectors / np.maximum(lengths, np.float32(1e-30))
    return normed


def similarity(left: Vectors, right: Vectors, scores: Sequence[float]) -> float:
    """Spearman of cosine and human score, in percent: (n, dim), (n, dim) and n scores."""
    return 100 * spearman((unit(left) * unit(right)).sum(axis=1), scores)


def retrieval(
    queries: Vectors,
    documents: Vectors,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    judged: Mapping[str, Mapping[str, int]],
) -> dict[str, float]:
    """Mean nDCG@10 and Recall@10 in percent, by cosine, over the queries that have something relevant.

    As in BEIR: gains are the judgements themselves, and a document is never an answer to the query of its own id.
    """
    places = {name: place for place, name in enumerate(document_ids)}
    found, recalled = [], []
    normed, corpus = unit(queries), unit(documents)
    for vector, name in zip(normed, query_ids, strict=True):
        relevant = {document: gain for document, gain in judged.get(name, {}).items() if gain > 0}
        if not relevant:
            continue
        cosines = corpus @ vector
        if name in places:
            cosines[places[name]] = -np.inf
        best = [document_ids[place] for place in np.argsort(-cosines, kind="stable")[:DEPTH]]
        ideal = sorted(relevant.values(), reverse=True)[:DEPTH]
        found.append(_gain([relevant.get(document, 0) for document in best]) / _gain(ideal))
        recalled.append(sum(document in relevant for document in best) / len(relevant))
    return {f"ndcg@{DEPTH}": 100 * float(np.mean(found)), f"recall@{DEPTH}": 100 * float(np.mean(recalled))}


def _gain(relevance: Sequence[int]) -> float:
    return sum(value / math.log2(place + 2) for place, value in enumerate(relevance))
