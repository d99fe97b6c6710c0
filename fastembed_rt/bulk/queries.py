"""Rows of a database: what a query gives, in the order in which it gives them.

A resumed run asks the same query again and passes over what is there; so the query says in which order (ORDER BY).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidInputError
from . import databases
from .columns import Plan, infer, table_of
from .extras import arrow, is_url, required
from .inputs import Source
from .rows import BLOCK_ROWS, Block, Skip


def check(source: Source, sql: str | None) -> str:
    """The query.

    Raises:
        InvalidInputError: none, one without an order, or a database that is not a file here.
    """
    if is_url(source.name):
        raise InvalidInputError(f"{source.name}: databases are opened as files of this machine; copy it first")
    if sql is None:
        raise InvalidInputError(f"{source.name} is a database; pass --sql 'SELECT ... ORDER BY ...'")
    if not re.search(r"\border\s+by\b", sql, re.IGNORECASE):
        raise InvalidInputError(
            "--sql has no ORDER BY, so that its rows may come in another order the next time; add it"
        )
    return sql


def schema(source: Source, sql: str | None, sample: int, text: str) -> tuple[Any, bool]:
    """Columns of a query, and whether the first rows decided their types; `text` as for `infer`."""
    query = check(source, sql)
    if source.format == "duckdb":
        with _duckdb(source) as connection, _asked(source):
            return _reader(connection.execute(query)).schema, False
    with databases.opened(source.name) as connection, _asked(source):
        cursor = connection.execute(query)
        names = _names(cursor, source)
        rows = (dict(zip(names, row, strict=True)) for row in itertools.islice(cursor, sample))
        return infer(rows, source.name, text), True


def blocks(source: Source, sql: str | None, wanted: Plan, skip: Skip) -> Iterator[Block]:
    """All rows but the first `skip`."""
    query = check(source, sql)
    pyarrow = arrow()
    number = 1
    if source.format == "duckdb":
        with _duckdb(source) as connection, _asked(source):
            for batch in _reader(connection.execute(query)):
                taken = skip.take(batch.num_rows)
                number += taken
                rest = batch.slice(taken)
                for at in range(0, rest.num_rows, BLOCK_ROWS):
                    table = wanted.fit(pyarrow.Table.from_batches([rest.slice(at, BLOCK_ROWS)]), source.name)
                    yield Block(table, source.name, number)
                    number += table.num_rows
        return
    with databases.opened(source.name) as connection, _asked(source):
        cursor = connection.execute(query)
        names = _names(cursor, source)
        wanted.check_names(names, source.name)
        before = skip.left
        rows = skip.over(iter(cursor))
        for k in itertools.count():
            found = list(itertools.islice(rows, BLOCK_ROWS))
            number += before - skip.left if k == 0 else 0
            if not found:
                return
            table, faults = table_of([dict(zip(names, row, strict=True)) for row in found], wanted)
            yield Block(table, source.name, number, faults)
            number += len(found)


def digest(source: Source, sql: str | None) -> str:
    """SHA-256 of all rows and the columns' names, in order: the same wherever a database keeps them.

    Costs the query once more and some microseconds a row, whatever the size of the file.
    """
    query = check(source, sql)
    found = hashlib.sha256()
    opened = _duckdb(source) if source.format == "duckdb" else databases.opened(source.name)
    with opened as connection, _asked(source):
        cursor = connection.execute(query)
        found.update(_written([column[0] for column in cursor.description or ()]))
        while rows := cursor.fetchmany(BLOCK_ROWS):
            for row in rows:  # one by one: how many come at a time is the database's affair
                found.update(_written(row))
    return found.hexdigest()


def _written(row: Any) -> bytes:
    """Values of a row, unlike those of any other row: as Python writes them, with letters beyond ASCII as numbers."""
    return ascii(tuple(row)).encode("ascii")


@contextlib.contextmanager
def _duckdb(source: Source) -> Iterator[Any]:
    duckdb = required("duckdb", "a query on DuckDB", "duckdb")
    try:
        connection = duckdb.connect(source.name, read_only=True)
    except duckdb.Error as error:
        raise InvalidInputError(f"{source.name} is no database of DuckDB ({error})") from error
    with contextlib.closing(connection):
        yield connection


@contextlib.contextmanager
def _asked(source: Source) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InvalidInputError(f"{source.name}: {error}; look at --sql") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
            raise
        raise InvalidInputError(f"{source.name}: {error}; look at --sql") from error


def _reader(found: Any) -> Any:
    if hasattr(found, "to_arrow_reader"):
        return found.to_arrow_reader(BLOCK_ROWS)
    return found.fetch_record_batch(BLOCK_ROWS)


def _names(cursor: sqlite3.Cursor, source: Source) -> list[str]:
    if cursor.description is None:
        raise InvalidInputError(f"{source.name}: --sql gives no rows; write a SELECT")
    names = [column[0] for column in cursor.description]
    for name in names:
        if names.count(name) > 1:  # a row by its names would have the last of them
            raise InvalidInputError(f"{source.name}: --sql gives two columns {name!r}; name one with AS")
    return names
