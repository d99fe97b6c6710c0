"""Rows on their way from a file to a part, and what is known of those that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

BLOCK_ROWS = 1024  # that are read together
DELIMITERS = (";", "\t", "|", ",")  # that files are written with


def delimiter_meant(names: Sequence[str]) -> str | None:
    """What seems to separate the fields of a file whose header was read as one column, such as `id;title;text`."""
    if len(names) != 1:
        return None
    likely = max(DELIMITERS, key=names[0].count)
    return likely if likely in names[0] else None


class Fault(NamedTuple):
    """Why a row has no text; `reason` says the line where the row's number does not."""

    reason: str


@dataclass
class Block:
    """Rows that were read together: all of the columns that a job wants, and `faults` by place, null in the columns."""

    table: Any  # pyarrow.Table
    label: str  # the file
    first: int  # number of the first row in its piece, from 1
    faults: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)


class Skip:
    """Rows that are there already and are passed over, in the cheapest way that a format has."""

    def __init__(self, rows: int) -> None:
        self.left = rows

    def take(self, rows: int) -> int:
        """How many of so many rows are passed over."""
        taken = min(self.left, rows)
        self.left -= taken
        return taken

    def over(self, rows: Iterator[Any]) -> Iterator[Any]:
        """What remains of an iterator; each of its things is a row."""
        while self.left:
            try:
                next(rows)
            except StopIteration:
                return
            self.left -= 1
        yield from rows
