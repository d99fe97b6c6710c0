"""Batches of texts of like length, for libraries that take token ids: bounded by tokens, shared among threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(lengths: Sequence[int], *, tokens: int, threads: int, texts: int | None = None) -> Iterator[list[int]]:
    """Places of texts, the longest first, in batches that hold each once.

    A batch has at most so many tokens (or one text that has more) and texts, and fewer where a call has so few texts
    that a thread would have none.
    """
    tokens = min(tokens, -(-sum(lengths) // threads))
    batch: list[int] = []
    held = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and (held + lengths[place] > tokens or len(batch) == texts):
            yield batch
            batch, held = [], 0
        batch.append(place)
        held += lengths[place]
    if batch:
        yield batch
