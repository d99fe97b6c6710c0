"""Rows into a table of PostgreSQL: `vector` columns of pgvector, or arrays of real where there is no such extension.

A part and the mark that it is there are one transaction.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ...errors import InvalidInputError
from ..extras import arrow, required
from . import About, without_secrets

MARKS = "fastembed_rt_parts"
LATER = {"row_count": "bigint", "taken": "text"}  # columns of the marks that earlier versions did not write
PGVECTOR = "pgvector"
ADVICE = "take it out of the input, or the column out with --columns; drop the table and begin again with --force"


class PostgresSink:
    """One table; several ranks may write to it."""

    def __init__(self, psycopg: Any, connection: Any, table: str, about: About) -> None:
        self._psycopg, self._connection, self._about, self._name = psycopg, connection, about, table
        self._sql = psycopg.sql
        self._table = self._sql.Identifier(*table.split("."))
        self._json = [name for name in about.schema.names if self._kind(name) == "jsonb"]
        self._text = [name for name in about.schema.names if self._kind(name) == "text"]
        columns = self._sql.SQL(", ").join(
            self._sql.SQL("{} {}").format(self._sql.Identifier(name), self._sql.SQL(self._kind(name)))
            for name in about.schema.names
        )
        with connection.transaction():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {MARKS} (mark text PRIMARY KEY)")
            there = [column[0] for column in connection.execute(f"SELECT * FROM {MARKS} LIMIT 0").description]
            for name, kind in LATER.items():
                if name not in there:  # asked, since ALTER TABLE waits for the parts of all other ranks
                    connection.execute(f"ALTER TABLE {MARKS} ADD COLUMN IF NOT EXISTS {name} {kind}")
            connection.execute(self._sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(self._table, columns))
        # Marks outlive a table that was dropped or emptied: what they stand for has to be written again. One statement,
        # so that another rank's first part is seen with its mark or not at all.
        gone = "DELETE FROM {} WHERE starts_with(mark, %s) AND NOT EXISTS (SELECT FROM {})"
        connection.execute(self._sql.SQL(gone).format(self._sql.Identifier(MARKS), self._table), [about.marks])

    def _kind(self, name: str) -> str:
        kind, types = self._about.schema.field(name).type, arrow().types
        if name == self._about.vectors:
            half = types.is_float16(kind.value_type)
            if self._about.scheme == PGVECTOR:
                return f"{'halfvec' if half else 'vector'}({kind.list_size})"
            return "real[]"
        for check, found in (
            (types.is_boolean, "boolean"),
            (types.is_uint64, "numeric"),
            (types.is_integer, "bigint"),
            (types.is_floating, "double precision"),
            (types.is_decimal, "numeric"),
            (types.is_date, "date"),
            (types.is_binary, "bytea"),
            (types.is_large_binary, "bytea"),
            (types.is_fixed_size_binary, "bytea"),
            (types.is_string, "text"),
            (types.is_large_string, "text"),
        ):
            if check(kind):
                return found
        if types.is_timestamp(kind):
            return "timestamp with time zone" if kind.tz else "timestamp"
        return "jsonb"

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        mark, rows = self._about.mark(part), table.num_rows
        self._check(part, table)
        names = self._sql.SQL(", ").join(map(self._sql.Identifier, self._about.schema.names))
        copy = self._sql.SQL("COPY {} ({}) FROM STDIN").format(self._table, names)
        insert = f"INSERT INTO {MARKS} (mark, row_count, taken) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        try:
            with self._connection.transaction():
                if not self._connection.execute(insert, [mark, rows, self._about.taken]).rowcount:
                    kept = f"SELECT row_count, taken FROM {MARKS} WHERE mark = %s"
                    found = self._connection.execute(kept, [mark]).fetchone() or (None, None)
                    self._about.check_there(part, rows, self._name, *found)
                    return
                with self._connection.cursor() as cursor, cursor.copy(copy) as lines:
                    for row in table.to_pylist():
                        lines.write_row([self._value(name, value) for name, value in row.items()])
        except self._psycopg.DataError as error:  # its message has the column, and the row as a line
            said = " ".join(str(error).split())
            raise InvalidInputError(f"part {part} cannot be written into {self._name}: {said}; {ADVICE}") from error

    def _check(self, part: int, table: Any) -> None:
        """Raise InvalidInputError for what a column of text or jsonb cannot hold, though the inputs can."""
        for name in (*self._text, *self._json):
            for k, value in enumerate(table.column(name).to_pylist(), start=1):
                if found := _unstorable(value):
                    raise InvalidInputError(
                        f"part {part}, row {k}: column {name!r} holds {found}, which PostgreSQL does not take; {ADVICE}"
                    )

    def _value(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if name == self._about.vectors:
            inner = ",".join(f"{number:.9g}" for number in value)  # nine digits give every float32 back exactly
            return f"[{inner}]" if self._about.scheme == PGVECTOR else f"{{{inner}}}"
        return json.dumps(value, default=str) if name in self._json else value

    def close(self) -> None:  # noqa: D102
        self._connection.close()


def open_sink(rest: str, about: About) -> PostgresSink:
    """`pgvector://USER@HOST/DATABASE/TABLE` or `postgresql://...`; a password comes from PGPASSWORD or the URL."""
    psycopg = required("psycopg", f"--to {about.scheme}://", "psycopg[binary]")
    importable = required("psycopg.sql", f"--to {about.scheme}://", "psycopg[binary]")
    assert importable
    address, _, query = rest.partition("?")
    database, _, table = address.rpartition("/")
    if not database or not table:
        raise InvalidInputError(f"--to {about.scheme}:// names no table; write {about.scheme}://HOST/DATABASE/TABLE")
    if arrow().types.is_integer(about.schema.field(about.vectors).type.value_type):
        raise InvalidInputError(f"--to {about.scheme}:// takes vectors of float32 or float16")
    url = f"postgresql://{database}" + (f"?{query}" if query else "")
    try:
        connection = psycopg.connect(url, autocommit=True)
        if about.scheme == PGVECTOR:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        return PostgresSink(psycopg, connection, table, about)
    except psycopg.Error as error:
        said = str(error).strip().splitlines()[0]
        raise InvalidInputError(
            f"--to {without_secrets(f'{about.scheme}://{rest}')}: {said}"
            + ("; without pgvector, postgresql:// writes arrays of real" if about.scheme == PGVECTOR else "")
        ) from error


def _unstorable(value: Any) -> str:
    """What a value has somewhere in it that neither text nor jsonb holds; "": nothing."""
    if isinstance(value, str):
        return "a NUL character" if "\0" in value else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}"
    if isinstance(value, dict):
        return _unstorable([*value, *value.values()])
    inner = value if isinstance(value, (list, tuple)) else ()
    return next((found for each in inner if (found := _unstorable(each))), "")
