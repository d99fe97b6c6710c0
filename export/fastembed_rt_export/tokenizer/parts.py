"""Normalizers and pre-tokenizers that transformers' tokenizer classes make, from their settings.

Facts of transformers 5.24. A class's row in `tokenizer_rules` says which of them are its own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from .added_tokens import Token

Part = Any  # a normalizer or pre-tokenizer of the tokenizers library


@dataclass(frozen=True)
class Given:
    """What a class's rules read."""

    settings: Mapping[str, Any]
    body: Mapping[str, Any]  # tokenizer.json
    named: Mapping[str, Token]

    def flag(self, name: str, default: bool) -> bool:
        """A setting that is true or false."""
        return bool(self.settings.get(name, default))

    def prefix(self, default: str = "always", otherwise: str = "never") -> str:
        """Where the sign of a space is put in front: what add_prefix_space, by default True, comes to."""
        return default if self.flag("add_prefix_space", True) else otherwise

    def token(self, name: str) -> str:
        """Text of a special token."""
        return str(self.named.get(name))

    def characters(self) -> list[Part]:
        """sentencepiece's own map of characters, where tokenizer.json has one."""
        body = self.body.get("normalizer") or {}
        parts = body["normalizers"] if body.get("type") == "Sequence" else [body]
        found = [part["precompiled_charsmap"] for part in parts if part.get("type") == "Precompiled"]
        return [normalizers.Precompiled(base64.b64decode(found[0]))] if found else []

    def piece(self, missing: int, *, weightless: bool = False, start: int = 0) -> int:
        """Number of the unknown token among the pieces; `weightless`: only where its score is 0."""
        pieces = self.body["model"].get("vocab") or []
        for number, (piece, score) in enumerate(pieces):
            if number >= start and piece == self.token("unk_token") and not (weightless and score):
                return number
        return missing


def sequence(module: Any, *parts: Part) -> Part:
    """Several parts as one."""
    return module.Sequence(list(parts))


def replace(pattern: str, by: str) -> Part:
    """What a pattern finds becomes `by`."""
    return normalizers.Replace(Regex(pattern), by)


# --- WordPiece -------------------------------------------------------------------------------------------------------


def bert_normalizer(given: Given, *, clean: bool = True) -> Part:
    """What BERT does to letters, as do_lower_case, strip_accents and tokenize_chinese_chars say."""
    accents = given.settings.get("strip_accents")
    return normalizers.BertNormalizer(
        clean_text=clean,
        handle_chinese_chars=given.flag("tokenize_chinese_chars", True),
        strip_accents=None if accents is None else bool(accents),
        lowercase=given.flag("do_lower_case", True),
    )


def bert_words(_: Given) -> Part:
    """Words and signs of punctuation."""
    return pre_tokenizers.BertPreTokenizer()


# --- byte-level BPE and its kin --------------------------------------------------------------------------------------

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_level(given: Given, *, prefix: bool = False) -> Part:
    """GPT-2's words, as bytes; add_prefix_space: whether a text begins with a space."""
    return pre_tokenizers.ByteLevel(add_prefix_space=given.flag("add_prefix_space", prefix))


def split_bytes(given: Given, pattern: str) -> Part:
    """The same for words of another pattern."""
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    prefix = given.flag("add_prefix_space", False)
    return sequence(pre_tokenizers, words, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False))


def clip_words(_: Given) -> Part:
    """CLIP's words, without the white space between them."""
    words = pre_tokenizers.Split(Regex(CLIP), behavior="removed", invert=True)
    return sequence(pre_tokenizers, words, pre_tokenizers.ByteLevel(add_prefix_space=False))


def digits(given: Given) -> Part:
    """Each digit by itself."""
    return sequence(pre_tokenizers, pre_tokenizers.Digits(individual_digits=True), byte_level(given))


def nfc(_: Given) -> Part:
    """Composed characters."""
    return normalizers.NFC()


# --- sentencepiece ---------------------------------------------------------------------------------------------------


def metaspace(given: Given) -> Part:
    """The sign of a space in front of words, as add_prefix_space says."""
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=given.prefix())


def metaspace_always(_: Given) -> Part:
    """The same, whatever is said."""
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")


def words(given: Given) -> Part:
    """Words without the white space between them, each with the sign of a space."""
    return sequence(pre_tokenizers, pre_tokenizers.WhitespaceSplit(), metaspace(given))


def words_always(given: Given) -> Part:
    """The same, whatever add_prefix_space says."""
    return sequence(pre_tokenizers, pre_tokenizers.WhitespaceSplit(), metaspace_always(given))


def deberta_words(given: Given) -> Part:
    """split_by_punct, by default False: whether punctuation stands apart."""
    signs = [pre_tokenizers.Punctuation(behavior="isolated")] if given.flag("split_by_punct", False) else []
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=given.prefix(otherwise="first"))
    return sequence(pre_tokenizers, *signs, spaces)


def llama_words(given: Given) -> Part:
    """legacy, by default False: whether what follows a special token begins a word."""
    prefixed = given.settings.get("add_prefix_space") in (None, True)
    always = "always" if given.flag("legacy", False) else "first"
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=always if prefixed else "never", split=False)


def gemma_words(_: Given) -> Part:
    """Words with the spaces behind them, of which none are left: see `signs_for_spaces`."""
    return pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)


def signs_for_spaces(_: Given) -> Part:
    """The sign of a space in place of each."""
    return normalizers.Replace(" ", "▁")


def characters(given: Given) -> Part | None:
    """sentencepiece's own map of characters alone."""
    return next(iter(given.characters()), None)


def quotes(given: Given, *, keeps_accents: bool, lowers: bool, spaces: bool = False) -> Part:
    """keep_accents and do_lower_case, with the class's own defaults."""
    steps: list[Part] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [replace(" {2,}", " ")] if spaces else []
    if not given.flag("keep_accents", keeps_accents):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if given.flag("do_lower_case", lowers) else []
    return sequence(normalizers, *steps, *given.characters())


def xlnet(given: Given) -> Part:
    """The same without accents, whatever keep_accents says."""
    return quotes(  # which takes accents away whatever is said
        Given({**given.settings, "keep_accents": False}, given.body, given.named), keeps_accents=False, lowers=False
    )


def spaces(given: Given, *, lowers: bool = False) -> Part:
    """One space where there are several or a line ends, none at the end; `lowers`: do_lower_case counts."""
    lower = [normalizers.Lowercase()] if lowers and given.flag("do_lower_case", False) else []
    end = normalizers.Strip(left=False, right=True)
    return sequence(normalizers, *lower, replace(r"\s{2,}|[\n\r\t]", " "), normalizers.NFC(), end)


def single_spaces(given: Given, *, lines: bool = False) -> Part:
    """One space where there are several; `lines`: also for the end of a line, where there is no map of characters."""
    first = given.characters() or ([replace(r"\n", " ")] if lines else [])
    return sequence(normalizers, *first, replace(" {2,}", " "))


def reformer(given: Given) -> Part | None:
    """The same, where tokenizer.json has a map of characters."""
    return single_spaces(given) if given.characters() else None


def big_bird(_: Given) -> Part:
    """The sign of a space where there are several spaces."""
    return sequence(normalizers, normalizers.Strip(left=False, right=False), replace(" {2,}", "▁"))


def clip(_: Given) -> Part:
    """Composed, one space where there are several, lower case."""
    return sequence(normalizers, normalizers.NFC(), replace(r"\s+", " "), normalizers.Lowercase())
