"""Rows into databases, as far as it takes none: what marks say, one thread for a store, values that are refused.

The stores themselves are in tests/sinks.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
import sqlite3
import threading
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from bulk_jobs import BAD, TEXTS, WIDTH, execute, expected, write_jsonl

from fastembed_rt.bulk import sinks
from fastembed_rt.bulk.job import Job
from fastembed_rt.bulk.sinks import About, qdrant
from fastembed_rt.bulk.sinks.duck import DuckSink
from fastembed_rt.bulk.sinks.lance import LanceSink
from fastembed_rt.bulk.sinks.postgres import PostgresSink
from fastembed_rt.bulk.sinks.qdrant import QdrantSink
from fastembed_rt.errors import FastembedRtError, InvalidInputError

VECTORS = pyarrow.list_(pyarrow.float32(), WIDTH)


def about(*columns: tuple[str, Any], **changes: Any) -> About:
    given: dict[str, Any] = {
        "scheme": "store",
        "job": "a-job",
        "rank": 0,
        "fingerprint": "a-model",
        "schema": pyarrow.schema([*columns, ("embedding", VECTORS)]),
        "vectors": "embedding",
        "id_column": None,
        "nulls": False,
        **changes,
    }
    return About(**given)


def rows(told: About, **columns: list[Any]) -> Any:
    count = len(next(iter(columns.values())))
    return pyarrow.table({**columns, "embedding": expected(TEXTS[:count]).tolist()}, schema=told.schema)


# How rows are taken, and what becomes of one that is bad and of one without a text; under `fail` a part has none.
POLICIES = list(itertools.product(("fail", "skip", "null"), ("error", "empty", "zero", "null", "skip")))


def outcome(on_error: str, on_null: str) -> tuple[str, str]:
    return on_error, on_error if on_null == "error" else on_null


@pytest.mark.parametrize(("on_error", "on_null"), POLICIES)
def test_a_part_that_is_there_is_the_same_where_no_row_of_it_is_taken_otherwise(on_error: str, on_null: str) -> None:
    now = about(on_error=on_error, on_null=on_null)
    same = set()
    for before in POLICIES:
        pairs = list(zip(outcome(*before), outcome(on_error, on_null), strict=True))
        told = about(on_error=before[0], on_null=before[1])
        assert told.mark(3) == now.mark(3)  # a run that ended at a bad row is resumed under another policy
        if all(a == b or "fail" in (a, b) for a, b in pairs):
            same.add(told.taken)
            now.check_there(3, 7, "docs", 7, told.taken)
            with pytest.raises(InvalidInputError, match=r"part 3 is in docs already, with 6 rows .* have 7 now"):
                now.check_there(3, 7, "docs", 6, told.taken)
        else:
            with pytest.raises(InvalidInputError, match=r"Drop the table and begin again with --force, or name"):
                now.check_there(3, 7, "docs", 7, told.taken)
    assert same == {about(on_error=one, on_null=other).taken for one, other in POLICIES} & set(now.agreeing)
    now.check_there(3, 7, "docs", None, None)  # a mark of before: it is believed


class Connection:
    """A database's, which keeps the statements and answers those that ask for marks."""

    def __init__(self, marks: dict[str, tuple[Any, ...]] | None = None, columns: tuple[str, ...] = ()) -> None:
        self.marks, self.columns = marks or {}, ("mark", *columns)
        self.said: list[str] = []
        self.lines: list[list[Any]] = []
        self.fault: Exception | None = None

    def execute(self, statement: Any, values: Any = ()) -> Any:
        self.said.append(str(statement))
        found, new = None, 1
        if self.said[-1].startswith("SELECT to_regclass"):
            found = (True,)
        if self.said[-1].startswith(("SELECT row_count", "INSERT INTO fastembed_rt_parts")):
            asked = [*values, *re.findall(r"'(a-job-[0-9-]+)'", self.said[-1])]
            found = self.marks.get(asked[0])
            new = found is None
        description = [(name,) for name in self.columns]
        both: list[Any] = [("id", "BIGINT"), ("embedding", f"FLOAT[{WIDTH}]")]  # of the table, and of the rows
        if "pg_attribute" in self.said[-1]:
            both = [(name, "_float4", -1, "real[]") for name in (*COLUMNS, "embedding")]
        return types.SimpleNamespace(
            fetchone=lambda: found, fetchall=lambda: both, rowcount=int(new), description=description
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Copying]:
        yield Copying(self)

    def register(self, name: str, table: Any) -> None:
        self.said.append(f"register {table.num_rows}")

    def unregister(self, name: str) -> None:
        """Nothing to do."""


COLUMNS = ("id", "title", "tags", "about", "scores")  # of PostgreSQL's table


class Sql(str):
    """Statements of psycopg.sql, as far as they are put together here."""

    def as_string(self) -> str:
        return self

    def format(self, *parts: Any) -> Sql:  # type: ignore[override]
        return Sql(str.format(self, *parts))

    def join(self, parts: Any) -> Sql:
        return Sql(str.join(self, parts))


class DataError(Exception):
    """psycopg's."""


class Copying:
    """A cursor that takes rows, or fails as the database does."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def copy(self, statement: Any) -> Iterator[Copying]:
        self._connection.said.append(str(statement))
        yield self

    def write_row(self, line: list[Any]) -> None:
        if self._connection.fault is not None:
            raise self._connection.fault
        self._connection.lines.append(line)


def postgres(connection: Connection, told: About) -> PostgresSink:
    sql = types.SimpleNamespace(SQL=Sql, Identifier=lambda *names: Sql(".".join(names)), Literal=lambda v: Sql(repr(v)))
    errors = {"DataError": DataError, "IntegrityError": DataError, "OperationalError": ConnectionError}
    return PostgresSink(types.SimpleNamespace(sql=sql, **errors), lambda: connection, "docs", told)


OLD: Any = ((), {"a-job-0-1": (None, None), "a-job-0-2": (None, None)})
NEW: Any = (("row_count", "taken"), {"a-job-0-1": (2, "fail,skip"), "a-job-0-2": (2, "fail,zero")})


@pytest.mark.parametrize("kind", ["duckdb", "postgresql"])
@pytest.mark.parametrize(("columns", "marks"), [OLD, NEW], ids=["old", "new"])
def test_marks_that_say_too_little_are_believed_and_others_are_held_to_the_part(
    kind: str, columns: tuple[str, ...], marks: dict[str, Any]
) -> None:
    told = about(("id", pyarrow.int64()), scheme=kind, on_null="zero")
    connection = Connection(marks, columns)
    made: Any = DuckSink(connection, "docs", told) if kind == "duckdb" else postgres(connection, told)
    added = [said for said in connection.said if said.startswith("ALTER TABLE")]
    assert len(added) == (0 if columns and kind == "postgresql" else 2)  # which waits for other ranks there
    gone = next(said for said in connection.said if said.startswith("DELETE"))
    assert gone.endswith(("FROM docs)", 'FROM "docs")'))
    connection.said.clear()
    made.write(2, rows(told, id=[1, 2]))
    if columns:
        with pytest.raises(InvalidInputError, match=r"part 1 is in docs already, with 2 rows"):
            made.write(1, rows(told, id=[1, 2]))
    else:
        made.write(1, rows(told, id=[1, 2]))
    assert not any("COPY" in said or "BY NAME" in said for said in connection.said)
    made.write(3, rows(told, id=[1, 2]))
    assert any("COPY" in said or "BY NAME" in said for said in connection.said)


class LanceTable:
    """A table's marks, and the expressions that ask for them, which are SQLite's as well as LanceDB's."""

    def __init__(self, marks: list[str]) -> None:
        self._rows = sqlite3.connect(":memory:")
        self._rows.execute("CREATE TABLE rows (fastembed_rt_part TEXT)")
        self._rows.executemany("INSERT INTO rows VALUES (?)", [[mark] for mark in marks])
        self.commits = 0

    @property
    def marks(self) -> list[str]:
        return [mark for (mark,) in self._rows.execute("SELECT * FROM rows ORDER BY 1")]

    def count_rows(self, condition: str) -> int:
        return int(self._rows.execute(f"SELECT count(*) FROM rows WHERE {condition}").fetchone()[0])

    def delete(self, condition: str) -> None:
        self._rows.execute(f"DELETE FROM rows WHERE {condition}")
        self.commits += 1

    def add(self, table: Any) -> None:
        marks = table.column("fastembed_rt_part").to_pylist()
        self._rows.executemany("INSERT INTO rows VALUES (?)", [[mark] for mark in marks])
        self.commits += 1


@pytest.mark.parametrize(
    ("there", "commits"),
    [
        ([], 1),
        (["a-job-0-1 fail,zero"] * 2, 0),
        (["a-job-0-1 fail,fail"] * 2, 0),
        (["a-job-0-1 fail,skip"] * 2, 2),
        (["a-job-0-1 fail,skip"], 2),
        (["a-job-0-1"] * 2, 2),  # of an earlier version, which did not say how
    ],
)
def test_a_part_of_lancedb_whose_rows_were_taken_otherwise_is_replaced(there: list[str], commits: int) -> None:
    told = about(("id", pyarrow.int64()), on_null="zero")
    others = ["a-job-0-10 fail,skip", "a-job-0-11", "a-job-1-1 fail,skip", "another-0-1 fail,skip"]
    table = LanceTable([*others, *there])
    for _ in range(2):
        LanceSink(table, told).write(1, rows(told, id=[1, 2]))
    kept = there if not commits else ["a-job-0-1 fail,zero"] * 2
    assert table.marks == sorted([*others, *kept])
    assert table.commits == commits
    LanceSink(table, told).write(1, rows(told, id=[1]).slice(0, 0))  # all of its rows are left out now
    assert table.marks == sorted(others)


class Points:
    """Qdrant's client and its models."""

    def __init__(self) -> None:
        self.ids: list[Any] = []

    def upsert(self, collection: str, *, points: Any, wait: bool) -> None:
        self.ids += points["ids"]

    Batch = dict


@pytest.mark.parametrize("missing", [None, float("nan"), ""], ids=repr)
def test_a_row_without_an_id_is_no_point_of_qdrant(missing: Any) -> None:
    kind = {float: pyarrow.float64(), str: pyarrow.string()}.get(type(missing), pyarrow.int64())
    told = about(("key", kind), id_column="key")
    points = Points()
    sink = QdrantSink(points, points, "docs", told)
    good = [{"int64": 7, "double": 7.0, "string": "seven"}[str(kind)]] * 2
    sink.write(0, rows(told, key=good))
    there = list(points.ids)
    with pytest.raises(InvalidInputError, match=r"part 1, row 2: its id in column 'key' is .* leave --id-column out"):
        sink.write(1, rows(told, key=[*good[:1], missing]))
    assert points.ids == there  # nor are those in front of it
    without = QdrantSink(points, points, "docs", about(("key", kind)))
    without.write(1, rows(told, key=[*good[:1], missing]))
    assert len(set(points.ids[len(there) :])) == 2


@pytest.mark.parametrize(
    ("column", "kind", "value", "said"),
    [
        ("title", pyarrow.string(), "a\0b", "holds a NUL character"),
        ("tags", pyarrow.list_(pyarrow.string()), ["a", "\0"], "holds a NUL character"),
        ("about", pyarrow.struct([("by", pyarrow.string())]), {"by": "\0"}, "holds a NUL character"),
        ("scores", pyarrow.list_(pyarrow.float64()), [1.0, float("nan")], "holds the number nan"),
    ],
)
def test_what_postgresql_does_not_take_is_named_with_its_row(column: str, kind: Any, value: Any, said: str) -> None:
    told = about((column, kind), scheme="postgresql")
    connection = Connection()
    sink = postgres(connection, told)
    with pytest.raises(InvalidInputError, match=rf"part 4, row 2: column '{column}' {said}, .* with --columns"):
        sink.write(4, rows(told, **{column: [None, value]}))
    assert not connection.lines
    escaped = {"title": "\\u0000", "tags": ["\\u0000"], "about": {"by": "\\u0000"}, "scores": [0.5]}[column]
    sink.write(4, rows(told, **{column: [None, escaped]}))
    assert len(connection.lines) == 2
    connection.fault = DataError("integer out of range\nCONTEXT:  COPY docs, line 1, column id")
    with pytest.raises(InvalidInputError, match=r"part 5 cannot be written into docs: integer out of range CONTEXT: "):
        sink.write(5, rows(told, **{column: [None]}))


def test_a_part_for_postgresql_is_made_objects_of_python_a_few_rows_at_a_time() -> None:
    told = about(scheme="postgresql", schema=pyarrow.schema([("embedding", LONG)]))
    connection = Connection()
    connection.lines = collections.deque(maxlen=1)  # type: ignore[assignment]
    sink = postgres(connection, told)
    numbers = pyarrow.array(np.ones(LONG.list_size * 16_384, np.float32))
    part = pyarrow.table([pyarrow.FixedSizeListArray.from_arrays(numbers, LONG.list_size)], schema=told.schema)
    tracemalloc.start()
    try:
        sink.write(0, part)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert connection.lines
    assert most < 2**20


LONG = pyarrow.list_(pyarrow.float32(), 16)


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


def test_what_a_stores_client_raises_is_said_in_a_sentence(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)

    class Full(SqliteSink):
        def write(self, part: int, table: Any) -> None:
            if part == 2:
                raise sqlite3.OperationalError("database or disk is full\nCONTEXT: a page")
            super().write(part, table)

    def absent(job: Job, schema: Any) -> Any:
        raise ConnectionRefusedError("nobody is there")

    with pytest.raises(FastembedRtError, match=r"^--to cannot be opened \(ConnectionRefusedError: nobody is there\)$"):
        execute([source], tmp_path / "job", sink=absent)
    said = r"^part 2 did not come into the database \(OperationalError: .* full CONTEXT: a page\); --resume goes on"
    with pytest.raises(FastembedRtError, match=said):
        execute([source], tmp_path / "job", sink=lambda job, schema: Full(tmp_path / "docs.sqlite"))
    execute([source], tmp_path / "job", sink=lambda job, schema: SqliteSink(tmp_path / "docs.sqlite"))
    with contextlib.closing(sqlite3.connect(tmp_path / "docs.sqlite")) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM docs").fetchone() == (len(TEXTS),) * 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("pgvector://host/db/docs", "pgvector://host/db/docs"),
        ("pgvector://me:secret@host:5432/db/docs?sslmode=require", "pgvector://host:5432/db/docs"),
        ("pgvector://me:se?cr#et@host/db/docs", "pgvector://host/db/docs"),
        ("pgvector://me:sec@ret@host/db/docs", "pgvector://host/db/docs"),
        ("pgvector://me:sec/ret@host/db/docs", "pgvector://host/db/docs"),
        ("pgvector://me:secret@[::1/db/docs", "pgvector://[::1/db/docs"),
        ("pgvector://host:5432/db/docs@2", "pgvector://host:5432/db/docs@2"),
        ("pgvector:///db/docs?host=/tmp&password=secret", "pgvector:///db/docs"),
        ("duckdb:///data/a@1/in.duckdb/docs", "duckdb:///data/a@1/in.duckdb/docs"),
        ("duckdb://in#1.duckdb/docs", "duckdb://in#1.duckdb/docs"),
        ("mysql://me:secret@host/db/docs", "mysql://host/db/docs"),
    ],
)
def test_no_message_and_no_file_has_a_password(url: str, shown: str, tmp_path: Path) -> None:
    assert sinks.without_secrets(url) == shown
    if not url.startswith(("pgvector", "duckdb")):
        with pytest.raises(InvalidInputError, match=r"^--to mysql://host/db/docs is of no known store; known: "):
            sinks.open_sink(url, lambda scheme: about(scheme=scheme))


def test_postgres_is_what_libpq_takes_for_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastembed_rt.bulk.sinks import postgres

    monkeypatch.setattr(postgres, "open_sink", lambda rest, told: (rest, told.scheme))
    made: Any = sinks.open_sink("postgres://me@host/db/docs", lambda scheme: about(scheme=scheme))
    assert made == ("me@host/db/docs", "postgresql")


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.binary(),
        pyarrow.list_(pyarrow.large_binary()),
        pyarrow.struct([("a", pyarrow.map_(pyarrow.string(), pyarrow.binary(4)))]),
    ],
    ids=str,
)
def test_bytes_are_no_payload_of_qdrant_wherever_they_are(kind: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"column 'raw' holds .*, and payloads of Qdrant hold no bytes"):
        qdrant._check_payloads(about(("raw", kind)))
    qdrant._check_payloads(about(("raw", pyarrow.list_(pyarrow.string()))))
