"""Token ids of byte-pair encodings, in C (native/src/bpe.c): RoBERTa's, ModernBERT's, Qwen's, Gemma's, Llama's,
Ministral's (Tekken).

The Rust library takes a second and 280 MB for Gemma's vocabulary, before it has read a text
(`python -m benchmarks.inside.tokenizers`). Files with other regular expressions than those below are left to it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import native
from .quick import Around, Described, Quick, added_of, around, at, is_normal, or_none, read

MARK = "\u2581"  # for a space
KNOWN = 0x3000  # characters in the table, from 0 on, as in the C source
LETTER, NUMBER, SPACE, OTHER, UNCERTAIN, UPPER, LOWER = range(7)  # kinds of them, likewise
KINDS = {"L": LETTER, "N": NUMBER}  # by category
CASED = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, **dict.fromkeys(("Mn", "Mc", "Me"), UNCERTAIN)}  # instead, to Tekken
MARKED, GPT2, DIGITS1, DIGITS3, TEKKEN = range(5)  # what is a word, likewise
BLANKS = (*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F)
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_CASED = rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}" + _REST.replace(r"[\r\n]*", r"[\r\n/]*")
EXPRESSIONS = {
    _LETTERS + r"\p{N}" + _REST: DIGITS1,
    _LETTERS + r"\p{N}{1,3}" + _REST: DIGITS3,
    _CASED: TEKKEN,
}


class Bpe(Quick):
    """One vocabulary. Safe to use from several threads."""

    beside = 16  # as the C source


class Normal(Bpe):
    """One whose texts are in Unicode's form C before anything else; those that are not are the library's."""

    normal = True


class Settings(NamedTuple):
    """What is done to texts before their words become pieces."""

    words: int
    prepend: bool  # a mark in front of each, or a space where there is none
    whole: bool  # words that are pieces are not merged
    normal: bool  # they are in form C


def bpe(content: bytes) -> Quick | None:
    """What does a tokenizer.json's work for most texts; None where the library has to do all of it."""
    functions = native.bpe()
    if functions is None or b'"merges"' not in content:
        return None

    def make() -> Quick | None:
        found = read(content, functions, b"{}", 5, np.int32, with_merges=True)
        if found is None:
            return None
        settings, special = settings_of(found.rest), around(found.rest["post_processor"])
        return None if settings is None or special is None else _made(functions, found, settings, special)

    return or_none(make)


def _made(functions: native.TokenizerFunctions, found: Described, settings: Settings, special: Around) -> Quick | None:
    added = added_of(found.rest)
    fits = np.zeros(1, np.int32)
    kinds = np.empty(KNOWN, np.uint8) if settings.words == MARKED else characters(settings.words == TEKKEN)
    made = functions.new(
        at(found.data),
        at(found.lengths),
        at(found.values),
        len(found.values),
        at(found.merged),
        at(found.merged_lengths),
        len(found.merged_lengths) // 2,
        added.data,
        at(added.lengths),
        at(added.ids),
        bytes(bool(token["normalized"]) for token in found.rest["added_tokens"]),
        len(added.ids),
        settings.words,
        settings.prepend,
        settings.whole,
        at(kinds),
        at(fits),
    )
    tokenizer = (Normal if settings.normal else Bpe)(functions, made, special)
    return tokenizer if fits[0] else None


def settings_of(described: Mapping[str, Any]) -> Settings | None:
    """Of a tokenizer.json, vocabulary aside; None where it is of another kind."""
    model, normalizer, words = described["model"], described["normalizer"], described["pre_tokenizer"]
    plain = {"continuing_subword_prefix", "end_of_word_suffix", "dropout"}
    known = {"type", "vocab", "merges", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges", *plain}
    if not set(model) <= known or model.get("type", "BPE") != "BPE" or any(model.get(name) for name in plain):
        return None
    whole = bool(model.get("ignore_merges"))
    if model.get("byte_fallback"):
        return None if whole else _marked(normalizer, words, described["added_tokens"])
    if normalizer not in (None, {"type": "NFC"}):
        return None
    # A token in normalized text would be there in form C.
    if normalizer and not all(
        is_normal(token["content"]) for token in described["added_tokens"] if token["normalized"]
    ):
        return None
    number = _expression(words)
    prepend = bool(words.get("add_prefix_space"))
    if number is None or (prepend and whole):
        return None
    return Settings(number, prepend, whole, normal=normalizer is not None)


def _marked(normalizer: Mapping[str, Any], words: Any, added: list[Mapping[str, Any]]) -> Settings | None:
    """Of characters, with a mark for each space."""
    marked = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    prepend = steps[0] == {"type": "Prepend", "prepend": MARK}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    # There is no space left to split at. A token in normalized text would be there with marks.
    if steps[prepend:] != [marked] or words not in (None, split) or any(token["normalized"] for token in added):
        return None
    return Settings(MARKED, prepend, whole=False, normal=False)


def _expression(words: Mapping[str, Any]) -> int | None:
    """Which of the expressions finds words; None: another."""
    if words["type"] == "ByteLevel":
        return GPT2 if words.get("use_regex", True) else None
    split, of_bytes = words["pretokenizers"]
    if of_bytes["type"] != "ByteLevel" or of_bytes.get("use_regex", True) or of_bytes["add_prefix_space"]:
        return None
    if split["type"] != "Split" or split["behavior"] != "Isolated" or split["invert"]:
        return None
    return EXPRESSIONS.get(split["pattern"].get("Regex"))


@cache
def characters(cased: bool = False) -> npt.NDArray[np.uint8]:
    """Kind of each character, (KNOWN,). Those that Unicode 3.2 did not have, or had as another kind, are uncertain.

    `cased`: as Tekken's expression tells letters apart, to which marks are letters too; they are left uncertain.
    """
    characters = list(map(chr, range(KNOWN)))
    now = list(map(unicodedata.category, characters))
    then = list(map(unicodedata.ucd_3_2_0.category, characters))
    special = CASED if cased else {}
    kind_of = {category: special.get(category, KINDS.get(category[0], OTHER)) for category in {*now, *then}}
    kind_of["Cn"] = UNCERTAIN
    found = [
        kind_of[earlier] if kind_of[later] == kind_of[earlier] else UNCERTAIN
        for later, earlier in zip(now, then, strict=True)
    ]
    kinds = np.array(found, np.uint8)
    kinds[list(BLANKS)] = SPACE
    return kinds
