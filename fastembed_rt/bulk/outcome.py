"""What becomes of a part's rows: vectors, and of those without one what the caller's policies say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from . import formats
from .encoder import Encoding
from .extras import arrow
from .parts import Part

FAIL, SKIP, NULL, EMPTY, ZERO = "fail", "skip", "null", "empty", "zero"
ON_ERROR = (FAIL, SKIP, NULL)
ON_NULL = ("error", EMPTY, ZERO, NULL, SKIP)


class Refused(InvalidInputError):  # noqa: N818 - a row, with the place where it stands
    """A row that has no vector, under on_error="fail"."""


@dataclass(frozen=True)
class Outcome:
    """The rows of a part that are kept, and those that were rejected."""

    kept: list[int]  # places in the part, ascending
    table: Any  # pyarrow.Table: what is carried along with them
    vectors: Any  # (n, width), or a list
    absent: list[bool]  # of each kept row, whether it has no vector
    rejects: list[dict[str, Any]]  # input, row and reason of each row that is no text

    def with_vectors(self, encoding: Encoding) -> Any:
        """The table with the vectors behind its columns.

        Raises:
            InvalidInputError: a row without a vector of a model that has several a text.
        """
        encoder = encoding.encoder
        return formats.with_vectors(
            self.table, encoder.layout, self.all_vectors(encoding), self.absent, encoder.fingerprint
        )

    def all_vectors(self, encoding: Encoding) -> Any:
        """The vectors, which every row has that needs one; errors as for `with_vectors`."""
        if not encoding.encoder.width and any(vector is None for vector in self.vectors):
            raise InvalidInputError("rows without a vector are for models with one vector a text; take --on-error skip")
        return self.vectors


def outcome(part: Part, encoding: Encoding, found: Any, *, on_error: str, on_null: str) -> Outcome:
    """Encode a part's texts into `found`, (rows, width) or a list, and sort out its rows.

    Raises:
        Refused: a row without a vector under on_error="fail".
    """
    faults = dict(part.faults)
    zero: set[int] = set()
    absent: set[int] = set()
    left_out: set[int] = set()
    for k in [k for k, text in enumerate(part.texts) if text is None and k not in faults]:
        if on_null == "error":
            faults[k] = "there is no text (null); see --on-null"
        elif on_null == ZERO:
            zero.add(k)
        elif on_null == NULL:
            absent.add(k)
        elif on_null == SKIP:
            left_out.add(k)
    _refuse(part, faults, on_error)
    without = {*faults, *zero, *absent, *left_out}
    texts = {k: text or "" for k, text in enumerate(part.texts) if k not in without}
    faults.update(encoding.vectors(texts, found))
    _refuse(part, faults, on_error)
    (left_out if on_error == SKIP else absent).update(faults)
    width = encoding.encoder.width
    if width:
        for k in {*zero, *absent}:
            found[k] = encoding.encoder.zero
    rows = [k for k in range(len(part.texts)) if k not in left_out]
    table, vectors = part.table, found
    if left_out:
        table = table.take(arrow().array(rows, arrow().int64())) if table.num_columns else table
        vectors = found[rows] if width else [found[k] for k in rows]
    encoding.counts.rows += len(part.texts)
    encoding.counts.rejected += len(faults)
    rejects = [_reject(part, k, faults[k]) for k in sorted(faults)]
    return Outcome(rows, table, vectors, [k in absent for k in rows], rejects)


def room(encoding: Encoding, rows: int) -> Any:
    """For the vectors of so many rows: (rows, width), or a list."""
    width = encoding.encoder.width
    return np.empty((rows, width), encoding.encoder.dtype) if width else [None] * rows


def _refuse(part: Part, faults: dict[int, str], on_error: str) -> None:
    if faults and on_error == FAIL:
        place = min(faults)
        label, row = part.origin(place)
        raise Refused(f"{label}, row {row}: {faults[place]}; --on-error skip or null goes on without such rows")


def _reject(part: Part, place: int, reason: str) -> dict[str, Any]:
    label, row = part.origin(place)
    return {"input": label, "row": row, "reason": reason}
