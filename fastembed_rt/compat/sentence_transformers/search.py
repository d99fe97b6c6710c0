"""Search and mining over vectors in numpy, with the arguments and results of sentence_transformers.util."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from ...vectors.dense import normalized
from .. import tensors
from . import functions

Score = Callable[[Any, Any], Any]


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Score = functions.cos_sim,
) -> list[list[dict[str, Any]]]:
    """The nearest of a corpus for each query: dicts with "corpus_id" and "score", the best first.

    Args:
        query_embeddings: (n, dim) or (dim,).
        corpus_embeddings: (m, dim); sparse vectors stay so under the similarities of here.
        query_chunk_size: queries that are compared at a time, which bounds memory.
        corpus_chunk_size: vectors of the corpus that they are compared with at a time.
        top_k: hits a query.
        score_function: (n, dim) and (m, dim) -> (n, m), larger is nearer.
    """
    queries, corpus = _compared(score_function, query_embeddings, corpus_embeddings)
    found: list[list[dict[str, Any]]] = []
    for rows in _pieces(len(queries), query_chunk_size):
        scores, places = _best(queries[rows], corpus, corpus_chunk_size, top_k, score_function)
        found += [
            [{"corpus_id": place, "score": score} for place, score in zip(*row, strict=True)]
            for row in zip(places.tolist(), scores.tolist(), strict=True)
        ]
    return found


def paraphrase_mining(
    model: Any,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = functions.cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[Any]]:
    """`paraphrase_mining_embeddings` of what `model.encode` makes of the sentences."""
    vectors = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        prompt_name=prompt_name,
        prompt=prompt,
    )
    return paraphrase_mining_embeddings(vectors, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function)


def paraphrase_mining_embeddings(
    embeddings: Any,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = functions.cos_sim,
) -> list[list[Any]]:
    """The pairs of vectors that are nearest each other: [score, i, j] with i < j, the best first, each pair once.

    Args:
        embeddings: (n, dim).
        query_chunk_size: vectors that are compared at a time, which bounds memory.
        corpus_chunk_size: vectors that they are compared with at a time.
        max_pairs: most pairs that are given, and most that are held meanwhile.
        top_k: others that a vector may be paired with.
        score_function: symmetric; (n, dim) and (m, dim) -> (n, m), larger is nearer.
    """
    (vectors,) = _compared(score_function, embeddings)
    if max_pairs < 1:
        return []
    # The worst first. Of equal scores the one that came last is the worse, which the number of its coming says.
    best: list[tuple[float, int, int, int]] = []
    held: set[tuple[int, int]] = set()
    coming = count()
    for rows in _pieces(len(vectors), query_chunk_size):
        scores, places = _best(vectors[rows], vectors, corpus_chunk_size, top_k + 1, score_function)
        for own, (row, others) in enumerate(zip(scores.tolist(), places.tolist(), strict=True), rows.start):
            kept = [(other, score) for other, score in zip(others, row, strict=True) if other != own][:top_k]
            for other, score in kept:
                pair = (min(own, other), max(own, other))
                if pair in held or (len(best) >= max_pairs and score <= best[0][0]):
                    continue
                held.add(pair)
                entry = (score, -next(coming), *pair)
                if len(best) < max_pairs:
                    heapq.heappush(best, entry)
                else:
                    held.discard(heapq.heapreplace(best, entry)[2:])
    return [[score, i, j] for score, _, i, j in sorted(best, reverse=True)]


def community_detection(
    embeddings: Any,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of vectors around one with a cosine of at least `threshold` to all; its number first, large groups first.

    Args:
        embeddings: (n, dim).
        threshold: least cosine to the middle.
        min_community_size: groups of fewer are none.
        batch_size: rows that are compared at a time, which bounds memory.
        show_progress_bar: without effect.
    """
    vectors = functions.floats(embeddings)
    if not len(vectors):
        return []
    vectors = normalized(np.atleast_2d(vectors))
    found: list[tuple[int, npt.NDArray[np.int64]]] = []
    for rows in _pieces(len(vectors), batch_size):
        for middle, scores in enumerate(vectors[rows] @ vectors.T, rows.start):
            near = np.flatnonzero(scores >= np.float32(threshold))
            if len(near) >= min_community_size:
                found.append((middle, near[np.argsort(-scores[near], kind="stable")]))
    found.sort(key=lambda group: len(group[1]), reverse=True)
    taken = np.zeros(len(vectors), dtype=bool)
    groups: list[list[int]] = []
    for middle, near in found:
        free = near[~taken[near]]
        if not taken[middle] and len(free) >= min_community_size:
            groups.append([middle, *free[free != middle].tolist()])
            taken[groups[-1]] = True
    return sorted(groups, key=len, reverse=True)


def normalize_embeddings(embeddings: Any) -> Any:
    """Vectors (n, dim) of unit length."""
    return tensors.like_theirs(normalized(functions.floats(embeddings)))


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Any:
    """The first `truncate_dim` numbers of vectors (n, dim)."""
    return embeddings[..., :truncate_dim]


def batch_to_device(batch: dict[str, Any], target_device: Any) -> dict[str, Any]:
    """The same dict, its tensors on a device."""
    for name, value in batch.items():
        if tensors.is_tensor(value):
            batch[name] = value.to(target_device)
    return batch


def _pieces(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _compared(score: Score, *given: Any) -> tuple[Any, ...]:
    """Vectors as a score function takes them: (n, dim), or lists of sparse vectors where ours is given nothing else."""
    found = [functions.sparse(side) for side in given] if score in functions.MATRICES.values() else [None]
    return tuple(np.atleast_2d(functions.floats(side)) for side in given) if None in found else tuple(found)


def _best(queries: Any, corpus: Any, size: int, top_k: int, score: Score) -> tuple[Any, Any]:
    """Scores and numbers (n, k) of the best of a corpus, the best first; of equal ones the first."""
    kept = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for columns in _pieces(len(corpus), size):
        found = np.asarray(tensors.to_array(score(queries, corpus[columns])), np.float32)
        numbers = np.broadcast_to(np.arange(columns.start, columns.stop), found.shape)
        kept, places = np.concatenate([kept, found], axis=1), np.concatenate([places, numbers], axis=1)
        most = min(top_k, kept.shape[1])
        if most < kept.shape[1]:  # ties at the border aside, a sort of the few instead of the many
            few = np.sort(np.argpartition(-kept, most - 1, axis=1)[:, :most], axis=1)
            kept, places = np.take_along_axis(kept, few, 1), np.take_along_axis(places, few, 1)
    order = np.argsort(-kept, axis=1, kind="stable")
    return np.take_along_axis(kept, order, 1), np.take_along_axis(places, order, 1)
