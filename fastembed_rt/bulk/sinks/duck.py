"""Rows into a table of DuckDB; a part and the mark that it is there are one transaction."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidInputError
from ..extras import required
from . import About, database_and_table

MARKS = "fastembed_rt_parts"
LATER = {"row_count": "BIGINT", "taken": "VARCHAR"}  # columns of the marks that earlier versions did not write


class DuckSink:
    """One table of one database file, which no other process has open meanwhile."""

    def __init__(self, connection: Any, table: str, about: About) -> None:
        self._connection, self._about, self._name = connection, about, table
        self._table = '"' + table.replace('"', '""') + '"'
        connection.execute(f"CREATE TABLE IF NOT EXISTS {MARKS} (mark VARCHAR PRIMARY KEY)")
        for name, kind in LATER.items():
            connection.execute(f"ALTER TABLE {MARKS} ADD COLUMN IF NOT EXISTS {name} {kind}")
        connection.register("fastembed_rt_rows", about.schema.empty_table())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} AS SELECT * FROM fastembed_rt_rows")
        wanted, there = self._columns("fastembed_rt_rows"), self._columns(self._table)
        connection.unregister("fastembed_rt_rows")
        if missing := sorted(set(wanted) - set(there)):
            raise InvalidInputError(f"the table {table} has no column {missing[0]!r}; name another table")
        vectors = about.vectors.lower()
        if wanted[vectors] != there[vectors]:
            raise InvalidInputError(
                f"the table {table} has vectors of {there[vectors]}, these would be {wanted[vectors]}; "
                "name another table"
            )
        # Marks outlive a table that was dropped or emptied: what they stand for has to be written again.
        connection.execute(
            f"DELETE FROM {MARKS} WHERE starts_with(mark, ?) AND NOT EXISTS (SELECT 1 FROM {self._table})",
            [about.marks],
        )

    def _columns(self, table: str) -> dict[str, str]:
        """Types by name, in whose letters DuckDB makes no difference."""
        found = self._connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
        return {name.lower(): kind for name, kind, *_ in found}

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        mark = self._about.mark(part)
        found = self._connection.execute(f"SELECT row_count, taken FROM {MARKS} WHERE mark = ?", [mark]).fetchone()
        if found:
            self._about.check_there(part, table.num_rows, self._name, *found)
            return
        self._connection.register("fastembed_rt_rows", table)
        self._connection.execute("BEGIN")
        try:
            self._connection.execute(f"INSERT INTO {self._table} BY NAME SELECT * FROM fastembed_rt_rows")
            self._connection.execute(
                f"INSERT INTO {MARKS} (mark, row_count, taken) VALUES (?, ?, ?)",
                [mark, table.num_rows, self._about.taken],
            )
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        finally:
            self._connection.unregister("fastembed_rt_rows")

    def close(self) -> None:  # noqa: D102
        self._connection.close()


def open_sink(rest: str, about: About) -> DuckSink:
    """`duckdb://FILE/TABLE`."""
    duckdb = required("duckdb", "--to duckdb://", "duckdb")
    file, table = database_and_table(rest, about.scheme)
    try:
        connection = duckdb.connect(file)
        (path,) = connection.execute(
            "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchone()
        if path is None:  # as it opens a file of Parquet, csv or JSON: its rows as tables, and what is new in memory
            connection.close()
            raise InvalidInputError(f"--to duckdb://{rest}: {file} is no database of DuckDB, to keep rows")
        return DuckSink(connection, table, about)
    except duckdb.Error as error:
        raise InvalidInputError(f"--to duckdb://{rest}: {error}") from error
