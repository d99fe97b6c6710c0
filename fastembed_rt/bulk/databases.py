"""The files of a database: SQLite and DuckDB keep what was committed last in a log beside the file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

DATABASES = ("sqlite", "duckdb")
LOGS = {"sqlite": "-wal", "duckdb": ".wal"}  # behind the file's name


def log_of(name: str, kind: str) -> Path | None:
    """The log of a database of this kind, None where there is none or nothing is in it: who only reads makes such."""
    if kind not in LOGS:
        return None
    path = Path(name + LOGS[kind])
    with contextlib.suppress(FileNotFoundError):
        return path if path.stat().st_size else None
    return None


@contextlib.contextmanager
def opened(name: str) -> Iterator[sqlite3.Connection]:
    """A file of SQLite, to be read."""
    uri = f"{Path(name).resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        yield connection


def size(name: str, kind: str) -> int:
    """Bytes of a database; of SQLite's those that the file will have when its log is written back into it."""
    if kind == "sqlite" and log_of(name, kind) is not None:
        with contextlib.suppress(sqlite3.Error), opened(name) as connection:  # a file that is none says so when asked
            (pages,), (each,) = (connection.execute(f"PRAGMA page_{of}").fetchone() for of in ("count", "size"))
            return int(pages * each)
    return Path(name).stat().st_size
