"""Rows into a table of LanceDB. One commit is a part, whose rows carry its mark, so that it is seen whether it came."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidInputError
from ..extras import arrow, required
from . import About, database_and_table

MARK = "fastembed_rt_part"


class LanceSink:
    """One table; several ranks may write to it."""

    def __init__(self, table: Any, about: About) -> None:
        self._table, self._about = table, about

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        mark, taken = self._about.mark(part), self._about.taken
        of_part = f"{MARK} = '{mark}' OR {MARK} LIKE '{mark} %'"  # the former in rows of earlier versions
        same = ", ".join(f"'{mark} {each}'" for each in self._about.agreeing)
        there = self._table.count_rows(of_part)
        if there == table.num_rows and there == self._table.count_rows(f"{MARK} IN ({same})"):
            return
        if there:  # of a run that took bad rows otherwise
            self._table.delete(of_part)
        if table.num_rows:
            pyarrow = arrow()
            marks = pyarrow.array([f"{mark} {taken}"] * table.num_rows, pyarrow.string())
            self._table.add(table.append_column(MARK, marks))

    def close(self) -> None:  # noqa: D102
        self._table = None


def open_sink(rest: str, about: About) -> LanceSink:
    """`lancedb://DIRECTORY/TABLE`; the directory may be a URL of an object store."""
    lancedb = required("lancedb", "--to lancedb://", "lancedb")
    place, name = database_and_table(rest, about.scheme)
    pyarrow = arrow()
    for field in about.schema:
        if not field.name or _is_hollow(field.type):  # LanceDB takes the latter, and reads no row of the table then
            raise InvalidInputError(
                f"column {field.name!r} ({field.type}) is none that LanceDB keeps; choose others with --columns"
            )
    schema = about.schema.append(pyarrow.field(MARK, pyarrow.string())).remove_metadata()
    try:
        database = lancedb.connect(place)
        try:
            table = database.open_table(name)
        except (ValueError, FileNotFoundError):  # there is none; one with another schema is refused below, by name
            table = database.create_table(name, schema=schema, exist_ok=True)
    except (ValueError, OSError, RuntimeError) as error:
        raise InvalidInputError(f"--to lancedb://{rest}: {error}") from error
    if missing := sorted(set(schema.names) - set(table.schema.names)):
        raise InvalidInputError(f"--to lancedb://{rest}: the table has no column {missing[0]!r}; name another table")
    wanted, there = (each.field(about.vectors).type for each in (about.schema, table.schema))
    if wanted != there:
        raise InvalidInputError(
            f"--to lancedb://{rest}: the table has vectors of {there}, these would be {wanted}; name another table"
        )
    return LanceSink(table, about)


def _is_hollow(kind: Any) -> bool:
    """Whether there is an object without keys in a type."""
    if not arrow().types.is_nested(kind):
        return False
    inner = [kind.field(k).type for k in range(kind.num_fields)]
    return not inner or any(map(_is_hollow, inner))
