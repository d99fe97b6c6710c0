"""Rows into databases, as far as it takes none: one thread for a store.

The stores themselves are in tests/sinks.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from bulk_jobs import BAD, TEXTS, execute, write_jsonl

from fastembed_rt.bulk.job import Job
from fastembed_rt.errors import InvalidInputError


class SqliteSink:
    """A store of somebody else's, with a handle that its own thread alone may use."""

    def __init__(self, path: Path) -> None:
        self.thread = threading.get_ident()
        self.parts: list[int] = []
        self._connection = sqlite3.connect(path)
        self._connection.execute("CREATE TABLE IF NOT EXISTS docs (part INTEGER, id INTEGER)")

    def write(self, part: int, table: Any) -> None:
        self.parts.append(part)
        with self._connection:
            self._connection.execute("DELETE FROM docs WHERE part = ?", [part])
            ids = table.column("id").to_pylist()
            self._connection.executemany("INSERT INTO docs VALUES (?, ?)", [(part, number) for number in ids])

    def close(self) -> None:
        self._connection.close()


def test_a_store_is_opened_filled_and_closed_in_one_thread(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [BAD, *TEXTS])
    opened: list[SqliteSink] = []

    def sink(job: Job, schema: Any) -> SqliteSink:
        opened.append(SqliteSink(tmp_path / "docs.sqlite"))
        return opened[-1]

    def ids() -> list[int]:
        with contextlib.closing(sqlite3.connect(tmp_path / "docs.sqlite")) as connection:
            return [number for (number,) in connection.execute("SELECT id FROM docs ORDER BY id")]

    execute([source], tmp_path / "job", sink=sink, on_error="skip", rank=0, world=2)
    before = ids()
    assert before == [*range(1, len(before) + 1)]
    # One writer brings what is missing, and the next one what was found damaged meanwhile.
    work = tmp_path / "job" / "_embed" / "00000-of-00002"
    (work / "done.json").unlink()
    (work / "part-000002.json").unlink()
    (work / "rejects-000000.jsonl").write_bytes(b"")
    execute([source], tmp_path / "job", sink=sink, on_error="skip", rank=0, world=2)
    assert [made.parts for made in opened] == [[0, 1, 2, 3], [2, 0]]
    assert ids() == before
    assert threading.get_ident() not in {made.thread for made in opened}


def test_a_store_that_does_not_open_or_take_a_part_ends_the_run_with_its_error(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)

    class Failing(SqliteSink):
        def write(self, part: int, table: Any) -> None:
            if part == 3:
                raise InvalidInputError("no room")
            super().write(part, table)

    def closed(job: Job, schema: Any) -> Any:
        raise InvalidInputError("no such store")

    with pytest.raises(InvalidInputError, match="no such store"):
        execute([source], tmp_path / "job", sink=closed)
    with pytest.raises(InvalidInputError, match="no room"):
        execute([source], tmp_path / "job", sink=lambda job, schema: Failing(tmp_path / "docs.sqlite"))
    execute([source], tmp_path / "job", sink=lambda job, schema: SqliteSink(tmp_path / "docs.sqlite"))
    with contextlib.closing(sqlite3.connect(tmp_path / "docs.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM docs").fetchone() == (len(TEXTS),)
    for thread in threading.enumerate():
        if thread.name.startswith("fastembed_rt_sink"):
            thread.join(5)
            assert not thread.is_alive()
