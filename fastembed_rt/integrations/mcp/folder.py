"""A folder of text files in memory: chunks with their vectors, brought up to date by what changed, searched exactly.

Small on purpose: a few thousand files. Links that lead out of the folder, hidden files and what is no UTF-8 text are
left out and counted, and so are files with a token that the model does not know.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import EmbeddingModel, Reranker
from ...errors import InvalidInputError
from ...search.chunks import REFUSED, Chunker
from ...search.files import CODE, is_file
from ...vectors.dense import Vectors

SUFFIXES = (".md", ".txt", ".rst", ".adoc", ".org", ".tex", ".html", ".csv", ".json", ".toml", ".yaml", ".yml", ".py")
MOST_FILES, MOST_BYTES, MOST_CHUNKS = 5_000, 2_000_000, 100_000
CANDIDATES = 50  # of the vectors, which a reranker puts in order


@dataclass(frozen=True)
class Chunk:
    """A part of a text."""

    text: str
    first_line: int  # from 1
    last_line: int


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A chunk that was found."""

    path: str  # in the folder, with /
    first_line: int
    last_line: int
    score: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search gives."""

    hits: list[Hit]
    files: int  # searched
    left_out: int  # files that are too large, no text, or one too many
    scored_by: str  # "reranker" or "vectors"


@dataclass(frozen=True)
class _File:
    changed: tuple[int, int]  # time in ns, bytes
    chunks: list[Chunk]
    vectors: Vectors


class Folder:
    """A folder that is searched. Safe to use from several threads."""

    def __init__(self, root: str | os.PathLike[str], model: EmbeddingModel, reranker: Reranker | None = None) -> None:
        """Look at the folder; files are read at the first search.

        Raises:
            InvalidInputError: no folder.
        """
        self._root = Path(os.path.realpath(os.path.expanduser(root)))  # noqa: PTH111  Path's raises for ~user without a home
        if not self._root.is_dir():
            raise InvalidInputError(f"{root} is no folder")
        self._model, self._reranker = model, reranker
        prepared = model.prepare(role="document")
        self._cut = Chunker(prepared.tokenizer, prepared.prompt, model.for_role("document").max_length)
        self._files: dict[str, _File] = {}
        self._places: list[tuple[str, Chunk]] = []
        self._matrix: Vectors = np.empty((0, model.dim), np.float32)
        self._left_out = 0
        self._lock = threading.Lock()

    def search(self, query: str, top_k: int) -> Found:
        """The best chunks for a query, of the files as they are now."""
        with self._lock:
            self._refresh()
            places, matrix, files, left_out = self._places, self._matrix, len(self._files), self._left_out
        scored_by = "vectors" if self._reranker is None else "reranker"
        if not places:
            return Found(hits=[], files=files, left_out=left_out, scored_by=scored_by)
        vector = self._model.encode_query(query)
        scores = self._model.similarity(matrix, vector[None])[:, 0]
        order = np.argsort(-scores, kind="stable")[: max(top_k, CANDIDATES) if self._reranker else top_k].tolist()
        best = [(float(scores[k]), *places[k]) for k in order]
        if self._reranker is not None:
            ranked = self._reranker.rank(query, [chunk.text for _, _, chunk in best], top_k=top_k)
            best = [(entry.score, *best[entry.index][1:]) for entry in ranked]
        hits = [
            Hit(path=name, first_line=chunk.first_line, last_line=chunk.last_line, score=score, text=chunk.text)
            for score, name, chunk in best
        ]
        return Found(hits=hits, files=files, left_out=left_out, scored_by=scored_by)

    def _refresh(self) -> None:
        """Encode what is new or changed, forget what is gone."""
        kept: dict[str, _File] = {}
        fresh: list[tuple[str, tuple[int, int], list[Chunk]]] = []
        self._left_out = total = 0
        for path in self._paths():
            name = path.relative_to(self._root).as_posix()
            try:
                state = path.stat()
                changed = (state.st_mtime_ns, state.st_size)
                known = self._files.get(name)
                if known is not None and known.changed == changed:
                    parts = known.chunks
                else:
                    full = total >= MOST_CHUNKS or len(kept) + len(fresh) >= MOST_FILES
                    known, parts = None, self._read(path, MOST_BYTES + 1 if full else state.st_size)
            except (OSError, UnicodeDecodeError, _TooLargeError, *REFUSED):  # gone meanwhile, not ours to read, no text
                self._left_out += 1
                continue
            if total + len(parts) > MOST_CHUNKS or len(kept) + len(fresh) >= MOST_FILES:
                self._left_out += 1
                continue
            total += len(parts)
            if known is not None:
                kept[name] = known
            else:
                fresh.append((name, changed, parts))
        if not fresh and kept.keys() == self._files.keys():
            return
        for (name, changed, parts), vectors in zip(fresh, self._encoded([parts for _, _, parts in fresh]), strict=True):
            if vectors is None:
                self._left_out += 1
            else:
                kept[name] = _File(changed, parts, vectors)
        self._files = dict(sorted(kept.items()))
        self._places = [(name, chunk) for name, file in self._files.items() for chunk in file.chunks]
        self._matrix = np.concatenate([self._matrix[:0], *(file.vectors for file in self._files.values())])

    def _encoded(self, files: list[list[Chunk]]) -> list[Vectors | None]:
        """Vectors of each file's chunks, None where the model does not take one of them."""
        if not files:
            return []
        try:
            vectors = self._model.encode_document([chunk.text for parts in files for chunk in parts])
        except REFUSED:
            return [None] if len(files) == 1 else [self._encoded([parts])[0] for parts in files]
        return [*np.split(vectors, np.cumsum([len(parts) for parts in files])[:-1])]

    def _read(self, path: Path, size: int) -> list[Chunk]:
        if size > MOST_BYTES:
            raise _TooLargeError
        text = path.read_text(encoding="utf-8")
        return [_chunk(text, *place) for place in self._cut(text, code=path.suffix.lower() in CODE)]

    def _leave_out(self, error: OSError) -> None:
        """Count a folder that is not ours to read."""
        self._left_out += 1

    def _paths(self) -> Iterator[Path]:
        """Text files in order of their names, none of them hidden or outside."""
        for place, folders, names in os.walk(self._root, onerror=self._leave_out):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(place, name)
                # realpath, not resolve: of links that lead in a circle, it gives a path that is no file, and no error.
                inside = not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(self._root)
                if not name.startswith(".") and path.suffix.lower() in SUFFIXES and inside and is_file(path):
                    yield path


def _chunk(text: str, start: int, stop: int) -> Chunk:
    first, kept = text.count("\n", 0, start) + 1, text[start:stop]
    return Chunk(kept, first, first + kept.count("\n"))


class _TooLargeError(Exception):
    """A file that is not read."""
