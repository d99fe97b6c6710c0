"""An index built or brought up to date: what changed is encoded, what did not keeps its vectors, what is gone goes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, ModelFormatError
from ..models.embedding import EmbeddingModel
from ..models.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, of_role
from ..system.locks import BUSY, locked
from . import files, store
from .chunks import REFUSED, Chunker
from .codes import NotFiniteError, coded
from .store import Contents, Settings

CHUNK_TOKENS = 256  # where the model takes as many: longer chunks are found worse and show less of where
TOGETHER = 2048  # chunks that are encoded in one call
NO_TEXT = "no text in it"
COMMIT = 60.0  # seconds of work after which what there is is written: who is interrupted goes on from there
SIMILARITIES = ("cosine", "dot")
Rows = Any  # pyarrow.Table of one file's chunks


@dataclass
class Built:
    """What a build did: files by name."""

    path: Path
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: int = 0
    skipped: dict[str, str] = field(default_factory=dict)  # why: files that have no chunk
    chunks: int = 0  # of the whole index
    encoded: int = 0  # of those in this build


def build(
    folder: str | PathLike[str],
    model: EmbeddingModel,
    *,
    opened_from: str,
    chunk_tokens: int | None = None,
    rebuild: bool = False,
    step: Callable[[], object] = lambda: None,
) -> Built:
    """Make the index of a folder, or bring it up to date.

    Args:
        folder: whose files are read; see `files.KINDS`.
        model: encodes the chunks, as documents.
        opened_from: the directory or name that `search` opens it from again.
        chunk_tokens: most tokens of a chunk, special tokens and prompt included; None takes what the index has, else
            256 or what the model takes.
        rebuild: as if there were no index yet; the one that is there is replaced at the end.
        step: called for each file that was encoded.

    Raises:
        InvalidInputError: no folder, a model that is not the index's, a build that is going on, a limit without room.
        ModelFormatError: an index that cannot be read.
        MissingDependencyError: no pyarrow.
    """
    store.pyarrow()
    folder = Path(folder)
    found = files.find(folder)
    path = store.place(folder)
    path.parent.mkdir(exist_ok=True)
    with locked(path.with_name(store.LOCK), wait=False) as state:
        if state == BUSY:
            raise InvalidInputError(f"another process is building the index of {folder}; wait for it")
        aside = path.with_name(store.REBUILDING) if rebuild and path.is_file() else None
        old = _contents(path) if aside is None and path.is_file() else None
        settings = settings_of(model, opened_from, chunk_tokens, None if old is None else old.settings)
        if old is not None:
            check_same(path, old.settings, settings)
        if aside is not None:
            old = _begun(aside, settings)
        return _Build(model, settings, old, path, aside, step)(found)


def _begun(aside: Path, settings: Settings) -> Contents | None:
    """What an earlier build that began anew, and was stopped, has for an index of these settings."""
    with contextlib.suppress(InvalidInputError, ModelFormatError):
        found = _contents(aside)
        if replace(found.settings, model=settings.model) == settings:
            return found
    return None


def _contents(path: Path) -> Contents:
    stored = store.Stored(path)
    try:
        return stored.contents()
    finally:
        stored.close()


def refusal(error: InvalidInputError) -> str:
    """Why a file's text is not encoded, without the text's number, which is a chunk's."""
    return re.sub(r"^text \d+ ", "", str(error))


def settings_of(
    model: EmbeddingModel, opened_from: str, chunk_tokens: int | None = None, old: Settings | None = None
) -> Settings:
    """What an index by this model is.

    Raises:
        InvalidInputError: a model that compares vectors otherwise; more tokens than it takes.
    """
    similarity = model.manifest.similarity
    if similarity not in SIMILARITIES:
        raise InvalidInputError(
            f"an index is searched by {' or '.join(SIMILARITIES)}, and this model's similarity is {similarity}"
        )
    most = model.for_role("document").max_length
    if chunk_tokens is None:
        # An index of longer chunks is another model's, which `check_same` says.
        chunk_tokens = min(CHUNK_TOKENS if old is None else old.chunk_tokens, most)
    if chunk_tokens > most:
        raise InvalidInputError(
            f"chunks of {chunk_tokens} tokens (--chunk-tokens) are longer than what the model takes, {most}; ask for "
            "fewer, or leave it out"
        )
    return Settings(
        model=opened_from,
        checkpoint=model.manifest.source.checkpoint,
        precision=model.precision,
        documents=_fingerprint(model, "document"),
        questions=_fingerprint(model, "query"),
        chunk_tokens=chunk_tokens,
        dim=model.dim,
        similarity=similarity,
    )


def normalize_of(settings: Settings) -> bool | None:
    """How vectors of an index are encoded: of unit length where their cosine is looked for."""
    return True if settings.similarity == "cosine" else None


def _fingerprint(model: EmbeddingModel, role: str) -> str:
    names = {"document": DOCUMENT_PROMPTS, "query": QUERY_PROMPTS}[role]
    normalize = True if model.manifest.similarity == "cosine" else None
    return model.for_role(role).fingerprint(**of_role(names, model.prompts, {}), normalize=normalize)


def check_same(path: Path, old: Settings, new: Settings) -> None:
    """Raise InvalidInputError, with both names, unless vectors by the one belong beside those of the other."""
    for name in ("documents", "questions"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise InvalidInputError(
                f"{path} has vectors of {old.checkpoint} ({before}), this model is {new.checkpoint} ({now}); "
                "take the model of the index, or build it again with --rebuild"
            )
    if old.chunk_tokens != new.chunk_tokens:
        raise InvalidInputError(
            f"{path} has chunks of {old.chunk_tokens} tokens, not {new.chunk_tokens}; build it again with --rebuild"
        )


class _Build:
    """One build: the files of the folder against those of the index that is there."""

    def __init__(
        self,
        model: EmbeddingModel,
        settings: Settings,
        old: Contents | None,
        path: Path,
        aside: Path | None,
        step: Callable[[], object],
    ) -> None:
        self._model, self._settings, self._step = model, settings, step
        self._path, self._aside = path, aside  # where the index is, and where one that replaces it at the end grows
        self._old = old
        self._before: dict[str, str] = dict(old.files) if old is not None else {}
        self._textless: set[str] = set()  # files that had no chunk before
        self._hashes: dict[str, str] = {}  # what is in the index, as far as it is
        self._tables: dict[str, Rows] = {}
        self._done = Built(path)
        self._written = False
        prepared = model.prepare(role="document")
        self._chunker = Chunker(prepared.tokenizer, prepared.prompt, settings.chunk_tokens)

    def __call__(self, found: files.Found) -> Built:
        rows = dict(_by_file(self._old))
        self._hashes, self._tables = dict(self._before), dict(rows)
        self._textless = {name for name, table in rows.items() if len(table) == 0}
        same = {(sha256, Path(name).suffix.lower()): name for name, sha256 in self._before.items()}
        waiting: list[tuple[str, str, Any]] = []
        self._done.skipped.update({f"{name}/": why for name, why in found.unreadable.items()})
        for name in self._before.keys() - found.files.keys():
            if not found.may_have(name):
                self._drop(name)
        self._done.removed.sort()
        last, count = time.monotonic(), 0
        for name, path in found.files.items():
            try:
                content = path.read_bytes()
            except FileNotFoundError as error:  # meanwhile
                self._skip(name, files.reason(error))
                continue
            except OSError as error:  # what it has in the index stays, as all of a directory that cannot be read
                self._done.skipped[name] = files.reason(error)
                continue
            sha256 = files.digest(content)
            if self._before.get(name) == sha256:
                if name in self._textless:
                    self._done.skipped[name] = NO_TEXT
                else:
                    self._done.kept += 1
                continue
            moved = same.get((sha256, path.suffix.lower()))
            if moved is not None:
                self._tables[name] = _renamed(rows[moved], name)
                self._put(name, sha256)
                continue
            chunks = self._chunks(name, path, content)
            if chunks is None:
                continue
            waiting.append((name, sha256, chunks))
            count += len(chunks)
            if count >= TOGETHER:
                self._encode(waiting)
                waiting, count = [], 0
                if time.monotonic() - last > COMMIT:
                    self._write(self._aside or self._path, complete=False)
                    last = time.monotonic()
        self._encode(waiting)
        self._finish()
        self._done.chunks = sum(len(table) for table in self._tables.values())
        return self._done

    def _chunks(self, name: str, path: Path, content: bytes) -> list[tuple[int, int, str, str]] | None:
        """A file's chunks: (start, stop, line, text) of each; None where it is skipped."""
        try:
            text = files.text_of(path, content)
            places = self._chunker(text, code=path.suffix.lower() in files.CODE)
        except files.UnreadableError as error:
            self._skip(name, str(error))
            return None
        except REFUSED as error:
            self._skip(name, refusal(error))
            return None
        lines = files.lines_of(name, text, (start for start, _ in places))
        return [(start, stop, line, text[start:stop]) for (start, stop), line in zip(places, lines, strict=True)]

    def _finish(self) -> None:
        """Write what is not there so: with the index's file, nothing if nothing changed."""
        there = self._old if self._aside is None else None
        now = Contents(self._settings, self._hashes, None)
        if self._written or there is None or replace(there, table=None) != now:
            self._write(self._path, complete=True)
        if self._aside is not None:
            self._aside.unlink(missing_ok=True)

    def _skip(self, name: str, why: str) -> None:
        """A file without a text is not in the index; what it had there goes too."""
        self._done.skipped[name] = why
        if name in self._hashes:
            self._drop(name)

    def _drop(self, name: str) -> None:
        del self._hashes[name], self._tables[name]
        self._done.removed.append(name)

    def _put(self, name: str, sha256: str) -> None:
        before = name in self._before and name not in self._textless
        if len(self._tables[name]) == 0:  # its hash stays: it need not be read again to know
            self._done.skipped[name] = NO_TEXT
            if before:
                self._done.removed.append(name)
        else:
            (self._done.changed if before else self._done.added).append(name)
        self._hashes[name] = sha256
        self._step()

    def _encode(self, waiting: list[tuple[str, str, Any]]) -> None:
        try:
            self._encode_all(waiting)
        except REFUSED as error:
            if len(waiting) == 1:
                self._skip(waiting[0][0], refusal(error))
                return
            for one in waiting:  # each vector is what it is beside others
                self._encode([one])

    def _encode_all(self, waiting: list[tuple[str, str, Any]]) -> None:
        texts = [text for _, _, chunks in waiting for _, _, _, text in chunks]
        vectors = self._model.encode_document(texts, normalize=normalize_of(self._settings))
        start = 0
        for name, sha256, chunks in waiting:
            stop = start + len(chunks)
            try:
                self._tables[name] = store.rows(name, chunks, *coded(vectors[start:stop]))
            except NotFiniteError as error:
                self._skip(name, str(error))
            else:
                self._put(name, sha256)
                self._done.encoded += len(chunks)
            start = stop

    def _write(self, path: Path, *, complete: bool) -> None:
        pa = store.pyarrow()
        tables = [self._tables[name] for name in sorted(self._tables)]
        table = pa.concat_tables([store.schema(self._settings.dim).empty_table(), *tables])
        store.write(path, Contents(self._settings, dict(sorted(self._hashes.items())), table, complete))
        self._written = True


def _by_file(old: Contents | None) -> Iterator[tuple[str, Rows]]:
    """The rows of each file, which stand together."""
    if old is None:
        return
    names = old.table.column("file").to_pylist()
    begin: Mapping[str, int] = {name: k for k, name in reversed(list(enumerate(names)))}
    ends: Mapping[str, int] = {name: k + 1 for k, name in enumerate(names)}
    for name in old.files:
        start = begin.get(name, 0)
        yield name, old.table.slice(start, ends.get(name, 0) - start)


def _renamed(table: Rows, name: str) -> Rows:
    pa = store.pyarrow()
    return table.set_column(0, "file", pa.array([name] * len(table), pa.string()))
