"""Vectors that are kept between runs, by fingerprint and text, in one SQLite file a fingerprint.

SQLite's own transactions make it safe to be killed and to be shared by processes of one machine. A vector that does not
match its checksum counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .encoder import key_of

ASKED = 500  # keys a query; SQLite takes 999 at least
WAIT = 60.0  # seconds for another process's transaction
NAME = "vectors-{}.sqlite"


class Cache:
    """Vectors (width,) of one fingerprint. For the thread that opened it."""

    def __init__(self, folder: Path, fingerprint: str, width: int, dtype: Any) -> None:
        """Open it, or make it.

        Raises:
            InvalidInputError: the folder cannot be made, or its file is no database.
        """
        self._width, self._dtype = width, np.dtype(dtype)
        short = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        self._path = path = folder / NAME.format(short)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS about (fingerprint TEXT)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
            )
            self._database.execute("INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT 1 FROM about)", (fingerprint,))
            (found,) = self._database.execute("SELECT fingerprint FROM about").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        if found != fingerprint:
            raise InvalidInputError(f"--cache: {path} holds vectors of {found}, these would be {fingerprint}")

    def get(self, texts: list[str]) -> dict[str, Any]:
        """Vectors of those texts that are there.

        Raises:
            InvalidInputError: the database is damaged.
        """
        by_key = {key_of(text): text for text in texts}
        keys = list(by_key)
        found = {}
        for at in range(0, len(keys), ASKED):
            asked = keys[at : at + ASKED]
            marks = ",".join("?" * len(asked))
            select = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
            try:
                rows = self._database.execute(select, asked).fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from error
            for key, content in rows:
                vector = self._read(content)
                if vector is not None:
                    found[by_key[key]] = vector
        return found

    def put(self, texts: list[str], vectors: Sequence[Any]) -> None:
        """Keep vectors; a full disk is no reason to stop the run that has them."""
        rows = ((key_of(text), self._written(vector)) for text, vector in zip(texts, vectors, strict=True))
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Let the file go."""
        self._database.close()

    def _unusable(self, error: Exception) -> InvalidInputError:
        return InvalidInputError(
            f"--cache {self._path.parent}: {error}; name another directory, or remove {self._path.name}"
        )

    def _written(self, vector: Any) -> bytes:
        content = np.asarray(vector).astype(self._dtype.newbyteorder("<"), copy=False).tobytes()
        return content + zlib.crc32(content).to_bytes(4, "little")

    def _read(self, content: Any) -> Any:
        if not isinstance(content, bytes):  # so a damaged page may have it
            return None
        body, checksum = content[:-4], content[-4:]
        if len(body) != self._width * self._dtype.itemsize or zlib.crc32(body).to_bytes(4, "little") != checksum:
            return None
        return np.frombuffer(body, self._dtype.newbyteorder("<")).astype(self._dtype)
