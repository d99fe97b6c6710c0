"""Token ids in C, of the kinds of tokenizers that are known: the Rust library's ids to the last one, or none.

Files with other settings than their kind's own are left to the library, and texts of which it is not certain what
becomes of their characters, or of an added token in them.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..native import TokenizerFunctions
from .pairs import PairTemplate, template_of

Ids = npt.NDArray[np.int64]
SURROGATES = re.compile("[\ud800-\udfff]")
FEW = 64  # texts that are not worth letting other threads run meanwhile, if they are short
ALL = 2**62  # tokens
LEFT = -1  # instead of an id
FLAGS = ("single_word", "lstrip", "rstrip")


class Around(NamedTuple):
    """Special tokens in front of a text and behind it, and those of a pair; None: pairs are the library's."""

    before: list[int]
    after: list[int]
    pair: PairTemplate | None


class Quick:
    """One vocabulary. Safe to use from several threads."""

    per_byte, beside = 1, 0  # tokens of a text: at most so many for each byte, and more
    few_bytes = 1 << 12  # of few texts: a millisecond at most
    normal = False  # texts have to be in Unicode's form C

    def __init__(self, functions: TokenizerFunctions, made: int | None, around: Around) -> None:
        """Of what the functions made.

        Raises:
            MemoryError: they made none.
        """
        if not made:
            raise MemoryError
        self._made = made
        # Not at the end of the process, when threads may still be at it.
        weakref.finalize(self, functions.free, made).atexit = False
        self._few, self._many = functions.encode_few, functions.encode_many
        self._special = np.array([*around.before, *around.after], np.int64)
        self._around = at(self._special)
        self._before, self._after = len(around.before), len(around.after)
        self.special = len(self._special)  # tokens around each text
        self.pair = around.pair

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[list[Ids | None], list[int]]:
        """Ids of texts, each at most `max_length` tokens, special ones included; None where the library has to do it.

        Beside them the numbers of texts that were cut.
        """
        return self._rows(texts, max_length - self.special, self._before, self._after)

    def pieces(self, texts: Sequence[str], most: int | None = None) -> list[Ids | None]:
        """Ids of texts without special tokens, the first `most` of each; None where the library has to do it."""
        return self._rows(texts, ALL if most is None else most, 0, 0)[0]

    def _rows(self, texts: Sequence[str], most: int, before: int, after: int) -> tuple[list[Ids | None], list[int]]:
        numbers: Sequence[int] = range(len(texts))
        if self.normal and not all(map(str.isascii, texts)):
            numbers = [k for k in numbers if is_normal(texts[k])]
        try:
            data = [texts[k].encode() for k in numbers]
        except UnicodeEncodeError:  # half of a pair of surrogates: the library says so
            numbers = [k for k in numbers if not SURROGATES.search(texts[k])]
            data = [texts[k].encode() for k in numbers]
        lengths, n = list(map(len, data)), len(data)
        rooms = lengths if self.beside == 0 else [self.per_byte * length + self.beside for length in lengths]
        room = sum(room if room < most else most for room in rooms) + (before + after) * n
        memory = np.empty(3 * n + room, np.int64)  # one for all: a single text waits for each that is made
        memory[:n] = lengths
        joined = data[0] if n == 1 else b"".join(data)
        encode = self._few if n <= FEW and len(joined) <= self.few_bytes else self._many
        encode(self._made, joined, n, most, self._around, before, after, at(memory))
        found: list[Ids | None] = [None] * len(texts)
        start = 3 * n
        for k, length in zip(numbers, memory[n : 2 * n].tolist(), strict=True):
            if length >= 0:
                found[k] = memory[start : start + length]
                start += length
        return found, [k for k, cut in zip(numbers, memory[2 * n : 3 * n].tolist(), strict=True) if cut]


def is_normal(text: str) -> bool:
    """Whether a text is in Unicode's form C."""
    import unicodedata  # not for most models

    return unicodedata.is_normalized("NFC", text)


class Described(NamedTuple):
    """A tokenizer.json without its vocabulary, and that.

    Its pieces' UTF-8 one after the other (uint8), and of each the bytes (int32) and the value: an id, or a score.
    """

    rest: dict[str, Any]
    data: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int32]
    values: npt.NDArray[Any]
    merged: npt.NDArray[np.uint8]  # likewise the two pieces of each merge, where there are some
    merged_lengths: npt.NDArray[np.int32]


NO_BYTES, NO_LENGTHS = np.empty(0, np.uint8), np.empty(0, np.int32)


def read(
    content: bytes,
    functions: TokenizerFunctions,
    empty: bytes,
    least: int,
    value: npt.DTypeLike,
    *,
    with_merges: bool = False,
) -> Described | None:
    """A tokenizer.json whose vocabulary C reads; None where it is not written as all are.

    `empty` is a vocabulary without pieces, `least` the characters that one takes at least, `value` its value's type.
    `with_merges`: it has merges, behind the vocabulary.

    Raises:
        ValueError: the rest is no JSON.
    """
    start = _value_of(content, b"vocab", empty, 0)
    if start < 0:
        return None
    text = np.frombuffer(content, np.uint8)[start:]
    data, used = np.empty(len(text), np.uint8), np.zeros(1, np.int64)
    most = len(text) // least + 1
    lengths, values = np.empty(most, np.int32), np.empty(most, value)
    count = functions.read(at(text), len(text), at(data), at(lengths), at(values), at(used))
    if count < 0:
        return None
    end = start + int(used[0])
    parts, merged, merged_lengths = [content[:start], empty], NO_BYTES, NO_LENGTHS
    if with_merges:
        start = _value_of(content, b"merges", b"[]", end)
        if start < 0:
            return None
        text = np.frombuffer(content, np.uint8)[start:]
        merged, merged_lengths = np.empty(len(text), np.uint8), np.empty(2 * (len(text) // 3) + 2, np.int32)
        merges = functions.merges(at(text), len(text), at(merged), at(merged_lengths), at(used))
        if merges < 0:
            return None
        merged_lengths = merged_lengths[: 2 * merges]
        parts += [content[end:start], b"[]"]
        end = start + int(used[0])
    rest = json.loads(b"".join([*parts, content[end:]]))
    model = rest["model"]
    if model["vocab"] not in ([], {}) or (with_merges and model["merges"] != []):
        return None
    return Described(rest, data, lengths[:count], values[:count], merged, merged_lengths)


def _value_of(content: bytes, name: bytes, empty: bytes, start: int) -> int:
    """Where the first value of this name and kind begins; -1 where there is none. In a string quotes are escaped."""
    quoted = b'"%b"' % name
    pattern = re.compile(rb"\s*:\s*(?=\%b)" % empty[:1])
    while (found := content.find(quoted, start)) >= 0:
        start = found + len(quoted)
        if (colon := pattern.match(content, start)) is not None:
            return colon.end()
    return -1


def around(processor: Mapping[str, Any] | None) -> Around | None:
    """What a tokenizer.json's post-processor puts around texts; None where that is not all that it does."""
    steps = [] if processor is None else processor["processors"] if processor["type"] == "Sequence" else [processor]
    steps = [step for step in steps if step["type"] != "ByteLevel"]  # which changes no ids
    if len(steps) != 1:
        return None if steps else Around([], [], None)
    (processor,) = steps
    kind = processor["type"]
    if kind in ("BertProcessing", "RobertaProcessing"):
        return Around([processor["cls"][1]], [processor["sep"][1]], template_of(processor))
    if kind != "TemplateProcessing":
        return None
    sides: list[list[int]] = [[]]
    for part in processor["single"]:
        if "SpecialToken" in part:
            sides[-1] += processor["special_tokens"][part["SpecialToken"]["id"]]["ids"]
        elif part["Sequence"]["id"] == "A":
            sides.append([])
        else:
            return None
    return Around(sides[0], sides[1], template_of(processor)) if len(sides) == 2 else None


class Added(NamedTuple):
    """Added tokens, one after the other in UTF-8; the bytes and the id of each (int32).

    The id is LEFT where the library has to say what becomes of it.
    """

    data: bytes
    lengths: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]


def added_of(described: Mapping[str, Any]) -> Added:
    """Those of a tokenizer.json."""
    added = described["added_tokens"]
    written = [token["content"].encode() for token in added]
    # Where more than the token itself decides.
    ids = [LEFT if any(token.get(flag) for flag in FLAGS) else token.get("id", LEFT) for token in added]
    return Added(b"".join(written), np.fromiter(map(len, written), np.int32, len(added)), np.array(ids, np.int32))


def or_none(make: Callable[[], Quick | None]) -> Quick | None:
    """What is made; None where the file is odd: the library says what is wrong with it."""
    try:
        return make()
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None


def at(array: npt.NDArray[Any]) -> int:
    """Address of an array's memory."""
    address: int = array.__array_interface__["data"][0]  # a tenth of the time that array.ctypes takes
    return address
