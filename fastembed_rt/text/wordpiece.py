"""Token ids for BERT's tokenizers, in C (native/src/wordpiece.c): more than forty times as fast as the Rust library.

Exactly the library's ids, or none: what the file has beside BERT's own settings, texts with added tokens in them and
texts with characters that are not in the table here are left to it. The table has letters, digits, signs and
punctuation of Latin, Greek and Cyrillic: each of which is one character in a word, whatever stands beside it.
"""

from __future__ import annotations

import json
import re
import unicodedata
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import native
from .pairs import PairTemplate, template_of

Ids = npt.NDArray[np.int64]
CONTINUES = "##"
MOST_CHARACTERS = 1000  # of a word that is cut into pieces, as in the C source
KNOWN = 0x2100  # characters in the table, from 0 on, as in the C source
LETTER, BLANK, PUNCTUATION, OTHER = range(4)  # kinds of them, likewise
KINDS = {"L": LETTER, "N": LETTER, "S": LETTER, "P": PUNCTUATION}  # by category; marks, separators, controls are others
SURROGATES = re.compile("[\ud800-\udfff]")
VOCABULARY = re.compile(rb'"vocab"\s*:\s*(?=\{)')
PLAIN = re.compile("[!-~]*")  # what normalizers leave as it is, but for capitals
# Letters, digits, signs and punctuation; not among them what is left out of texts, or joins what stands before it.
RANGES = (
    (0x20, 0x7F),
    (0xA0, 0x300),
    (0x370, 0x530),
    (0x1E00, 0x2000),
    (0x2010, 0x2028),
    (0x2030, 0x2060),
    (0x20A0, 0x20B0),
)
# Texts, and bytes of them, that are not worth letting other threads run meanwhile: about half a millisecond at most.
FEW, FEW_BYTES = 64, 1 << 16
ALL = 2**62  # tokens


class Pieces(NamedTuple):
    """A vocabulary: its pieces' UTF-8 one after the other (uint8), and of each the bytes and the id (int32)."""

    data: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]


class WordPiece:
    """One vocabulary. Safe to use from several threads."""

    def __init__(
        self,
        described: dict[str, Any],
        pieces: Pieces,
        before: Sequence[int],
        after: Sequence[int],
        pair: PairTemplate | None,
    ) -> None:
        """Of a tokenizer.json that `fits`, with the special tokens before and after a text, and those of a pair.

        Raises:
            LookupError: the vocabulary has no token for unknown words.
        """
        model = described["model"]
        added = [token["content"].encode() for token in described["added_tokens"]]
        sizes = np.fromiter(map(len, added), np.int32, len(added))
        unknown, unknown_id = model["unk_token"].encode(), np.zeros(1, np.int32)
        kinds, folded = characters(*_settings(described["normalizer"]))
        functions = native.wordpiece()
        assert functions is not None
        self._made = functions.new(
            _at(pieces.data),
            _at(pieces.lengths),
            _at(pieces.ids),
            len(pieces.ids),
            b"".join(added),
            _at(sizes),
            len(added),
            unknown,
            len(unknown),
            _at(unknown_id),
            model["max_input_chars_per_word"],
            _at(kinds),
            _at(folded),
        )
        if not self._made:
            raise MemoryError
        # Not at the end of the process, when threads may still be at it.
        weakref.finalize(self, functions.free, self._made).atexit = False
        if unknown_id[0] < 0:
            raise LookupError(model["unk_token"])
        self._few, self._many = functions.encode_few, functions.encode_many
        self._special = np.array([*before, *after], np.int64)
        self._around = _at(self._special)
        self._before, self._after = len(before), len(after)
        self.special = len(self._special)  # tokens around each text
        self.pair = pair  # None: pairs are the library's

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
        try:
            data = [text.encode() for text in texts]
        except UnicodeEncodeError:  # half of a pair of surrogates: the library says so
            numbers = [k for k in numbers if not SURROGATES.search(texts[k])]
            data = [texts[k].encode() for k in numbers]
        lengths, n = list(map(len, data)), len(data)
        room = sum(length if length < most else most for length in lengths) + (before + after) * n
        memory = np.empty(3 * n + room, np.int64)  # one for all: a single text waits for each that is made
        memory[:n] = lengths
        joined = data[0] if n == 1 else b"".join(data)
        encode = self._few if n <= FEW and len(joined) <= FEW_BYTES else self._many
        encode(self._made, joined, n, most, self._around, before, after, _at(memory))
        found: list[Ids | None] = [None] * len(texts)
        start = 3 * n
        for k, length in zip(numbers, memory[n : 2 * n].tolist(), strict=True):
            if length >= 0:
                found[k] = memory[start : start + length]
                start += length
        return found, [k for k, cut in zip(numbers, memory[2 * n : 3 * n].tolist(), strict=True) if cut]


def wordpiece(content: bytes) -> WordPiece | None:
    """What does a tokenizer.json's work for most texts; None where the library has to do all of it."""
    if b'"WordPiece"' not in content or native.wordpiece() is None:  # soon said of other kinds, which are larger
        return None
    try:
        described, pieces = _read(content)
        processor = described["post_processor"]
        special = around(processor)
        if special is None or not fits(described):
            return None
        return WordPiece(described, pieces, *special, None if processor is None else template_of(processor))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None  # the library says what is wrong with it


def _read(content: bytes) -> tuple[dict[str, Any], Pieces]:
    """A tokenizer.json without its vocabulary, and the vocabulary: read in C where it is written as all are."""
    functions = native.wordpiece()
    found = [match.end() for match in VOCABULARY.finditer(content)]  # in a string its quotes would be escaped
    if functions is not None and len(found) == 1:
        content.decode()  # as json does
        (start,) = found
        text = np.frombuffer(content, np.uint8)[start:]
        data, used = np.empty(len(text), np.uint8), np.zeros(1, np.int64)
        lengths, ids = np.empty((2, len(text) // 5 + 1), np.int32)
        count = functions.words(_at(text), len(text), _at(data), _at(lengths), _at(ids), _at(used))
        if count >= 0:
            described = json.loads(content[:start] + b"{}" + content[start + int(used[0]) :])
            if described["model"]["vocab"] == {}:
                return described, Pieces(data, lengths[:count], ids[:count])
    described = json.loads(content)
    vocabulary: dict[str, int] = described["model"]["vocab"]
    if set(map(type, vocabulary.values())) != {int}:
        raise TypeError("the ids of a vocabulary are whole numbers")
    pieces, n = [piece.encode() for piece in vocabulary], len(vocabulary)
    return described, Pieces(
        np.frombuffer(b"".join(pieces), np.uint8),
        np.fromiter(map(len, pieces), np.int32, n),
        np.fromiter(vocabulary.values(), np.int32, n),
    )


def fits(described: dict[str, Any]) -> bool:
    """Whether all of a tokenizer.json but its vocabulary is of BERT's kind, for characters of the table."""
    model, normalizer, words = described["model"], described["normalizer"], described["pre_tokenizer"]
    kinds, _ = characters(*_settings(normalizer))
    # An added token that begins with a letter or a blank might begin within a word; one that is looked for in
    # normalized texts may be there in other characters than its own.
    added = described["added_tokens"]
    begin = [ord(token["content"][0]) for token in added]
    apart = all(first >= KNOWN or kinds[first] in (PUNCTUATION, OTHER) for first in begin)
    plain = all(PLAIN.fullmatch(token["content"]) for token in added if token.get("normalized", True))
    return bool(
        model.get("type", "WordPiece" if "merges" not in model else "BPE") == "WordPiece"  # old files do not say it
        and model["continuing_subword_prefix"] == CONTINUES
        and 0 < model["max_input_chars_per_word"] <= MOST_CHARACTERS
        and normalizer["type"] == "BertNormalizer"
        and words["type"] == "BertPreTokenizer"
        and apart
        and plain
    )


def _settings(normalizer: dict[str, Any]) -> tuple[bool, bool]:
    """Whether letters are in lower case, and without accents."""
    lower, strip = normalizer["lowercase"], normalizer["strip_accents"]
    return bool(lower), bool(lower if strip is None else strip)


@cache
def characters(lower: bool, strip: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Kind of each character and what it is in a word, (KNOWN,) each.

    As BertNormalizer and BertPreTokenizer have it: decomposed and without marks, then in lower case; punctuation stands
    alone. Characters that Unicode 3.2 did not have are other ones: libraries differ in what they know of them.
    """
    kinds, folded = np.full(KNOWN, OTHER, np.uint8), np.zeros(KNOWN, np.uint16)
    for code in (ord(blank) for blank in "\t\n\r \xa0"):
        kinds[code] = BLANK
    for code in (code for start, stop in RANGES for code in range(start, stop)):
        made = chr(code)
        if unicodedata.ucd_3_2_0.category(made) == "Cn":
            continue
        if strip:
            made = "".join(part for part in unicodedata.normalize("NFD", made) if unicodedata.category(part) != "Mn")
        if lower:
            made = made.lower()
        # A sign that becomes an ASCII one might be the first of an added token.
        if len(made) == 1 and ord(made) < KNOWN and (code < 128 or not made.isascii() or made.isalnum()):
            kind = KINDS.get(unicodedata.category(made)[0])
            if kind is not None:
                kinds[code], folded[code] = PUNCTUATION if made.isascii() and not made.isalnum() else kind, ord(made)
    kinds[0x20] = BLANK
    return kinds, folded


def around(processor: dict[str, Any] | None) -> tuple[list[int], list[int]] | None:
    """Special tokens before and after a single text; None where that is not all that is done to it."""
    if processor is None:  # of tables of words, often
        return [], []
    kind = processor["type"]
    if kind in ("BertProcessing", "RobertaProcessing"):
        return [processor["cls"][1]], [processor["sep"][1]]
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
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _at(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]  # a tenth of the time that array.ctypes takes
    return address
