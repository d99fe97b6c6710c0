"""Token ids of SentencePiece's unigram models, in C (native/src/unigram.c): XLM-RoBERTa's, T5's, DeBERTa's (v2, v3),
ALBERT's, XLNet's and their kin.

The Rust library takes .6 seconds and 290 MB for a vocabulary of 250,000 pieces, before it has read a text
(`python -m benchmarks.inside.tokenizers`).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import native
from .quick import Around, Described, Quick, added_of, around, at, or_none, read

if TYPE_CHECKING:
    from .folding import Folded

MARK = "\u2581"  # what words begin with
SPACES = " {2,}"
BLANKS = r"\s{2,}|[\n\r\t]"
APART, COLLAPSE, STRIP, GATHER, TRIM = 1, 2, 4, 8, 16  # what is done about blanks, as in the C source
QUOTES = tuple({"type": "Replace", "pattern": {"String": sign * 2}, "content": '"'} for sign in "`'")
PLAIN = [{"type": "NFKD"}, {"type": "StripAccents"}]
LOWER = {"type": "Lowercase"}
SIGNS = re.compile(r"[!#-&(-/:-@\[-^{-~][!-~]*")  # the first of them is a sign that no normalizer changes
IN_NORMALIZED = -2  # instead of an added token's id, as in the C source
GATHERED = [
    {"type": "Replace", "pattern": {"Regex": BLANKS}, "content": " "},
    {"type": "NFC"},
    {"type": "Strip", "strip_left": False, "strip_right": True},
]


class Unigram(Quick):
    """One vocabulary. Safe to use from several threads."""

    per_byte, beside = 2, 16  # as the C source: a text's first mark is a token, and characters may become several


class Normal(Unigram):
    """One whose texts are brought into Unicode's form C; those that are not in it are the library's."""

    normal = True


class Settings(NamedTuple):
    """What is done to texts before their words are cut."""

    table: bytes = b""  # a double array, and what characters are replaced by
    folded: Folded | None = None  # what they are before that
    quotes: bool = False  # two marks of quotation are one sign before that
    blanks: int = 0
    normal: bool = False  # they are in form C


def unigram(content: bytes) -> Quick | None:
    """What does a tokenizer.json's work for nearly all texts; None where the library has to do all of it."""
    functions = native.unigram()
    if functions is None:
        return None

    def make() -> Quick | None:
        found = read(content, functions, b"[]", 6, np.float64)
        if found is None:
            return None
        settings, special = settings_of(found.rest), around(found.rest["post_processor"])
        return None if settings is None or special is None else _made(functions, found, settings, special)

    return or_none(make)


def _made(
    functions: native.TokenizerFunctions, found: Described, settings: Settings, special: Around
) -> Unigram | None:
    size = int.from_bytes(settings.table[:4], "little")
    units, written = settings.table[4 : 4 + size], settings.table[4 + size :]
    added = added_of(found.rest)
    added.ids[[token.get("normalized", True) for token in found.rest["added_tokens"]]] = IN_NORMALIZED
    fits = np.zeros(1, np.int32)
    made = functions.new(
        at(found.data),
        at(found.lengths),
        at(found.values),
        len(found.values),
        added.data,
        at(added.lengths),
        at(added.ids),
        len(added.ids),
        found.rest["model"]["unk_id"],
        units,
        len(units) // 4,
        written,
        len(written),
        None if settings.folded is None else settings.folded.data,
        None if settings.folded is None else at(settings.folded.starts),
        settings.quotes,
        settings.blanks,
        at(fits),
    )
    tokenizer = (Normal if settings.normal else Unigram)(functions, made, special)
    return tokenizer if fits[0] else None


def settings_of(described: Mapping[str, Any]) -> Settings | None:
    """Of a tokenizer.json, vocabulary aside; None where it is of another kind."""
    model, words = described["model"], described["pre_tokenizer"]
    known = {"type", "unk_id", "vocab", "byte_fallback"}
    if not set(model) <= known or model.get("type", "Unigram") != "Unigram" or model.get("byte_fallback"):
        return None
    if type(model["unk_id"]) is not int or not all(map(_can_be_known, described["added_tokens"])):
        return None
    splits = words["pretokenizers"] if words["type"] == "Sequence" else [words]
    apart = splits[0] == {"type": "WhitespaceSplit"}
    if len(splits) != 1 + apart or not _is_plain(splits[-1]):
        return None
    steps = _steps(described["normalizer"])
    if steps == GATHERED and not apart:
        return Settings(blanks=GATHER, normal=True)
    quotes = tuple(steps[:2]) == QUOTES
    # Of two marks one might be the token's.
    if quotes and any(token["content"][0] in "`'" for token in described["added_tokens"]):
        return None
    steps = steps[2 * quotes :]
    plain, lower = steps[:2] == PLAIN, steps[2:3] == [LOWER]
    lower &= plain
    found = _replacing(steps[2 * plain + lower :], apart, trims=not quotes and not plain)
    return found and found._replace(folded=_folded(lower) if plain else None, quotes=quotes)


def _folded(lower: bool) -> Folded:
    from .folding import folded  # milliseconds that most vocabularies need not wait for

    return folded(lower)


def _can_be_known(token: Mapping[str, Any]) -> bool:
    """Whether it is certain that texts without an added token have none, whatever is done to their characters.

    One that is looked for behind that may be there in other characters than its own, but not without its first one.
    """
    return not token.get("normalized", True) or SIGNS.fullmatch(token["content"]) is not None


def _steps(normalizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if normalizer is None:
        return []
    return list(normalizer["normalizers"]) if normalizer["type"] == "Sequence" else [normalizer]


def _is_plain(words: Mapping[str, Any]) -> bool:
    """Whether words begin with the mark, each and the first."""
    return bool(
        words["type"] == "Metaspace"
        and words["replacement"] == MARK
        and words.get("prepend_scheme", "always") == "always"
        and words.get("add_prefix_space", True)
        and words.get("split", True)
    )


def _replacing(steps: Sequence[Mapping[str, Any]], apart: bool, *, trims: bool) -> Settings | None:
    """What sentencepiece's own normalizer does; `trims`: blanks around a text may be left out before that."""
    table, collapse, strip = b"", False, False
    trim = trims and not apart and tuple(steps[:1]) == ({"type": "Strip", "strip_left": True, "strip_right": True},)
    for number, step in enumerate(steps[trim:]):
        kind = step["type"]
        if kind == "Precompiled" and number == 0:
            table = binascii.a2b_base64(step["precompiled_charsmap"], strict_mode=True)
        elif (
            kind == "Replace"
            and step["pattern"] == {"Regex": SPACES}
            and step["content"] in (" ", *(() if apart else MARK))
        ):
            collapse = True
        # Spaces at the end are one before this step, and none behind it.
        elif kind == "Strip" and not step["strip_left"] and not collapse:
            strip = step["strip_right"]
        else:
            return None
    blanks = APART if apart else collapse * COLLAPSE | bool(strip) * STRIP | trim * TRIM
    return Settings(table, blanks=blanks)
