"""Texts of files cut into chunks that a model takes whole, with the lines that they are from. Knows no folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

PARAGRAPH = re.compile(r"\n[^\S\n]*\n")  # an empty line
Count = Callable[[list[str]], Sequence[int]]


@dataclass(frozen=True)
class Chunk:
    """A part of a text."""

    text: str
    first_line: int  # from 1
    last_line: int


def chunks(text: str, limit: int, count: Count) -> list[Chunk]:
    """A text in parts of at most `limit` tokens: paragraphs packed together, those that are too long in pieces.

    `count` gives the tokens of each text of a list.
    """
    pieces = list(_fitting(text, list(_paragraphs(text)), limit, count))
    found = []
    start = stop = used = 0
    for begin, end, tokens in pieces:
        if used and used + tokens > limit:
            found.append((start, stop))
            used = 0
        if not used:
            start = begin
        stop, used = end, used + tokens
    if used:
        found.append((start, stop))
    return [_chunk(text, *span) for span in found]


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for gap in PARAGRAPH.finditer(text):
        yield start, gap.start()
        start = gap.end()
    yield start, len(text)


def _fitting(text: str, spans: Sequence[tuple[int, int]], limit: int, count: Count) -> Iterator[tuple[int, int, int]]:
    """(begin, end, tokens) of spans, halved until each fits; blank ones are left out."""
    filled = [span for span in spans if text[slice(*span)].strip()]
    counted = count([text[slice(*span)] for span in filled])
    for (begin, end), tokens in zip(filled, counted, strict=True):
        if tokens <= limit or end - begin < 2:
            yield begin, end, int(tokens)
        else:
            middle = _middle(text, begin, end)
            yield from _fitting(text, [(begin, middle), (middle, end)], limit, count)


def _middle(text: str, begin: int, end: int) -> int:
    """Where to cut: behind the line, sentence or word that ends nearest to the middle, else in it."""
    middle = (begin + end) // 2
    for pattern in (r"\n", r"[.!?。]\s", r"\s"):
        ends = [match.end() + begin for match in re.finditer(pattern, text[begin:end])]
        nearest = _nearest(ends, middle)
        if nearest is not None and begin + (end - begin) // 8 < nearest < end - (end - begin) // 8:
            return nearest
    return middle


def _nearest(places: Iterable[int], wanted: int) -> int | None:
    return min(places, key=lambda place: abs(place - wanted), default=None)


def _chunk(text: str, start: int, stop: int) -> Chunk:
    whole = text[start:stop]
    kept = whole.strip()
    start += len(whole) - len(whole.lstrip())
    first = text.count("\n", 0, start) + 1
    return Chunk(kept, first, first + kept.count("\n"))
