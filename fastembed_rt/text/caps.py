"""Long texts are cut before they are tokenized, where the rest could not change a token that is kept.

A model reads the first max_length tokens of a text. Those are the tokens of the text's beginning too, if

- the tokenizer works within words: its first step splits at white space (or its regular expression is one that is
  known never to reach over the gap between two words), and what it does before that changes no more than a letter and
  what is joined to it;
- the cut is where one space stands between two letters or digits, which no step joins over it; or, for tokenizers that
  split at punctuation too, between a letter and a full stop, comma and the like of Chinese or Japanese;
- the beginning has max_length tokens by itself. That is looked at after the fact (see `TextTokenizer`).

Tokenizers and texts for which this is not sure are left whole. tests/runtime/text/test_caps.py compares ids.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

LETTERS_A_TOKEN = 32  # at least: most texts have four or five, so that the beginning nearly always is enough
GAP = re.compile(r"(?<=[^\W_]) (?=[^\W_])")
STOPS = "\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"  # 、。！，：；？
# Of a tokenizer, beside its model and what was added to its vocabulary.
STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
METASPACE = "\u2581"  # which Metaspace splits at
SEARCHED = 4096  # characters in which a gap is looked for; text without one has no words of this kind

# Normalizers that change no more than a letter and what is joined to it.
LOCAL = {
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "StripAccents",
    "Strip",
    "Precompiled",
    "Nmt",
    "Prepend",
}
# Pre-tokenizers that split at white space, so that no token has letters of two words.
SPLITTING = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace"}
ONLY_AT_SPACE = {"WhitespaceSplit", "Metaspace"}  # a comma and the letter before it may be one token
WITHOUT_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}  # how many there are is the same to them
HARMLESS = {"Digits", "Punctuation"}  # pre-tokenizers that take no white space away and join nothing
# Regular expressions of GPT-2 and its successors: a word takes the space before it and nothing of the word before that.
_WORD, _REST = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
WORDS = tuple(_WORD + digits + _REST for digits in (r"\p{N}{1,3}", r"\p{N}"))


def long_from(max_length: int) -> int:
    """Characters up to which texts are left whole."""
    return LETTERS_A_TOKEN * max_length + SEARCHED


def settings_of(tokenizer: Any) -> dict[str, Any]:
    """What its tokenizer.json says beside the vocabulary: each step, None where there is none, and the added tokens."""
    found = {step: getattr(tokenizer, step) for step in STEPS}
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    described = {step: None if made is None else json.loads(made.__getstate__()) for step, made in found.items()}
    return {**described, "added_tokens": [{"id": number, "content": token.content} for number, token in added]}


def cutter(settings: Mapping[str, Any], max_length: int) -> Callable[[str], str] | None:
    """A function that gives a text's beginning, or the text itself; None for a tokenizer of which it is not sure.

    `settings` are a tokenizer.json's.
    """
    if not works_within_words(settings):
        return None
    most, least = LETTERS_A_TOKEN * max_length, long_from(max_length)
    gaps = gaps_of(settings)

    def shorten(text: str) -> str:
        if len(text) <= least:
            return text
        gap = gaps.search(text, most, most + SEARCHED)
        return text if gap is None else text[: gap.start()]

    return shorten


def works_within_words(settings: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json says so: see the top of this module."""
    added = (token["content"] for token in settings.get("added_tokens") or ())
    if any(letter.isspace() or letter == METASPACE for content in added for letter in content):
        return False  # it may stand across a gap
    # Unigram, BPE and WordPiece see one piece after the other; what splits stands before them.
    for step in steps(settings.get("pre_tokenizer"), "pretokenizers"):
        if _splits(step):
            return all(_is_local(each, step["type"]) for each in steps(settings.get("normalizer"), "normalizers"))
        if step["type"] not in HARMLESS:
            return False
    return False


@cache
def at_stops() -> re.Pattern[str]:
    """A gap, or the place before a stop, behind Han and kana that no normalizer takes apart.

    What stands behind a letter's mark would be joined to that.
    """
    kana = map(chr, range(0x3041, 0x30FD))
    plain = "".join(sign for sign in kana if sign.isalpha() and unicodedata.normalize("NFKD", sign) == sign)
    return re.compile(rf"{GAP.pattern}|(?<=[{plain}\u3400-\u4dbf\u4e00-\u9fff])(?=[{STOPS}])")


def gaps_of(settings: Mapping[str, Any]) -> re.Pattern[str]:
    """Where the texts of a tokenizer that works within words may be cut."""
    found = steps(settings.get("pre_tokenizer"), "pretokenizers")
    normalizers = steps(settings.get("normalizer"), "normalizers")
    splits_at_stops = _splits(found[0]) and any(_splits(step) and step["type"] not in ONLY_AT_SPACE for step in found)
    if any(map(_spaces_out, normalizers)):  # a stop behind Han is no longer the same word's
        splits_at_stops = splits_at_stops and found[0]["type"] not in ONLY_AT_SPACE
    replaced = (step for step in normalizers if step["type"] == "Replace")
    joined = [token["content"] for token in settings.get("added_tokens") or () if len(token["content"]) > 1]
    joined += [step["pattern"].get("String", "") for step in replaced]
    stops = set(STOPS + unicodedata.normalize("NFKC", STOPS))
    return at_stops() if splits_at_stops and not any(stops & set(content) for content in joined) else GAP


def steps(step: Any, inner: str) -> list[Mapping[str, Any]]:
    """Of a part of a tokenizer.json: one, those of a Sequence, which lie under `inner`, or none."""
    if not step:
        return []
    if step.get("type") == "Sequence":
        return [found for each in step[inner] for found in steps(each, inner)]
    return [step]


def _is_local(step: Mapping[str, Any], splits: str) -> bool:
    """Whether a normalizer leaves a gap between words, where `splits` is the type of what splits behind it."""
    if step["type"] == "BertNormalizer":
        return splits in WITHOUT_SPACES or not _spaces_out(step)
    if step["type"] == "Replace":
        pattern, content = step["pattern"], step["content"]
        string = pattern.get("String", "")
        # Letters within a word, or several spaces for one: nothing that looks beyond a gap, and the gap stays.
        if string and not any(letter.isspace() for letter in string + content):
            return bool(content) or not any(map(str.isalnum, string))  # of a word nothing might be left
        if len(string) != 1 and pattern.get("Regex") not in (" {2,}", r"\s+", "[ ]{2,}"):
            return False
        if content == METASPACE:  # no space to other pre-tokenizers; a gap is one space
            return splits == "Metaspace" or (string != " " and pattern.get("Regex") != r"\s+")
        return not (string or " ").isspace() or content.isspace()
    return step["type"] in LOCAL


def _spaces_out(step: Mapping[str, Any]) -> bool:
    """Whether it puts spaces around Han."""
    return step["type"] == "BertNormalizer" and step.get("handle_chinese_chars") is not False


def _splits(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Metaspace":
        return bool(step.get("split", True))
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True))
    if step["type"] == "Split":
        return step["pattern"].get("Regex") in WORDS and step.get("behavior") == "Isolated" and not step.get("invert")
    return step["type"] in SPLITTING
