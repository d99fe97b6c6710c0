"""Vectors in the forms in which they are stored: quantized, packed to bits, and compared in that form.

The forms and their arithmetic are those of sentence_transformers.util.quantize_embeddings, to the bit; float16 is ours.
Knows arrays only, no model and no file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, InvalidTypeError
from ..records import record
from ..text.tokenizer import callers_level
from . import dense as floats
from .dense import Vectors

Array = npt.NDArray[Any]

FLOAT32 = "float32"
LEVELS = 255  # steps between the ends of a range
BITS = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)
count_bits: Callable[[Array], Array] = getattr(np, "bitwise_count", BITS.__getitem__)  # numpy 1 has none
SIGN = np.uint8(0x80)  # what turns 0..255 into -128..127, read as int8


class RangesWarning(UserWarning):
    """Ranges were taken from the very vectors that they quantize."""


@record(frozen=True, kw_only=True)
class Kind:
    """How one number, or eight of them, lie in memory."""

    dtype: np.dtype[Any]
    ranged: bool = False  # one byte a number, between the ends of a range for each dimension
    packed: bool = False  # one bit a number: positive or not


KINDS: Mapping[str, Kind] = {
    FLOAT32: Kind(dtype=np.dtype(np.float32)),
    "float16": Kind(dtype=np.dtype(np.float16)),
    "int8": Kind(dtype=np.dtype(np.int8), ranged=True),
    "uint8": Kind(dtype=np.dtype(np.uint8), ranged=True),
    "binary": Kind(dtype=np.dtype(np.int8), packed=True),
    "ubinary": Kind(dtype=np.dtype(np.uint8), packed=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """One precision for vectors of one length, ready to be applied; made by `form`."""

    precision: str
    dim: int
    ranges: Vectors | None = None  # (2, dim), least and greatest, for int8 and uint8

    @property
    def kind(self) -> Kind:
        """The row of KINDS."""
        return KINDS[self.precision]

    @property
    def width(self) -> int:
        """Stored numbers a vector: dim, or bytes where bits are packed."""
        return (self.dim + 7) // 8 if self.kind.packed else self.dim

    @property
    def needs_ranges(self) -> bool:
        """Whether it could only take its ranges from the vectors it is given."""
        return self.kind.ranged and self.ranges is None

    def __call__(self, vectors: npt.NDArray[np.floating[Any]]) -> Array:
        """Float vectors (..., dim) -> (..., width) in the form's dtype.

        Without ranges, int8 and uint8 take them from `vectors`, as sentence-transformers does, and warn.

        Raises:
            InvalidInputError: no ranges and a single vector, a number beyond float16, or one that is not finite where
                no code would say so.
        """
        kind = self.kind
        if (kind.packed or kind.ranged) and not np.isfinite(vectors).all():
            raise InvalidInputError(
                f"a vector is not finite, and {self.precision} has no code that says so; take another precision"
            )
        if kind.packed:
            bits = np.packbits(vectors > 0, axis=-1)
            return bits if kind.dtype == np.uint8 else (bits ^ SIGN).view(np.int8)
        if kind.ranged:
            levels = _levels(vectors, self.ranges if self.ranges is not None else self._own_ranges(vectors))
            return levels if kind.dtype == np.uint8 else (levels ^ SIGN).view(np.int8)
        with np.errstate(over="ignore"):
            stored = vectors.astype(kind.dtype)
        if kind.dtype == np.float16 and not np.array_equal(np.isfinite(stored), np.isfinite(vectors)):
            raise InvalidInputError(
                f"a number of {np.abs(vectors).max():g} does not fit float16; normalize the vectors or keep float32"
            )
        return stored

    def _own_ranges(self, vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
        if vectors.ndim == 2 and len(vectors) == 0:
            return np.zeros((2, self.dim), np.float32)
        if vectors.ndim == 1 or len(vectors) == 1:
            raise InvalidInputError(
                f"{self.precision} needs ranges and a single vector has none; "
                "pass ranges=, or calibration_embeddings= of many texts"
            )
        warnings.warn(
            f"{self.precision} ranges come from these {len(vectors)} vectors: they depend on each other, and on "
            "nothing encoded elsewhere can be compared; pass ranges= or calibration_embeddings=",
            RangesWarning,
            stacklevel=callers_level(),
        )
        return calibrate(vectors)


def form(
    precision: str, dim: int, ranges: npt.ArrayLike | None = None, calibration_embeddings: npt.ArrayLike | None = None
) -> Form:
    """The form of a precision for vectors of length `dim`.

    Args:
        precision: float32, float16, int8, uint8, binary or ubinary.
        dim: length of the float vectors.
        ranges: (2, dim), least and greatest number of each dimension; for int8 and uint8 alone.
        calibration_embeddings: (n, dim) float vectors to take the ranges from, instead of them.

    Raises:
        InvalidInputError: an unknown precision, ranges or vectors that do not fit `dim`, both of them, or one of them
            for a precision without ranges.
    """
    if precision not in KINDS:
        raise InvalidInputError(
            f"precision {precision!r} of vectors is not known; known: {', '.join(KINDS)} "
            "(the precision of the graph is chosen when the model loads)"
        )
    if ranges is not None and calibration_embeddings is not None:
        raise InvalidInputError("ranges and calibration_embeddings are both given; pass one of them")
    if not KINDS[precision].ranged:
        _refuse_ranges(precision, ranges, calibration_embeddings)
        return Form(precision=precision, dim=dim)
    if calibration_embeddings is not None:
        ranges = calibrate(_floats("calibration_embeddings", calibration_embeddings, dim))
    return Form(precision=precision, dim=dim, ranges=None if ranges is None else checked_ranges(ranges, dim))


def _refuse_ranges(precision: str, ranges: object, calibration_embeddings: object = None) -> None:
    for name, given in (("ranges", ranges), ("calibration_embeddings", calibration_embeddings)):
        if given is not None:
            raise InvalidInputError(f"{name} is for int8 and uint8, and precision is {precision!r}; leave it out")


def of_use(
    precision: str, ranges: npt.ArrayLike | None, calibration_embeddings: npt.ArrayLike | None
) -> tuple[npt.ArrayLike | None, npt.ArrayLike | None]:
    """Ranges and calibration_embeddings, None where sentence-transformers passes over them."""
    if precision in KINDS and not KINDS[precision].ranged:
        return None, None
    return ranges, calibration_embeddings if ranges is None else None


def quantize_embeddings(
    embeddings: npt.ArrayLike,
    precision: str,
    ranges: npt.ArrayLike | None = None,
    calibration_embeddings: npt.ArrayLike | None = None,
) -> Array:
    """Float vectors (n, dim) or (dim,) in another precision, as sentence_transformers.util.quantize_embeddings.

    Arguments and errors as for `form` and `Form`, but what is of no use is passed over as it is there.
    """
    given = np.asarray(embeddings)
    if given.dtype.kind != "f" or given.ndim not in (1, 2):
        raise InvalidTypeError(
            f"embeddings are {given.dtype} of shape {given.shape}; expected floats of shape (n, dim) or (dim,)"
        )
    return form(precision, given.shape[-1], *of_use(precision, ranges, calibration_embeddings))(given)


def calibrate(embeddings: npt.NDArray[np.floating[Any]]) -> Vectors:
    """Ranges of float vectors, the least and the greatest number of each dimension: (n, dim) -> (2, dim) float32."""
    ends = np.vstack((np.min(embeddings, axis=0), np.max(embeddings, axis=0)))
    return ends.astype(np.float32, copy=False)


def checked_ranges(ranges: npt.ArrayLike, dim: int) -> Vectors:
    """`ranges` as (2, dim) float32, or InvalidInputError."""
    found = _floats("ranges", ranges, dim)
    if len(found) != 2:
        raise InvalidInputError(f"ranges are of shape {found.shape}; expected (2, {dim}): least, then greatest")
    if not np.all(found[0] <= found[1]):
        raise InvalidInputError("ranges hold a least number above its greatest; expected least, then greatest")
    return found


def _floats(name: str, given: npt.ArrayLike, dim: int) -> Vectors:
    try:
        found = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} are not numbers ({error})") from error
    if found.ndim != 2 or found.shape[1] != dim or len(found) == 0:
        rows = "2" if name == "ranges" else "n"
        raise InvalidInputError(f"{name} are of shape {found.shape}; expected ({rows}, {dim})")
    if not np.isfinite(found).all():
        raise InvalidInputError(f"{name} hold numbers that are not finite")
    return found


def _steps(ranges: Vectors) -> Vectors:
    steps: Vectors = (ranges[1] - ranges[0]) / np.float32(LEVELS)
    steps[steps == 0] = 1  # a dimension that never changes
    return steps


def _levels(vectors: npt.NDArray[np.floating[Any]], ranges: Vectors) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.clip(np.floor((vectors - ranges[0]) / _steps(ranges)), 0, LEVELS).astype(
        np.uint8
    )
    return levels


def restored(stored: npt.ArrayLike, precision: str, ranges: npt.ArrayLike) -> Vectors:
    """int8 or uint8 vectors as floats again, each number at the lower end of its step: (..., dim) -> (..., dim)."""
    found = np.asarray(stored)
    ends = checked_ranges(ranges, found.shape[-1] if found.ndim else 1)
    levels = found.astype(np.float32) + (128 if KINDS[precision].dtype == np.int8 else 0)
    back: Vectors = (levels * _steps(ends) + ends[0]).astype(np.float32, copy=False)
    return back


def similarity(
    function: str,
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    precision: str = FLOAT32,
    ranges: npt.ArrayLike | None = None,
) -> Vectors:
    """Similarity matrix of stored vectors: (n, width) and (m, width) -> (n, m) float32.

    Floats: the model's function. binary and ubinary: the number of bits that differ, negated. int8 and uint8: the
    model's function after `restored`; a side of floats stays as it is.

    Raises:
        InvalidInputError: a dtype that is not the precision's, int8 and uint8 without ranges, or others with them.
    """
    if precision not in KINDS:
        raise InvalidInputError(f"precision {precision!r} of vectors is not known; known: {', '.join(KINDS)}")
    kind = KINDS[precision]
    if not kind.ranged:
        _refuse_ranges(precision, ranges)
    a, b = np.asarray(left), np.asarray(right)
    if kind.packed:
        return _hamming(*(_of_kind(side, precision) for side in (a, b)))
    if kind.ranged:
        if ranges is None:
            raise InvalidInputError(f"similarity of {precision} vectors needs the ranges that they were made with")
        a, b = (
            side if side.dtype.kind == "f" else restored(_of_kind(side, precision), precision, ranges)
            for side in (a, b)
        )
    elif a.dtype in (np.int8, np.uint8) or b.dtype in (np.int8, np.uint8):
        raise InvalidInputError(
            "arrays of int8 or uint8: say what they hold, precision='int8', 'uint8', 'binary' or 'ubinary'"
        )
    return floats.similarity(function, a, b)


def _of_kind(array: Array, precision: str) -> Array:
    if array.dtype != KINDS[precision].dtype:
        raise InvalidInputError(
            f"{precision} vectors are {KINDS[precision].dtype}, these are {array.dtype}; "
            f"encode both sides with precision={precision!r}"
        )
    return array


def _hamming(left: Array, right: Array) -> Vectors:
    a, b = (np.atleast_2d(side).view(np.uint8) for side in (left, right))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InvalidInputError(f"vectors of shapes {a.shape} and {b.shape} do not fit; expected (n, k) and (m, k)")
    # Row by row bounds memory; the sign bit of `binary` is flipped on both sides and falls out.
    counts = [-count_bits(row ^ b).sum(axis=1, dtype=np.int64) for row in a]
    return np.array(counts, dtype=np.float32).reshape(len(a), len(b))
