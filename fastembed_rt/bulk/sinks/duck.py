"""Rows into a table of DuckDB; a part and the mark that it is there are one transaction."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidInputError
from ..extras import required
from . import About, database_and_table

MARKS = "fastembed_rt_parts"


class DuckSink:
    """One table of one database file, which no other process has open meanwhile."""

    def __init__(self, connection: Any, table: str, about: About) -> None:
        self._connection, self._about = connection, about
        self._table = '"' + table.replace('"', '""') + '"'
        connection.execute(f"CREATE TABLE IF NOT EXISTS {MARKS} (mark VARCHAR PRIMARY KEY)")
        connection.register("fastembed_rt_rows", about.schema.empty_table())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} AS SELECT * FROM fastembed_rt_rows")
        connection.unregister("fastembed_rt_rows")

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        mark = self._about.mark(part)
        if self._connection.execute(f"SELECT 1 FROM {MARKS} WHERE mark = ?", [mark]).fetchone():
            return
        self._connection.register("fastembed_rt_rows", table)
        self._connection.execute("BEGIN")
        try:
            self._connection.execute(f"INSERT INTO {self._table} BY NAME SELECT * FROM fastembed_rt_rows")
            self._connection.execute(f"INSERT INTO {MARKS} VALUES (?)", [mark])
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
        return DuckSink(duckdb.connect(file), table, about)
    except duckdb.Error as error:
        raise InvalidInputError(f"--to duckdb://{rest}: {error}") from error
