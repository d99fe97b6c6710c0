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

    encode: Callable[[list[str]], tuple[Any, Sequence[int]]]  # vectors, and the tokens of each text
    layout: Layout
    fingerprint: str
    width: int = 0  # numbers of a vector; 0 where texts have several
    dtype: Any = np.float32
    invariant: bool = True  # a vector depends on nothing but its text, to the last bit
    max_length: int = 0
    shorten: Callable[[str], str] | None = None  # the beginning of a text that decides its vector; see caps
    padded: Callable[[Sequence[int]], int] | None = None  # tokens that run for texts of such lengths, padding included


@dataclass
class Counts:
    """What a run has done so far."""

    rows: int = 0
    encoded: int = 0  # texts that went through the model
    duplicates: int = 0  # rows whose text had been encoded before in this run
    cached: int = 0  # rows whose vector an earlier run left in the cache
    shortened: int = 0  # texts of which the model was given the beginning
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

        Their places stay as they are.
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
        missing = list(texts)
        keys: dict[int, bytes] = {}
        if self._remembered is not None:
            keys = {k: key_of(text) for k, text in texts.items()}
            missing = []
            for k, key in keys.items():
                found = self._remembered.get(key)
                if found is None:
                    missing.append(k)
                else:
                    into[k] = found
            self.counts.duplicates += len(texts) - len(missing)
        if self.cache is not None and missing:
            kept = self.cache.get([texts[k] for k in missing])
            there = [k for k in missing if texts[k] in kept]
            for k in there:
                into[k] = kept[texts[k]]
            self.counts.cached += len(there)
            self._remember(keys, into, there)
            missing = [k for k in missing if texts[k] not in kept]
        refused: dict[int, str] = {}
        if missing:
            made, bad = self._encode([texts[k] for k in missing])
            refused = {missing[k]: reason for k, reason in bad.items()}
            for k, vector in zip(missing, made, strict=True):
                if k not in refused:
                    into[k] = vector
            good = [k for k in missing if k not in refused]
            self._remember(keys, into, good)
            if self.cache is not None and good:
                self.cache.put([texts[k] for k in good], [into[k] for k in good])
        return refused

    def _remember(self, keys: dict[int, bytes], made: Any, places: list[int]) -> None:
        if self._remembered is not None:
            for k in places:
                self._remembered.put(keys[k], made[k])

    def _encode(self, texts: list[str]) -> tuple[list[Any], dict[int, str]]:
        shorten = self.encoder.shorten
        given = texts if shorten is None else [shorten(text) for text in texts]
        made, refused, lengths = self._tolerant(given)
        short = [k for k, text in enumerate(given) if text is not texts[k]]
        self.counts.shortened += len(short)
        # The beginning had fewer tokens than there is room for: then the rest of the text matters.
        again = [k for k in short if k not in refused and lengths[k] < self.encoder.max_length]
        if again:
            found, bad, counted = self._tolerant([texts[k] for k in again])
            for k, vector, length in zip(again, found, counted, strict=True):
                made[k], lengths[k] = vector, length
            refused.update({again[k]: reason for k, reason in bad.items()})
        self.counts.encoded += len(texts)
        self.counts.tokens += sum(lengths)
        padded = self.encoder.padded
        self.counts.slots += sum(lengths) if padded is None else padded(lengths)
        return made, refused

    def _tolerant(self, texts: list[str]) -> tuple[list[Any], dict[int, str], list[int]]:
        """Vectors, refused texts with the reason, and tokens; the bad ones are found by halving."""
        try:
            vectors, lengths = self.encoder.encode(texts)
        except InvalidInputError as error:
            if len(texts) == 1:
                return [None], {0: str(error)}, [0]
            half = len(texts) // 2
            left, right = self._tolerant(texts[:half]), self._tolerant(texts[half:])
            refused = {**left[1], **{k + half: reason for k, reason in right[1].items()}}
            return left[0] + right[0], refused, left[2] + right[2]
        refused = {}
        made = list(vectors)
        if self.encoder.width and np.dtype(self.encoder.dtype).kind == "f" and made:
            for k in np.flatnonzero(~np.isfinite(np.asarray(vectors)).all(axis=1)).tolist():
                refused[k] = "its vector is not finite; take another precision"
                made[k] = None
        return made, refused, [int(length) for length in lengths]


def key_of(text: str) -> bytes:
    """A text's hash, 16 bytes."""
    import hashlib

    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
