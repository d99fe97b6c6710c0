"""Where a job's rows go instead of files: a table of stores by the scheme of a URL, which other packages add to.

A package names its function in the entry points `fastembed_rt.sinks`, under the scheme:

    [project.entry-points."fastembed_rt.sinks"]
    mystore = "my_package:open_sink"

It is called with the rest of the URL and an `About`, and gives a `Sink`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import InvalidInputError, MissingDependencyError
from ..extras import arrow
from ..outcome import EMPTY, FAIL, ON_ERROR, ZERO

GROUP = "fastembed_rt.sinks"
OWN = {
    "lancedb": "lance",
    "qdrant": "qdrant",
    "qdrant+https": "qdrant",
    "duckdb": "duck",
    "pgvector": "postgres",
    "postgresql": "postgres",
}
SAME = {"postgres": "postgresql"}  # schemes that mean another one, to libpq too


@dataclass(frozen=True, kw_only=True)
class About:
    """What a store is told before the first row."""

    scheme: str
    job: str  # a name of the job that no other has, the same for its ranks and when it is resumed
    rank: int
    fingerprint: str
    schema: Any  # pyarrow.Schema of the rows: what is carried along, then the vectors
    vectors: str  # the column with them, FixedSizeList
    id_column: str | None  # the column whose values tell rows from each other, if the caller has named one
    nulls: bool  # whether vectors may be null
    on_error: str = FAIL  # how rows that cannot be encoded are taken, and
    on_null: str = "error"  # rows without a text; neither is in the job's name
    bits: int = 0  # of a vector whose numbers are bytes of eight signs each, the first the highest; 0: of others

    def mark(self, part: int) -> str:
        """A name of one part of one rank."""
        return f"{self.marks}{self.rank}-{part}"

    @property
    def marks(self) -> str:
        """What the marks of all parts of all ranks of the job begin with."""
        return f"{self.job}-"

    @property
    def taken(self) -> str:
        """How rows that cannot be encoded and rows without a text are taken, to be kept beside a mark: `skip,zero`."""
        return f"{self.on_error},{self.on_error if self.on_null == 'error' else self.on_null}"

    @property
    def agreeing(self) -> list[str]:
        """Under which `taken` a part has the rows that it has now."""
        every = (f"{one},{other}" for one in ON_ERROR for other in (*ON_ERROR, EMPTY, ZERO))
        return [taken for taken in every if self._agrees(taken)]

    def _agrees(self, taken: str) -> bool:
        # A part that was written under `fail` has no such row, so that another way to take them changes nothing in it.
        pairs = zip(taken.split(","), self.taken.split(","), strict=True)
        return all(FAIL in pair or pair[0] == pair[1] for pair in pairs)

    def check_there(self, part: int, rows: int, where: str, kept: int | None, taken: str | None) -> None:
        """For stores that cannot replace a part: see to it that the one that is there has the rows that it has now.

        `kept` and `taken` are what its mark says; marks of earlier versions say neither, and are believed.

        Raises:
            InvalidInputError: it has others.
        """
        if taken is None or (kept == rows and self._agrees(taken)):
            return
        raise InvalidInputError(
            f"part {part} is in {where} already, with {kept} rows ({_said(taken)}); it would have {rows} now "
            f"({_said(self.taken)}). Drop the table and begin again with --force, or name another one"
        )


class Sink(Protocol):
    """A store that takes rows. It is opened, and all its methods are called, in one thread of its own."""

    def write(self, part: int, table: Any) -> None:
        """Bring in all rows of a part (pyarrow.Table), or none; a part that is there already stays there once."""

    def close(self) -> None:
        """No more rows come."""


def open_sink(url: str, about: Callable[[str], About]) -> Sink:
    """The store of a URL; `about` is given its scheme.

    Raises:
        InvalidInputError: a scheme that is not known, or what the store itself refuses.
        MissingDependencyError: the package of the store does not import.
    """
    scheme, found, rest = url.partition("://")
    others = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if scheme not in others:
        scheme = SAME.get(scheme, scheme)
    if not found or (scheme not in OWN and scheme not in others):
        known = ", ".join(f"{name}://" for name in sorted({*OWN, *others}))
        raise InvalidInputError(f"--to {without_secrets(url)} is of no known store; known: {known}")
    if scheme in others:
        try:
            function: Callable[[str, About], Sink] = others[scheme].load()
        except ImportError as error:
            raise MissingDependencyError(f"--to {scheme}:// does not import here ({error})") from error
    else:
        function = importlib.import_module(f".{OWN[scheme]}", __name__).open_sink
    return function(rest, about(scheme))


def _followed() -> None:
    """Never called: tools that build programs put into them what is imported somewhere, and follow no names."""
    from . import duck, lance, postgres, qdrant  # noqa: F401


def database_and_table(rest: str, scheme: str) -> tuple[str, str]:
    """The rest of a URL, cut at its last `/`.

    Raises:
        InvalidInputError: one of the two is missing.
    """
    database, _, table = rest.rpartition("/")
    if not database or not table:
        url = without_secrets(f"{scheme}://{rest}")
        raise InvalidInputError(f"--to {url} names no table; write {scheme}://DATABASE/TABLE")
    return database, table


def without_secrets(url: str) -> str:
    """A URL for files and messages: no user, no password, no query."""
    scheme, found, rest = url.partition("://")
    place = rest.rpartition("@")[2] if has_cut_password(rest) else rest
    host, slash, path = place.partition("/")
    return f"{scheme}{found}{host.rpartition('@')[2]}{slash}{path}".partition("?")[0]


def has_cut_password(rest: str) -> bool:
    """Whether the host of a URL seems to end within a password: at a `/`, which is to be written as %2F."""
    host, _, path = rest.partition("/")
    _, colon, port = host.partition(":")
    return bool(colon) and "@" not in host and not port.isdecimal() and "@" in path.partition("?")[0]


def holds_bytes(kind: Any) -> bool:
    """Whether a type of Arrow has bytes somewhere in it, which JSON has no word for."""
    types = arrow().types
    if types.is_nested(kind):
        return any(holds_bytes(kind.field(k).type) for k in range(kind.num_fields))
    return any(check(kind) for check in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary))


def _said(taken: str) -> str:
    bad, without = taken.split(",")
    return f"bad rows: {bad}, rows without a text: {without}"
