"""Token ids for BERT's tokenizers, in C (native/src/wordpiece.c), ten to twenty times as fast as by the Rust library.

What the file has beside BERT's own settings, texts with added tokens in them and texts with characters that are not in
the table here are left to that. The table has letters, digits, signs and punctuation, each of which is one character in
a word, whatever stands beside it; Chinese characters and Korean syllables are known to the C source.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import native
from .quick import NO_BYTES, NO_LENGTHS, Around, Described, Quick, added_of, around, at, or_none, read

CONTINUES = "##"
MOST_CHARACTERS = 1000  # of a word that is cut into pieces, as in the C source
KNOWN = 0x3100  # characters in the table, from 0 on, as in the C source
LETTER, BLANK, PUNCTUATION, OTHER = range(4)  # kinds of them, likewise
KINDS = {"L": LETTER, "N": LETTER, "S": LETTER, "P": PUNCTUATION}  # by category; marks, separators, controls are others
PLAIN = re.compile("[!-~]*")  # what normalizers leave as it is, but for capitals
# Letters, digits, signs and punctuation; not among them what is left out of texts, or joins what stands before it.
RANGES = (
    (0x20, 0x7F),
    (0xA0, 0x300),
    (0x370, 0x530),
    (0x531, 0x588),  # Armenian
    (0x5D0, 0x5EB),  # Hebrew
    (0x60C, 0x60D),  # Arabic, but for its marks
    (0x61F, 0x620),
    (0x621, 0x63B),
    (0x641, 0x64B),
    (0x660, 0x66E),
    (0x671, 0x6D5),
    (0x6F0, 0x6FA),
    (0x1E00, 0x2000),
    (0x2010, 0x2028),
    (0x2030, 0x2060),
    (0x20A0, 0x20B0),
    (0x3001, 0x3012),
    (0x3041, 0x3095),  # kana
    (0x30A1, 0x30FB),
)


class WordPiece(Quick):
    """One vocabulary. Safe to use from several threads."""

    few_bytes = 1 << 16  # which take no longer, here


def wordpiece(content: bytes) -> Quick | None:
    """What does a tokenizer.json's work for most texts; None where the library has to do all of it."""
    functions = native.wordpiece()
    if b'"WordPiece"' not in content or functions is None:  # soon said of other kinds, which are larger
        return None

    def make() -> Quick | None:
        found = described(content)
        special = around(found.rest["post_processor"])
        return None if special is None or not fits(found.rest) else _made(functions, found, special)

    return or_none(make)


def _made(functions: native.TokenizerFunctions, found: Described, special: Around) -> Quick | None:
    model = found.rest["model"]
    added = added_of(found.rest)
    unknown, unknown_id = model["unk_token"].encode(), np.zeros(1, np.int32)
    normalizer = found.rest["normalizer"]
    lower, strip = _settings(normalizer)
    kinds, folded = characters(lower, strip)
    made = functions.new(
        at(found.data),
        at(found.lengths),
        at(found.values),
        len(found.values),
        added.data,
        at(added.lengths),
        len(added.lengths),
        unknown,
        len(unknown),
        at(unknown_id),
        model["max_input_chars_per_word"],
        at(kinds),
        at(folded),
        PUNCTUATION if normalizer["handle_chinese_chars"] else LETTER,
        OTHER if strip else LETTER,  # taken apart, where marks are
    )
    tokenizer = WordPiece(functions, made, special)
    return tokenizer if unknown_id[0] >= 0 else None


def described(content: bytes) -> Described:
    """A tokenizer.json and its vocabulary, of pieces' ids."""
    functions = native.wordpiece()
    if functions is not None and (found := read(content, functions, b"{}", 5, np.int32)) is not None:
        content.decode()  # as json does
        return found
    rest = json.loads(content)
    vocabulary: dict[str, int] = rest["model"]["vocab"]
    if set(map(type, vocabulary.values())) != {int}:
        raise TypeError("the ids of a vocabulary are whole numbers")
    pieces, n = [piece.encode() for piece in vocabulary], len(vocabulary)
    return Described(
        rest,
        np.frombuffer(b"".join(pieces), np.uint8),
        np.fromiter(map(len, pieces), np.int32, n),
        np.fromiter(vocabulary.values(), np.int32, n),
        NO_BYTES,
        NO_LENGTHS,
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
    for code in (ord(blank) for blank in "\t\n\r \xa0\u3000"):
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
