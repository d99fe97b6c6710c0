"""Jobs over databases that keep their last rows in a log: what is committed there is of the input, wherever it lies."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bulk_jobs import Counting, encoder, execute, table

from fastembed_rt.bulk import inputs
from fastembed_rt.bulk.readers import Dialect
from fastembed_rt.errors import InvalidInputError

ROWS = [(k, f"text {k}") for k in range(1, 13)]
BY_ID = Dialect(sql="SELECT id, text FROM notes ORDER BY id")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


@pytest.fixture
def writer(notes: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose process goes on, with rows that are in the log alone."""
    with contextlib.closing(sqlite3.connect(notes)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE notes (id INTEGER, text TEXT)")
        connection.executemany("INSERT INTO notes VALUES (?, ?)", ROWS)
        connection.commit()
        yield connection


class Interrupted(Counting):
    """An encoder that does something, or is stopped, when it comes to a text."""

    def __init__(self, at: str, then: Callable[[], object]) -> None:
        super().__init__()
        self.at, self.then = at, then

    def __call__(self, texts: list[str], out: Any = None) -> tuple[Any, Sequence[int]]:
        if self.at in texts:
            self.then()
        return super().__call__(texts, out)


def stop() -> None:
    raise KeyboardInterrupt


def stopped_at_the_third_part(notes: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute([notes], out, model=encoder(Interrupted("text 9", stop)), dialect=BY_ID)
    assert len(list(out.glob("part-*"))) == 2


def ids(out: Path) -> list[int]:
    found: list[int] = table(out).column("id").to_pylist()
    return found


def test_a_row_that_was_committed_into_the_log_since_is_a_changed_input(
    notes: Path, writer: sqlite3.Connection, tmp_path: Path
) -> None:
    stopped_at_the_third_part(notes, tmp_path / "out")
    writer.execute("INSERT INTO notes VALUES (0, 'early')")
    writer.commit()
    with pytest.raises(InvalidInputError, match=r"input .*notes\.db changed since \(rows_sha256\)"):
        execute([notes], tmp_path / "out", dialect=BY_ID)
    execute([notes], tmp_path / "out", dialect=BY_ID, force=True, resume=False)
    assert ids(tmp_path / "out") == list(range(13))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_a_log_that_was_only_written_back_is_no_change(
    notes: Path,
    writer: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed: bool,
    large: bool,
) -> None:
    if large:
        monkeypatch.setattr(inputs, "HASHED_WHOLE", 10)
    stopped_at_the_third_part(notes, tmp_path / "out")
    before = notes.stat().st_size
    if closed:
        writer.close()
    else:
        writer.execute("PRAGMA wal_checkpoint(FULL)")
    assert notes.stat().st_size > before
    execute([notes], tmp_path / "out", dialect=BY_ID)
    assert ids(tmp_path / "out") == list(range(1, 13))


@pytest.mark.parametrize("large", [False, True])
def test_a_log_may_be_written_back_while_rows_are_read_and_none_may_be_added(
    notes: Path, writer: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(inputs, "HASHED_WHOLE", 10)

    def write_back() -> None:
        with contextlib.closing(sqlite3.connect(notes)) as other:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")

    execute([notes], tmp_path / "out", model=encoder(Interrupted("text 9", write_back)), dialect=BY_ID)
    assert ids(tmp_path / "out") == list(range(1, 13))

    def add() -> None:
        with contextlib.closing(sqlite3.connect(notes)) as other, other:
            other.execute("INSERT INTO notes VALUES (0, 'early')")

    with pytest.raises(InvalidInputError, match=r"notes\.db changed while it was read"):
        execute([notes], tmp_path / "second", model=encoder(Interrupted("text 9", add)), dialect=BY_ID)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE notes SET text = 'text 7.0' WHERE id = 7",
        "UPDATE notes SET text = 7 WHERE id = 7",
        "UPDATE notes SET text = NULL WHERE id = 7",
        "DELETE FROM notes WHERE id = 12",
        "INSERT INTO notes VALUES (0, 'early')",
    ],
)
def test_a_large_database_is_known_by_the_rows_of_its_query(
    notes: Path, writer: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(inputs, "HASHED_WHOLE", 10)
    stopped_at_the_third_part(notes, tmp_path / "out")
    writer.execute(change)
    writer.commit()
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # no log tells of it
    with pytest.raises(InvalidInputError, match=r"changed since \(rows_sha256\)"):
        execute([notes], tmp_path / "out", dialect=BY_ID)


def test_what_the_query_does_not_read_may_change(notes: Path, writer: sqlite3.Connection, tmp_path: Path) -> None:
    stopped_at_the_third_part(notes, tmp_path / "out")
    writer.execute("CREATE TABLE others (id INTEGER)")
    writer.execute("INSERT INTO others VALUES (1)")
    writer.commit()
    writer.execute("VACUUM")
    execute([notes], tmp_path / "out", dialect=BY_ID)
    assert ids(tmp_path / "out") == list(range(1, 13))


def test_a_query_that_gives_other_rows_each_time_is_not_resumed(
    notes: Path, writer: sqlite3.Connection, tmp_path: Path
) -> None:
    dialect = Dialect(sql="SELECT id, text FROM notes ORDER BY random()")
    with pytest.raises(KeyboardInterrupt):
        execute([notes], tmp_path / "out", model=encoder(Interrupted("text 9", stop)), dialect=dialect)
    with pytest.raises(InvalidInputError, match="rows_sha256"):
        execute([notes], tmp_path / "out", dialect=dialect)


def test_ranks_share_a_database_by_its_size(notes: Path, writer: sqlite3.Connection) -> None:
    sources = inputs.find([str(notes)])
    (alone,) = inputs.identities(sources, lambda source: "rows", shared=False)
    (shared,) = inputs.identities(sources, lambda source: "rows", shared=True)
    assert alone == {"name": str(notes), "rows_sha256": "rows"}
    assert shared == {**alone, "size": sources[0].size}


def test_duckdbs_log_tells_that_it_was_written_to(tmp_path: Path) -> None:
    """As its files lie there when the process that wrote them was killed; tests/sinks has rows of it."""
    path, log = tmp_path / "notes.duckdb", tmp_path / "notes.duckdb.wal"
    path.write_bytes(b"rows")
    log.write_bytes(b"")  # nothing is in it
    sources = inputs.find([str(path)])
    stamps = inputs.stamps(sources)
    log.unlink()
    assert inputs.stamps(sources) == stamps
    for content in (b"more rows", b"other rows"):
        log.write_bytes(content)
        assert inputs.stamps(sources) != stamps
        stamps = inputs.stamps(sources)
