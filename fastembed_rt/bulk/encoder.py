"""What a job wants of a model, and how the texts of a part become vectors: each text once, a bad one on its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidInputError
from .formats import Layout

REMEMBERED = 48 << 20  # bytes of vectors of texts that may come again


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model's side of a job."""

    # Vectors and the tokens of each text; the vectors are in the second argument, (n, width), unless that is None.
    encode: Callable[[list[str], Any], tuple[Any, Sequence[int]]]
    layout: Layout
    fingerprint: str
    width: int = 0  # numbers of a vector; 0 where texts have several
    dtype: Any = np.float32
    zero: Any = 0  # what a vector of zeros is stored as, (width,) or a number
    invariant: bool = True  # a vector depends on nothing but its text, to the last bit
    padded: Callable[[Sequence[int]], int] | None = None  # tokens that run for texts of such lengths, padding included


@dataclass
class Counts:
    """What a run has done so far."""

    rows: int = 0
    encoded: int = 0  # texts that went through the model
    duplicates: int = 0  # rows whose text had been encoded before in this run
    cached: int = 0  # rows whose vector an earlier run left in the cache
    rejected: int = 0
    tokens: int = 0
    slots: int = 0  # tokens with padding


class Vectors(Protocol):
    """Vectors by texts, kept between runs: see cache."""

    def get(self, texts: list[str]) -> dict[str, Any]:
        """Those that are there."""

    def put(self, texts: list[str], vectors: Sequence[Any]) -> None:
        """Keep more."""


class Remembered:
    """Vectors of the last different texts of this run, in bounded memory."""

    def __init__(self, width: int, dtype: Any, size: int = REMEMBERED) -> None:
        self._room = max(size // max(width * np.dtype(dtype).itemsize + 200, 1), 1)  # 200: the text's key
        self._vectors = np.empty((self._room, width), dtype)
        self._places: OrderedDict[bytes, int] = OrderedDict()

    def get(self, key: bytes) -> Any:
        """A vector, None where there is none."""
        place = self._places.get(key)
        return None if place is None else self._vectors[place]

    def put(self, key: bytes, vector: Any) -> None:
        """Keep a vector in the place of the oldest one."""
        if key in self._places:
            return
        full = len(self._places) == self._room
        place = self._places.popitem(last=False)[1] if full else len(self._places)
        self._vectors[place] = vector
        self._places[key] = place


class Arrays:
    """Room for the vectors of a part, used again when the part is written.

    Memory that is given back and taken anew for each part would let a process swing by the size of several.
    """

    def __init__(self, width: int, dtype: Any) -> None:
        self._width, self._dtype = width, dtype
        self._free: list[Any] = []

    def take(self, rows: int) -> Any:
        """(rows, width), filled with anything."""
        while self._free:
            base = self._free.pop()
            if len(base) >= rows:
                return base[:rows]
        return np.empty((rows, self._width), self._dtype)

    def give_back(self, array: Any) -> None:
        """Nobody looks at it any more."""
        self._free.append(array if array.base is None else array.base)


@dataclass
class Encoding:
    """Texts to vectors with all that saves work; `faults` are those that the model refused."""

    encoder: Encoder
    dedupe: bool = True
    cache: Vectors | None = None
    counts: Counts = field(default_factory=Counts)
    _remembered: Remembered | None = None

    def __post_init__(self) -> None:
        # Where neighbours matter, a vector of another part's text would not be what a run that begins there computes.
        if self.dedupe and self.encoder.width and self.encoder.invariant:
            self._remembered = Remembered(self.encoder.width, self.encoder.dtype)

    def vectors(self, texts: Mapping[int, str], into: Any) -> dict[int, str]:
        """Put the vector of each text into its place of `into`, a list or (n, width); those that are refused, and why.

        Places ascend. An array is the model's to write into while it works: those of refused texts, and those that no
        text has, hold anything then.
        """
        first: dict[str, int] = {}
        equal: dict[int, int] = {}  # to the text in which place
        if self.dedupe:
            for k, text in texts.items():
                if (place := first.setdefault(text, k)) != k:
                    equal[k] = place
        refused = self._different({k: text for k, text in texts.items() if k not in equal} if equal else texts, into)
        for k, place in equal.items():
            if place in refused:
                refused[k] = refused[place]
            else:
                into[k] = into[place]
        self.counts.duplicates += len(equal)
        return refused

    def _different(self, texts: Mapping[int, str], into: Any) -> dict[int, str]:
        keys: dict[int, bytes] = {}
        known: dict[int, Any] = {}
        if self._remembered is not None:
            keys = {k: key_of(text) for k, text in texts.items()}
            known = {k: found for k, key in keys.items() if (found := self._remembered.get(key)) is not None}
            self.counts.duplicates += len(known)
        missing = [k for k in texts if k not in known]
        cached: dict[int, Any] = {}
        if self.cache is not None and missing:
            kept = self.cache.get([texts[k] for k in missing])
            cached = {k: kept[texts[k]] for k in missing if texts[k] in kept}
            self.counts.cached += len(cached)
            missing = [k for k in missing if k not in cached]
        refused = self._encode(missing, [texts[k] for k in missing], into) if missing else {}
        for k, vector in (*known.items(), *cached.items()):  # before more is remembered, in the place of what is known
            into[k] = vector
        good = [k for k in missing if k not in refused]
        if self._remembered is not None:
            for k in (*cached, *good):
                self._remembered.put(keys[k], into[k])
        if self.cache is not None and good:
            self.cache.put([texts[k] for k in good], [into[k] for k in good])
        return refused

    def _encode(self, places: Sequence[int], texts: list[str], into: Any) -> dict[int, str]:
        """Vectors of texts into their places; the refused ones, by place."""
        # An array has them at its beginning first: the model writes whole rows, one behind the other.
        made = into[: len(texts)] if self.encoder.width else [None] * len(texts)
        refused, lengths = self._tolerant(texts, made)
        for k in range(len(places) - 1, -1, -1):  # none is before its place, so that the last one moves first
            if not self.encoder.width or places[k] != k:
                into[places[k]] = made[k]
        self.counts.encoded += len(texts)
        self.counts.tokens += sum(lengths)
        padded = self.encoder.padded
        self.counts.slots += sum(lengths) if padded is None else padded(lengths)
        return {places[k]: reason for k, reason in refused.items()}

    def _tolerant(self, texts: list[str], into: Any) -> tuple[dict[int, str], list[int]]:
        """Put vectors into an array or a list; refused texts, why, and tokens. Halving finds the bad ones."""
        try:
            vectors, lengths = self.encoder.encode(texts, into if self.encoder.width else None)
        except InvalidInputError as error:
            if len(texts) == 1:
                return {0: str(error)}, [0]
            refused, counted = {}, []
            for start, stop in ((0, len(texts) // 2), (len(texts) // 2, len(texts))):
                half = into[start:stop]
                bad, found = self._tolerant(texts[start:stop], half)
                into[start:stop] = half  # of a list, it was a copy
                refused.update({start + k: reason for k, reason in bad.items()})
                counted += found
            return refused, counted
        odd: list[int] = []
        if not self.encoder.width:
            into[:] = vectors
            odd = [k for k, vector in enumerate(into) if not self.encoder.layout.is_finite(vector)]
        elif np.dtype(self.encoder.dtype).kind == "f":  # codes of such vectors are refused where they are made
            odd = np.flatnonzero(~np.isfinite(into).all(axis=1)).tolist()
        refused = dict.fromkeys(odd, "its vector is not finite; take another precision")
        return refused, [int(length) for length in lengths]


def key_of(text: str) -> bytes:
    """A text's hash, 16 bytes."""
    import hashlib

    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
