"""Rows into a table of PostgreSQL: what pgvector compares (`vector`, `halfvec`, `bit`), or arrays of real without it.

A part and the mark that it is there are one transaction. Marks lie in a table beside the rows' one, in the same schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from ...errors import InvalidInputError
from ..extras import arrow, required
from . import About, has_cut_password, holds_bytes, without_secrets

MARKS = "fastembed_rt_parts"
LATER = {"row_count": "bigint", "taken": "text"}  # columns of the marks that earlier versions did not write
PGVECTOR = "pgvector"
TYPES = {PGVECTOR: ("vector", "halfvec"), "postgresql": ("_float4", "_float8")}  # of vectors, as pg_type has them
LONGEST = 63  # bytes of a name; of longer ones PostgreSQL takes so many
ROWS = 256  # that are objects of Python at a time
ADVICE = "take it out of the input, or the column out with --columns; drop the table and begin again with --force"


class PostgresSink:
    """One table; several ranks may write to it. A connection that was lost between parts is made once more."""

    def __init__(self, psycopg: Any, connect: Callable[[], Any], table: str, about: About) -> None:
        self._psycopg, self._connect, self._about, self._name = psycopg, connect, about, table
        self._sql = psycopg.sql
        *schema, name = map(unquote, table.split("."))
        self._table, self._marks = self._sql.Identifier(*schema, name), self._sql.Identifier(*schema, MARKS)
        self._connection = connect()
        vectors = about.schema.field(about.vectors).type
        self._types = ("bit",) if about.bits else TYPES[about.scheme]
        self._width = about.bits or vectors.list_size
        self._sign = 0x80 if arrow().types.is_int8(vectors.value_type) else 0  # of `binary`, what `ubinary` has not
        numbers = ",".join(["%.9g"] * vectors.list_size)  # every float32 comes back so
        self._vector = f"[{numbers}]" if about.scheme == PGVECTOR else f"{{{numbers}}}"
        with self._connection.transaction():
            kinds = {field.name: self._kind(field) for field in about.schema}
            self._make(kinds)
            self._check_columns(kinds[about.vectors])
            # Marks outlive a table that was dropped or emptied: what they stand for has to be written again. One
            # statement, so that another rank's first part is seen with its mark or not at all.
            gone = "DELETE FROM {} WHERE starts_with(mark, {}) AND NOT EXISTS (SELECT FROM {})"
            self._do(gone, self._marks, self._sql.Literal(about.marks), self._table)
        self._json = {name for name, kind in kinds.items() if kind == "jsonb"}
        self._checked = {name for name, kind in kinds.items() if kind in ("jsonb", "text")}
        self._zoned = {name for name, kind in kinds.items() if kind == "timestamp with time zone"}

    def _do(self, statement: str, *parts: Any) -> Any:
        """Values are among the parts, as literals: a % in a name would count as the place of one."""
        return self._connection.execute(self._sql.SQL(statement).format(*parts))

    def _is_there(self, table: Any) -> bool:
        found = self._do("SELECT to_regclass({}) IS NOT NULL", self._sql.Literal(table.as_string())).fetchone()
        return bool(found[0])

    def _make(self, kinds: dict[str, str]) -> None:
        """The tables, where they are missing: whoever may write rows into them may not be allowed to make any."""
        missing = [table for table in (self._marks, self._table) if not self._is_there(table)]
        if missing:  # ranks that begin at once would meet in the catalog, where IF NOT EXISTS is no help
            self._do("SELECT pg_advisory_xact_lock(hashtext({}))", self._sql.Literal(MARKS))
        if self._marks in missing:
            self._do("CREATE TABLE IF NOT EXISTS {} (mark text PRIMARY KEY)", self._marks)
        there = [column[0] for column in self._do("SELECT * FROM {} LIMIT 0", self._marks).description]
        for name, kind in LATER.items():
            if name not in there:  # asked, since ALTER TABLE waits for the parts of all other ranks
                self._do(f"ALTER TABLE {{}} ADD COLUMN IF NOT EXISTS {name} {kind}", self._marks)
        if self._table in missing:
            columns = [
                self._sql.SQL("{} {}").format(self._sql.Identifier(name), self._sql.SQL(kind))
                for name, kind in kinds.items()
            ]
            self._do("CREATE TABLE IF NOT EXISTS {} ({})", self._table, self._sql.SQL(", ").join(columns))

    def _check_columns(self, wanted: str) -> None:
        """Raise InvalidInputError unless the table, which somebody else may have made, takes such rows and vectors."""
        asked = (
            "SELECT attname, typname, atttypmod, format_type(atttypid, atttypmod) "
            "FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
            "WHERE attrelid = to_regclass({}) AND attnum > 0 AND NOT attisdropped"
        )
        rows = self._do(asked, self._sql.Literal(self._table.as_string())).fetchall()
        columns = {name: rest for name, *rest in rows}
        for name in self._about.schema.names:
            if _cut(name) not in columns:
                raise InvalidInputError(f"the table {self._name} has no column {name!r}; name another table")
        width = self._width
        kind, size, said = columns[_cut(self._about.vectors)]
        if size == -1:  # it takes any, and has those of its rows
            column = self._sql.Identifier(self._about.vectors)
            asked = "SELECT cardinality({}::real[]) FROM {} WHERE {} IS NOT NULL LIMIT 1"
            found = kind in self._types and self._do(asked, column, self._table, column).fetchone()
            size, said = (found[0], f"{said} of {found[0]}") if found else (width, said)
        if kind not in self._types or size != width:
            these = wanted.rpartition(".")[2] if self._about.scheme == PGVECTOR else f"{wanted} of {width}"
            raise InvalidInputError(
                f"the table {self._name} has vectors of {said}, these would be {these}; name another table"
            )

    def _kind(self, field: Any) -> str:
        kind, types = field.type, arrow().types
        if field.name == self._about.vectors:
            if self._about.scheme != PGVECTOR:
                return "real[]"
            place = self._place_of_pgvector()
            if self._about.bits:
                return f"bit({self._width})"  # PostgreSQL's own; what compares two is pgvector's
            name = "halfvec" if types.is_float16(kind.value_type) else "vector"
            return f"{place}.{name}({self._width})"
        for check, found in (
            (types.is_boolean, "boolean"),
            (types.is_uint64, "numeric"),
            (types.is_integer, "bigint"),
            (types.is_floating, "double precision"),
            (types.is_decimal, "numeric"),
            (types.is_date, "date"),
            (types.is_time, "time"),
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
        if holds_bytes(kind):
            raise InvalidInputError(
                f"column {field.name!r} holds {kind}, and jsonb of PostgreSQL holds no bytes; choose others with "
                "--columns"
            )
        return "jsonb"

    def _place_of_pgvector(self) -> str:
        """The schema with its types, which no search_path may name; made where the extension is not there."""
        asked = "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'"
        found = self._do(asked).fetchone()
        if not found:
            try:
                with self._connection.transaction():
                    self._do("SELECT pg_advisory_xact_lock(hashtext({}))", self._sql.Literal(MARKS))
                    self._do("CREATE EXTENSION IF NOT EXISTS vector")
            except self._psycopg.Error as error:
                raise InvalidInputError(
                    f"--to pgvector://: {_line(error)}; without pgvector, postgresql:// writes arrays of real"
                ) from error
            found = self._do(asked).fetchone()
        return str(self._sql.Identifier(found[0]).as_string())

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        try:
            self._write(part, table)
        except self._psycopg.OperationalError:
            if not self._connection.closed:
                raise
            # Servers and those between end connections that rest, as this one does while the model works on a part;
            # whether the part came nevertheless, its mark says.
            self._connection = self._connect()
            self._write(part, table)

    def _write(self, part: int, table: Any) -> None:
        literal = self._sql.Literal
        mark, rows = literal(self._about.mark(part)), table.num_rows
        names = self._sql.SQL(", ").join(map(self._sql.Identifier, self._about.schema.names))
        copy = self._sql.SQL("COPY {} ({}) FROM STDIN").format(self._table, names)
        insert = "INSERT INTO {} (mark, row_count, taken) VALUES ({}, {}, {}) ON CONFLICT DO NOTHING"
        try:
            with self._connection.transaction():
                if not self._do(insert, self._marks, mark, literal(rows), literal(self._about.taken)).rowcount:
                    kept = self._do("SELECT row_count, taken FROM {} WHERE mark = {}", self._marks, mark)
                    self._about.check_there(part, rows, self._name, *(kept.fetchone() or (None, None)))
                    return
                with self._connection.cursor() as cursor, cursor.copy(copy) as lines:
                    for line in self._lines(part, table):
                        lines.write_row(line)
        except (
            self._psycopg.DataError,
            self._psycopg.IntegrityError,
        ) as error:  # with the column, and the row as a line
            raise InvalidInputError(
                f"part {part} cannot be written into {self._name}: {_line(error)}; {ADVICE}"
            ) from error

    def _lines(self, part: int, table: Any) -> Iterator[Sequence[Any]]:
        """Rows as COPY takes them.

        Raises:
            InvalidInputError: what a column of text or jsonb cannot hold, though the inputs can.
        """
        at = 1
        for batch in table.to_batches(max_chunksize=ROWS):
            yield from zip(
                *(self._values(name, batch.column(name), part, at) for name in batch.schema.names), strict=True
            )
            at += batch.num_rows

    def _values(self, name: str, column: Any, part: int, at: int) -> list[Any]:
        """What COPY is given for a column, whose first row is the part's row `at`."""
        if arrow().types.is_temporal(column.type) and name not in self._json:
            return self._times(name, column)
        values: list[Any] = column.to_pylist()
        if name == self._about.vectors:
            return [None if value is None else self._written(value) for value in values]
        if name in self._checked:
            for k, value in enumerate(values, start=at):
                if found := _unstorable(value):
                    raise InvalidInputError(
                        f"part {part}, row {k}: column {name!r} holds {found}, which PostgreSQL does not take; {ADVICE}"
                    )
        if name in self._json:
            return [None if value is None else json.dumps(value, default=str) for value in values]
        return values

    def _written(self, vector: list[Any]) -> str:
        if self._about.bits:
            return "".join(f"{number & 0xFF ^ self._sign:08b}" for number in vector)[: self._width]
        return self._vector % tuple(vector)

    def _times(self, name: str, column: Any) -> list[Any]:
        """As strings: objects of Python end with the year 9999, and have no nanoseconds, which PostgreSQL rounds."""
        pyarrow = arrow()
        if name not in self._zoned:
            return list(column.cast(pyarrow.string()).to_pylist())
        of_utc = column.cast(pyarrow.timestamp(column.type.unit)).cast(pyarrow.string()).to_pylist()
        return [value and f"{value}+00" for value in of_utc]

    def close(self) -> None:  # noqa: D102
        self._connection.close()


def open_sink(rest: str, about: About) -> PostgresSink:
    """`pgvector://USER@HOST/DATABASE/TABLE` or `postgresql://...`; a password comes from PGPASSWORD or the URL.

    Bits become a column of PostgreSQL's own type, the first number's sign first, as pgvector's binary_quantize does it.
    """
    psycopg = required("psycopg", f"--to {about.scheme}://", "psycopg[binary]")
    importable = required("psycopg.sql", f"--to {about.scheme}://", "psycopg[binary]")
    assert importable
    address, _, query = rest.partition("?")
    database, _, table = address.rpartition("/")
    if not database or not table:
        raise InvalidInputError(f"--to {about.scheme}:// names no table; write {about.scheme}://HOST/DATABASE/TABLE")
    if has_cut_password(rest):
        raise InvalidInputError(f"--to {about.scheme}://: write a / within the password as %2F, or set PGPASSWORD")
    if arrow().types.is_integer(about.schema.field(about.vectors).type.value_type):
        if about.scheme != PGVECTOR:
            raise InvalidInputError("--to postgresql:// takes vectors of float32 or float16; pgvector:// also bits")
        if not about.bits:
            raise InvalidInputError("--to pgvector:// takes vectors of float32 or float16, and bits (binary, ubinary)")
    url = f"postgresql://{database}" + (f"?{query}" if query else "")

    def connect() -> Any:
        # Nothing prepared: behind a pooler, the next transaction may be another server's.
        return psycopg.connect(url, autocommit=True, client_encoding="utf8", prepare_threshold=None)

    try:
        return PostgresSink(psycopg, connect, table, about)
    except psycopg.Error as error:
        user = address.rpartition("@")[0]  # libpq shows the whole of a URL that it does not understand
        said = _line(error).replace(f"{user}@", "") if user else _line(error)
        raise InvalidInputError(f"--to {without_secrets(f'{about.scheme}://{rest}')}: {said}") from error


def _line(error: Exception) -> str:
    """What is wrong, without the statement in which it was found."""
    return " ".join(str(error).partition("\nLINE ")[0].split())


def _cut(name: str) -> str:
    """A name as PostgreSQL keeps it."""
    return name.encode()[:LONGEST].decode(errors="ignore")


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
