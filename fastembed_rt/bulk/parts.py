"""Blocks of rows -> parts: where one ends depends on the rows alone, so that every run cuts at the same places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .columns import Plan
from .extras import arrow, flat
from .rows import Block

ROWS = 16_384  # of a part, unless --part-rows says otherwise
CHARACTERS = 32_000_000  # of a part's texts, however few rows that are: what is in memory is bounded


@dataclass
class Part:
    """Rows [start, stop) of a rank's input: what is carried along, and texts, None where there is none."""

    number: int
    start: int
    stop: int
    table: Any  # pyarrow.Table
    texts: list[str | None]
    faults: dict[int, str] = field(default_factory=dict)  # why rows could not be read, by place
    origins: list[tuple[int, str, int]] = field(
        default_factory=list
    )  # from which place on: the file, and its row there

    def origin(self, place: int) -> tuple[str, int]:
        """The file of a row, and its number there, from 1."""
        first, label, number = next(found for found in reversed(self.origins) if found[0] <= place)
        return label, number + place - first


class _Growing:
    """A part while blocks come in."""

    def __init__(self, number: int, start: int) -> None:
        self.number, self.start, self.characters = number, start, 0
        self.tables: list[Any] = []
        self.texts: list[str | None] = []
        self.faults: dict[int, str] = {}
        self.origins: list[tuple[int, str, int]] = []

    def add(self, block: Block, at: int, stop: int, texts: list[str | None], wanted: Plan) -> None:
        """Rows [at, stop) of a block."""
        here = len(self.texts)
        self.origins.append((here, block.label, block.first + at))
        self.tables.append(block.table.slice(at, stop - at).select(wanted.carried))
        self.texts += texts[at:stop]
        self.faults.update({here + k - at: reason for k, reason in block.faults.items() if at <= k < stop})

    def whole(self) -> Part:
        """The part."""
        # A copy: slices share buffers with their neighbours, whose bytes an Arrow file would have at its ends.
        pyarrow = arrow()
        table = pyarrow.concat_tables(self.tables)
        if table.num_columns:
            places = np.arange(len(self.texts), dtype=np.int64)
            table = table.take(flat(places)).combine_chunks()
        stop = self.start + len(self.texts)
        return Part(self.number, self.start, stop, table, self.texts, self.faults, self.origins)


def parts(blocks: Iterator[Block], wanted: Plan, rows: int, number: int = 0, start: int = 0) -> Iterator[Part]:
    """All rows in parts of so many, or fewer where texts are long; the first has this number and begins at this row."""
    growing = _Growing(number, start)
    for block in blocks:
        texts = wanted.template.texts(block.table)
        lengths = np.cumsum([0 if text is None else len(text) for text in texts])
        at = before = 0
        while at < len(texts):
            # Up to the row that fills the part, which is still in it.
            full = int(np.searchsorted(lengths, before + CHARACTERS - growing.characters, side="left")) + 1
            stop = min(len(texts), at + rows - len(growing.texts), full)
            growing.add(block, at, stop, texts, wanted)
            growing.characters += int(lengths[stop - 1]) - before
            at, before = stop, int(lengths[stop - 1])
            if len(growing.texts) >= rows or growing.characters >= CHARACTERS:
                made = growing.whole()
                yield made
                growing = _Growing(made.number + 1, made.stop)
    if growing.texts:
        yield growing.whole()
