"""An index that is open for questions: exact scores of all chunks, a reranker behind them, what to look at in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidInputError
from ..models.embedding import EmbeddingModel
from ..system.paths import of_text
from . import files, store
from .building import check_same, normalize_of, settings_of
from .chunks import sentences
from .codes import Floats, nearest
from .store import Settings

UNFINISHED = "the build of this index was not finished, so that files may be missing; run: fastembed-rt index build"
EMPTY = "the query is empty; give a text to look for"


class Ranks(Protocol):
    """A reranker, or a late-interaction model."""

    def rank(self, query: str, documents: Sequence[str], *, top_k: int | None = None) -> Sequence[Any]:
        """Entries with `index` and `score`, the best first."""


@dataclass(frozen=True)
class Hit:
    """A chunk that answers a question."""

    score: float
    file: str  # from the folder on
    line: str  # where the highlight begins: "line 12", of a PDF "page 3", of HTML "character 400"
    start: int  # characters of the file's text
    stop: int
    text: str
    highlight: tuple[int, int]  # characters of the file's text: the sentence nearest to the question


class Index:
    """The index of a folder, with the model that asks it."""

    def __init__(self, folder: str | PathLike[str], model: EmbeddingModel) -> None:
        """Open it; vectors are read into memory: dim bytes a chunk.

        Raises:
            InvalidInputError: no index, or a model that is not the index's.
            ModelFormatError: a file that cannot be read.
            MissingDependencyError: no pyarrow.
        """
        self.folder = Path(folder)
        self._stored = store.Stored(store.place(self.folder))
        try:
            own = self._stored.settings
            check_same(self._stored.path, own, settings_of(model, own.model, old=own))
            self._codes, self._scales = self._stored.vectors()
        except BaseException:
            self._stored.close()
            raise
        self._model = model

    def __len__(self) -> int:
        return len(self._codes)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """What made it."""
        return self._stored.settings

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of each file's contents when it was read, by name."""
        return self._stored.files

    @property
    def complete(self) -> bool:
        """Whether its build came to its end; else files may be missing, which the next build adds."""
        return self._stored.complete

    def close(self) -> None:
        """Close the file; the model is the caller's."""
        self._stored.close()

    def search(
        self,
        question: str,
        top_k: int = 5,
        *,
        reranker: Ranks | None = None,
        candidates: int = 50,
        highlight: bool = True,
    ) -> list[Hit]:
        """The best chunks for a question, the best first; all chunks are looked at.

        Args:
            question: one text, encoded as a query.
            top_k: how many.
            reranker: orders the best `candidates` again, and its scores are the hits'.
            candidates: how many it gets.
            highlight: find the nearest sentence of each hit, which is encoded for it; else it is the whole chunk.

        Raises:
            InvalidInputError: numbers below 1, a question without a word, or with a vector that is not finite;
                InvalidTypeError: one that is no str.
        """
        if isinstance(question, str) and not question.strip():
            raise InvalidInputError(EMPTY)
        if min(top_k, candidates) < 1:
            raise InvalidInputError(f"top_k {top_k} and candidates {candidates} have to be 1 or more")
        vector = self._model.encode_query([question], normalize=normalize_of(self.settings))[0]
        if not np.isfinite(vector).all():
            raise InvalidInputError("the query's vector is not finite; take another precision of the model")
        wanted = top_k if reranker is None else max(candidates, top_k)
        numbers, scores = nearest(self._codes, self._scales, vector, wanted)
        hits = [
            Hit(
                score,
                row["file"],
                row["line"],
                row["start"],
                row["stop"],
                row["text"],
                (row["start"], row["stop"]),
            )
            for score, row in zip(scores.tolist(), self._stored.chunks(numbers.tolist()), strict=True)
        ]
        if reranker is not None and hits:
            order = reranker.rank(question, [hit.text for hit in hits], top_k=min(top_k, len(hits)))
            hits = [replace(hits[entry.index], score=float(entry.score)) for entry in order]
        return self._highlighted(hits, vector) if highlight else hits

    def is_stale(self, file: str) -> bool:
        """Whether a file is no longer as the index has it."""
        path = self.folder / file
        try:
            if not path.exists():  # or a name that is not UTF-8, which the index has as text
                path = self.folder / of_text(file)
            return files.digest(path.read_bytes()) != self._stored.files[file]
        except OSError:
            return True

    def _highlighted(self, hits: Sequence[Hit], vector: Floats) -> list[Hit]:
        parts = [sentences(hit.text) for hit in hits]
        texts = [hit.text[start:stop] for hit, places in zip(hits, parts, strict=True) for start, stop in places]
        if not texts:
            return list(hits)
        near = self._model.encode_document(texts, normalize=normalize_of(self.settings)) @ vector
        done, first = [], 0
        for hit, places in zip(hits, parts, strict=True):
            start, stop = places[int(np.argmax(near[first : first + len(places)]))]
            done.append(replace(hit, line=_line(hit, start), highlight=(hit.start + start, hit.start + stop)))
            first += len(places)
        return done


def _line(hit: Hit, offset: int) -> str:
    """Where a character of a hit's chunk stands; `hit.line` is where the chunk begins. No chunk is on two pages."""
    kind, _, number = hit.line.partition(" ")
    steps = {"line": hit.text.count("\n", 0, offset), "character": offset}
    return f"{kind} {int(number) + steps.get(kind, 0)}"
