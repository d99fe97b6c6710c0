"""A record as parts of a report: each a table, and most a drawing, or the reason why it is not there.

Tables come without matplotlib; a drawing is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .figures import Record
from .records import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .theme import Look

Values = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Words in rows and columns. strong: rows to set apart (this project's)."""

    head: Sequence[str]
    body: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A plot to be made: its title says what it shows."""

    title: str
    draw: Callable[[], Figure]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One section. missing: why there is nothing to show."""

    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    lines: Sequence[str] = field(default=())
    missing: str = ""


def looks(record: Record) -> dict[str, Look]:
    """How each contender is drawn, the same in every plot."""
    from . import theme

    return theme.looks(
        {name: (label(record, name), row["precision"], row["ours"]) for name, row in record["contenders"].items()}
    )


def present(values: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    """Without the rows that hold nothing."""
    return {name: row for name, row in values.items() if any(value is not None for value in row)}


def grid(record: Record, first: str, columns: Sequence[str], values: Values, digits: int = 0) -> Table:
    """Contenders by columns."""
    body = [[label(record, name), *(words(value, digits) for value in row)] for name, row in values.items()]
    return Table(head=[first, *columns], body=body, strong=ours(record, values))


def ours(record: Record, names: Iterable[str]) -> frozenset[int]:
    """Numbers of the rows that are this project's."""
    return frozenset(k for k, name in enumerate(names) if record["contenders"][name]["ours"])


def rate(value: float | None) -> str:
    """Texts a second for a table: digits behind the point where whole ones would say little."""
    return words(value, 0 if value is None or value >= 10 else 1 if value >= 1 else 3)


def words(value: float | None, digits: int = 0, factor: float = 1.0) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value * factor:,.{digits}f}"
