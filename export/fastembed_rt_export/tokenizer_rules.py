"""What transformers' tokenizer classes build anew, whatever tokenizer.json says: one row a class.

A class takes the vocabulary, and sentencepiece's map of characters, from tokenizer.json, and sets up the model, the
normalizer, the pre-tokenizer, mostly the special tokens around texts, and tokens that it takes for granted. Settings
of tokenizer_config.json are the arguments of that. As transformers 5.24 does it; see docs/tokenizers.md.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from .tokenizer_tokens import Token

Part = Any  # a normalizer or pre-tokenizer of the tokenizers library
Flags = Mapping[str, Any]  # of a model, beside its vocabulary


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


class Again(Enum):
    """Whether a class adds its special tokens a second time, and how."""

    NO = 0
    PLAIN = 1  # without the flags that they had
    KEPT = 2  # with those; and where the file has no template, none is left of the class's either


@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """One class. Templates have tokens by name in braces; `:1` is the type of what stands before it."""

    kind: str = ""  # of the model: WordPiece, BPE, Unigram; "": model, normalizer and pre-tokenizer stay the file's
    flags: Callable[[Given], Flags] = lambda _: {}
    normalizer: Callable[[Given], Part | None] = lambda _: None
    pre_tokenizer: Callable[[Given], Part | None] = lambda _: None
    named: Mapping[str, str] = field(default_factory=dict)  # special tokens where nothing is said
    mask: Flags | None = None  # of the mask token where it is said without flags
    extra: Callable[[Sequence[Token] | None, Given], Sequence[Token]] = lambda older, _: older or ()
    own: Mapping[str, str] = field(default_factory=dict)  # special tokens with names that only this class has
    ends: tuple[str, str] | None = None  # around a text, around two; None: the file's stay
    ends_without: tuple[str, str] | None = None  # the same, where the file has none
    ids: Mapping[str, int] = field(default_factory=dict)  # of tokens in the templates, whatever the vocabulary says
    again: Again = Again.NO


def _sequence(module: Any, *parts: Part) -> Part:
    return module.Sequence(list(parts))


def _replace(pattern: str, by: str) -> Part:
    return normalizers.Replace(Regex(pattern), by)


# --- WordPiece -------------------------------------------------------------------------------------------------------


def _bert(given: Given, *, clean: bool = True) -> Part:
    accents = given.settings.get("strip_accents")
    return normalizers.BertNormalizer(
        clean_text=clean,
        handle_chinese_chars=given.flag("tokenize_chinese_chars", True),
        strip_accents=None if accents is None else bool(accents),
        lowercase=given.flag("do_lower_case", True),
    )


def _bert_words(_: Given) -> Part:
    return pre_tokenizers.BertPreTokenizer()


def _unknown(given: Given) -> Flags:
    return {"unk_token": given.token("unk_token")}


def _names(**tokens: str) -> dict[str, str]:
    return {f"{name}_token": token for name, token in tokens.items()}


BRACKETS = _names(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
ANGLES = _names(bos="<s>", eos="</s>", unk="<unk>", sep="</s>", pad="<pad>", cls="<s>", mask="<mask>")
TYPED = ("{cls}:0 $A:0 {sep}:0", "{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")
PAIRED = ("{cls}:0 $A:0 {sep}:0", "{cls}:0 $A:0 {sep}:0 {sep}:0 $B:0 {sep}:0")
BOS_EOS = ("{bos}:0 $A:0 {eos}:0", "{bos}:0 $A:0 {eos}:0 {eos}:0 $B:0 {eos}:0")
_word_piece = partial(
    TokenizerClass, kind="WordPiece", flags=_unknown, normalizer=_bert, pre_tokenizer=_bert_words, named=BRACKETS
)

# --- byte-level BPE and its kin --------------------------------------------------------------------------------------

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _bytes(given: Given, *, prefix: bool = False) -> Part:
    return pre_tokenizers.ByteLevel(add_prefix_space=given.flag("add_prefix_space", prefix))


def _split_bytes(given: Given, pattern: str) -> Part:
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    prefix = given.flag("add_prefix_space", False)
    return _sequence(pre_tokenizers, words, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False))


def _clip_words(_: Given) -> Part:
    words = pre_tokenizers.Split(Regex(CLIP), behavior="removed", invert=True)
    return _sequence(pre_tokenizers, words, pre_tokenizers.ByteLevel(add_prefix_space=False))


def _digits(given: Given) -> Part:
    return _sequence(pre_tokenizers, pre_tokenizers.Digits(individual_digits=True), _bytes(given))


def _nfc(_: Given) -> Part:
    return normalizers.NFC()


_END = "<|endoftext|>"
_GPT = _names(bos=_END, eos=_END, unk=_END)
_byte_bpe = partial(TokenizerClass, kind="BPE", pre_tokenizer=_bytes)
_qwen = partial(
    TokenizerClass, kind="BPE", normalizer=_nfc, named={"eos_token": _END, "unk_token": _END, "pad_token": _END}
)

# --- sentencepiece ---------------------------------------------------------------------------------------------------


def _metaspace(given: Given) -> Part:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=given.prefix())


def _metaspace_always(_: Given) -> Part:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")


def _words(given: Given) -> Part:
    """Words without the white space between them, each with the sign of a space."""
    return _sequence(pre_tokenizers, pre_tokenizers.WhitespaceSplit(), _metaspace(given))


def _words_always(given: Given) -> Part:
    return _sequence(pre_tokenizers, pre_tokenizers.WhitespaceSplit(), _metaspace_always(given))


def _deberta_words(given: Given) -> Part:
    signs = [pre_tokenizers.Punctuation(behavior="isolated")] if given.flag("split_by_punct", False) else []
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=given.prefix(otherwise="first"))
    return _sequence(pre_tokenizers, *signs, spaces)


def _llama_words(given: Given) -> Part:
    """legacy, by default False: whether what follows a special token begins a word."""
    prefixed = given.settings.get("add_prefix_space") in (None, True)
    always = "always" if given.flag("legacy", False) else "first"
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=always if prefixed else "never", split=False)


def _gemma_words(_: Given) -> Part:
    return pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)


def _signs_for_spaces(_: Given) -> Part:
    return normalizers.Replace(" ", "▁")


def _characters(given: Given) -> Part | None:
    return next(iter(given.characters()), None)


def _quotes(given: Given, *, keeps_accents: bool, lowers: bool, spaces: bool = False) -> Part:
    """keep_accents and do_lower_case, with the class's own defaults."""
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [_replace(" {2,}", " ")] if spaces else []
    if not given.flag("keep_accents", keeps_accents):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if given.flag("do_lower_case", lowers) else []
    return _sequence(normalizers, *steps, *given.characters())


def _xlnet(given: Given) -> Part:
    return _quotes(  # which takes accents away whatever is said
        Given({**given.settings, "keep_accents": False}, given.body, given.named), keeps_accents=False, lowers=False
    )


def _spaces(given: Given, *, lowers: bool = False) -> Part:
    lower = [normalizers.Lowercase()] if lowers and given.flag("do_lower_case", False) else []
    end = normalizers.Strip(left=False, right=True)
    return _sequence(normalizers, *lower, _replace(r"\s{2,}|[\n\r\t]", " "), normalizers.NFC(), end)


def _single_spaces(given: Given, *, lines: bool = False) -> Part:
    first = given.characters() or ([_replace(r"\n", " ")] if lines else [])
    return _sequence(normalizers, *first, _replace(" {2,}", " "))


def _reformer(given: Given) -> Part | None:
    return _single_spaces(given) if given.characters() else None


def _big_bird(_: Given) -> Part:
    return _sequence(normalizers, normalizers.Strip(left=False, right=False), _replace(" {2,}", "▁"))


def _clip(_: Given) -> Part:
    return _sequence(normalizers, normalizers.NFC(), _replace(r"\s+", " "), normalizers.Lowercase())


def _sentinels(older: Sequence[Token] | None, given: Given) -> Sequence[Token]:
    """T5's <extra_id_0> and so on, `extra_ids` of them, unless the older list has some."""
    number = given.settings.get("extra_ids", 100)
    found = list(older or ())
    return found if any("<extra_id_" in str(token) for token in found) else [*found, *_numbered("<extra_id_{}>", number)]


def _numbered(pattern: str, end: int, start: int = 0) -> list[str]:
    return [pattern.format(number) for number in range(start, end)]


def _pegasus(older: Sequence[Token] | None, given: Given) -> Sequence[Token]:
    mask = given.settings.get("mask_token_sent", "<mask_1>")
    first = [] if mask is None or mask in map(str, older or ()) else [mask]
    return [*first, *_numbered("<unk_{}>", given.settings.get("offset", 103), 2)]


def _or(*tokens: str) -> Callable[[Sequence[Token] | None, Given], Sequence[Token]]:
    return lambda older, _: tokens if older is None else older


def _unigram(unknown: int) -> Callable[[Given], Flags]:
    return lambda _: {"unk_id": unknown}


def _deberta_unknown(given: Given) -> Flags:
    return {"unk_id": given.piece(given.settings.get("unk_id", 1), weightless=True)}


_pieces = partial(TokenizerClass, kind="Unigram")
_ALBERT = _names(
    bos="[CLS]", eos="[SEP]", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]"
)
_BEFORE = {"lstrip": True, "rstrip": False}  # takes the space before it along

CLASSES: Mapping[str, TokenizerClass] = {
    "Bert": _word_piece(ends=TYPED),
    "ConvBert": TokenizerClass(named=BRACKETS, ends=TYPED),
    "Splinter": _word_piece(
        own={"question_token": "[QUESTION]"},
        ends=(TYPED[0], "{cls}:0 $A:0 {question}:0 .:0 {sep}:0 $B:1 {sep}:1"),
    ),
    "MPNet": _word_piece(named={**ANGLES, "unk_token": "[UNK]"}, mask=_BEFORE, ends=PAIRED),
    "Funnel": _word_piece(
        normalizer=lambda given: _bert(given, clean=given.flag("clean_text", True)),
        named=_names(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>"),
        ends=("{cls}:2 $A:0 {sep}:0", "{cls}:2 $A:0 {sep}:0 $B:1 {sep}:1"),
    ),
    "Herbert": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "end_of_word_suffix": "</w>"},
        normalizer=lambda _: normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        pre_tokenizer=_bert_words,
        named={name: ANGLES[name] for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")},
        ends=TYPED,
        ids={"sep": 2, "cls": 0},
    ),
    "OpenAIGPT": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "end_of_word_suffix": "</w>"},
        normalizer=lambda _: normalizers.BertNormalizer(lowercase=True),
        pre_tokenizer=_bert_words,
        named={"unk_token": "<unk>"},
    ),
    "CLIP": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "end_of_word_suffix": "</w>"},
        normalizer=_clip,
        pre_tokenizer=_clip_words,
        named=_names(bos="<|startoftext|>", eos=_END, unk=_END, pad=_END),
        ends=BOS_EOS,
    ),
    "Roberta": _byte_bpe(named=ANGLES, ends=PAIRED),
    "Blenderbot": _byte_bpe(
        pre_tokenizer=partial(_bytes, prefix=True), named=ANGLES, mask={**_BEFORE, "normalized": False}
    ),
    "Deberta": _byte_bpe(named={**BRACKETS, **_names(bos="[CLS]", eos="[SEP]")}, ends=PAIRED),
    "GPT2": _byte_bpe(named=_GPT),
    "CodeGen": _byte_bpe(named=_GPT),
    "GPTNeoX": _byte_bpe(normalizer=_nfc, named={**_GPT, "pad_token": "<|padding|>"}, ends=("$A:0", "$A:0 $B:1")),
    "Cohere": _byte_bpe(
        normalizer=_nfc,
        pre_tokenizer=_digits,
        named=_names(
            **{"bos": "<BOS_TOKEN>", "eos": "<|END_OF_TURN_TOKEN|>", "unk": "<UNK>", "sep": "<SEP>", "pad": "<PAD>"},
            **{"cls": "<CLS>", "mask": "<MASK_TOKEN>"},
        ),
        again=Again.KEPT,
    ),
    "Qwen2": _qwen(pre_tokenizer=partial(_split_bytes, pattern=QWEN2), again=Again.PLAIN),
    "Qwen3_5": _qwen(pre_tokenizer=partial(_split_bytes, pattern=QWEN3_5)),
    "Llama": TokenizerClass(
        kind="BPE",
        flags=lambda _: {"fuse_unk": True, "byte_fallback": True},
        pre_tokenizer=_llama_words,
        named=_names(bos="<s>", eos="</s>", unk="<unk>"),
    ),
    "Gemma": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "fuse_unk": True, "byte_fallback": True},
        normalizer=_signs_for_spaces,
        pre_tokenizer=_gemma_words,
        named=_names(bos="<bos>", eos="<eos>", unk="<unk>", pad="<pad>", mask="<mask>"),
    ),
    "Reformer": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "fuse_unk": True},
        normalizer=_reformer,
        pre_tokenizer=_metaspace_always,
        named=_names(eos="</s>", unk="<unk>"),
        again=Again.KEPT,
    ),
    "XLMRoberta": _pieces(
        flags=_unigram(3), normalizer=_characters, pre_tokenizer=_words, named=ANGLES, ends=BOS_EOS
    ),
    "Camembert": _pieces(
        flags=lambda given: {"unk_id": given.piece(0)},
        normalizer=_characters,
        pre_tokenizer=_words,
        named=ANGLES,
        mask={"lstrip": True, "special": True},
        extra=_or("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
        ends=BOS_EOS,
    ),
    "T5": _pieces(
        flags=_unigram(2),
        normalizer=_characters,
        pre_tokenizer=_words_always,
        named=_names(eos="</s>", unk="<unk>", pad="<pad>"),
        extra=_sentinels,
        ends=("$A:0 {eos}:0", "$A:0 {eos}:0 $B:0 {eos}:0"),
    ),
    "Albert": _pieces(
        flags=_unigram(1),
        normalizer=partial(_quotes, keeps_accents=False, lowers=True),
        pre_tokenizer=_words,
        named=_ALBERT,
        ends_without=TYPED,
    ),
    "FNet": TokenizerClass(named=_ALBERT),
    "RemBert": _pieces(
        flags=_unigram(2),
        normalizer=partial(_quotes, keeps_accents=True, lowers=False, spaces=True),
        pre_tokenizer=_metaspace,
        named=_ALBERT,
        ends=TYPED,
        again=Again.KEPT,
    ),
    "XLNet": _pieces(
        flags=lambda given: {"unk_id": given.settings.get("unk_id", 0)},
        normalizer=_xlnet,
        pre_tokenizer=_words_always,
        named=_names(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>"),
        mask=_BEFORE,
        extra=_or("<eop>", "<eod>"),
        ends=("$A:0 {sep}:0 {cls}:2", "$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2"),
    ),
    "DebertaV2": _pieces(
        flags=_deberta_unknown,
        normalizer=partial(_spaces, lowers=True),
        pre_tokenizer=_deberta_words,
        named={**BRACKETS, **_names(bos="[CLS]", eos="[SEP]")},
        ends=TYPED,
    ),
    "BigBird": _pieces(
        flags=lambda given: {"unk_id": given.piece(100, weightless=True)},
        normalizer=_big_bird,
        pre_tokenizer=_metaspace,
        named={**ANGLES, **_names(sep="[SEP]", cls="[CLS]", mask="[MASK]")},
        mask=_BEFORE,
        ends=TYPED,
    ),
    "Barthez": _pieces(
        flags=_unigram(3), normalizer=_spaces, pre_tokenizer=_metaspace, named=ANGLES, mask=_BEFORE
    ),
    "XGLM": _pieces(
        flags=_unigram(3),
        normalizer=_single_spaces,
        pre_tokenizer=_metaspace,
        named={name: token for name, token in ANGLES.items() if name != "mask_token"},
        extra=lambda older, _: [
            *(older or ()),
            *(word for word in _numbered("<madeupword{}>", 7) if word not in map(str, older or ())),
        ],
        ends=("{eos}:0 $A:0", "{eos}:0 $A:0 {eos}:0 {eos}:0 $B:0"),
    ),
    "Pegasus": _pieces(
        flags=lambda given: {"unk_id": given.piece(1, weightless=True, start=1)},
        normalizer=partial(_single_spaces, lines=True),
        pre_tokenizer=_metaspace_always,
        named=_names(eos="</s>", unk="<unk>", pad="<pad>", mask="<mask_2>"),
        extra=_pegasus,
        ends=("$A:0 {eos}:0", "$A:0 $B:0 {eos}:0"),
    ),
}
