"""What transformers' tokenizer classes build anew, whatever tokenizer.json says: one row a class.

A class takes the vocabulary, and sentencepiece's map of characters, from tokenizer.json, and sets up the model, the
normalizer, the pre-tokenizer, mostly the special tokens around texts, and tokens that it takes for granted. Settings
of tokenizer_config.json are the arguments of that. As transformers 5.24 does it; see docs/tokenizers.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from tokenizers import normalizers

from . import parts
from .added_tokens import Token
from .parts import Given, Part

Flags = Mapping[str, Any]  # of a model, beside its vocabulary


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
    TokenizerClass,
    kind="WordPiece",
    flags=_unknown,
    normalizer=parts.bert_normalizer,
    pre_tokenizer=parts.bert_words,
    named=BRACKETS,
)

_END = "<|endoftext|>"
_GPT = _names(bos=_END, eos=_END, unk=_END)
_byte_bpe = partial(TokenizerClass, kind="BPE", pre_tokenizer=parts.byte_level)
_qwen = partial(
    TokenizerClass, kind="BPE", normalizer=parts.nfc, named={"eos_token": _END, "unk_token": _END, "pad_token": _END}
)


def _sentinels(older: Sequence[Token] | None, given: Given) -> Sequence[Token]:
    """T5's <extra_id_0> and so on, `extra_ids` of them, unless the older list has some."""
    number = given.settings.get("extra_ids", 100)
    found = list(older or ())
    some = any("<extra_id_" in str(token) for token in found)
    return found if some else [*found, *_numbered("<extra_id_{}>", number)]


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
_ALBERT = _names(bos="[CLS]", eos="[SEP]", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]")
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
        normalizer=lambda given: parts.bert_normalizer(given, clean=given.flag("clean_text", True)),
        named=_names(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>"),
        ends=("{cls}:2 $A:0 {sep}:0", "{cls}:2 $A:0 {sep}:0 $B:1 {sep}:1"),
    ),
    "Herbert": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "end_of_word_suffix": "</w>"},
        normalizer=lambda _: normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        pre_tokenizer=parts.bert_words,
        named={name: ANGLES[name] for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")},
        ends=TYPED,
        ids={"sep": 2, "cls": 0},
    ),
    "OpenAIGPT": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "end_of_word_suffix": "</w>"},
        normalizer=lambda _: normalizers.BertNormalizer(lowercase=True),
        pre_tokenizer=parts.bert_words,
        named={"unk_token": "<unk>"},
    ),
    "CLIP": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "end_of_word_suffix": "</w>"},
        normalizer=parts.clip,
        pre_tokenizer=parts.clip_words,
        named=_names(bos="<|startoftext|>", eos=_END, unk=_END, pad=_END),
        ends=BOS_EOS,
    ),
    "Roberta": _byte_bpe(named=ANGLES, ends=PAIRED),
    "Blenderbot": _byte_bpe(
        pre_tokenizer=partial(parts.byte_level, prefix=True), named=ANGLES, mask={**_BEFORE, "normalized": False}
    ),
    "Deberta": _byte_bpe(named={**BRACKETS, **_names(bos="[CLS]", eos="[SEP]")}, ends=PAIRED),
    "GPT2": _byte_bpe(named=_GPT),
    "CodeGen": _byte_bpe(named=_GPT),
    "GPTNeoX": _byte_bpe(normalizer=parts.nfc, named={**_GPT, "pad_token": "<|padding|>"}, ends=("$A:0", "$A:0 $B:1")),
    "Cohere": _byte_bpe(
        normalizer=parts.nfc,
        pre_tokenizer=parts.digits,
        named=_names(
            **{"bos": "<BOS_TOKEN>", "eos": "<|END_OF_TURN_TOKEN|>", "unk": "<UNK>", "sep": "<SEP>", "pad": "<PAD>"},
            **{"cls": "<CLS>", "mask": "<MASK_TOKEN>"},
        ),
        again=Again.KEPT,
    ),
    "Qwen2": _qwen(pre_tokenizer=partial(parts.split_bytes, pattern=parts.QWEN2), again=Again.PLAIN),
    "Qwen3_5": _qwen(pre_tokenizer=partial(parts.split_bytes, pattern=parts.QWEN3_5)),
    "Llama": TokenizerClass(
        kind="BPE",
        flags=lambda _: {"fuse_unk": True, "byte_fallback": True},
        pre_tokenizer=parts.llama_words,
        named=_names(bos="<s>", eos="</s>", unk="<unk>"),
    ),
    "Gemma": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "fuse_unk": True, "byte_fallback": True},
        normalizer=parts.signs_for_spaces,
        pre_tokenizer=parts.gemma_words,
        named=_names(bos="<bos>", eos="<eos>", unk="<unk>", pad="<pad>", mask="<mask>"),
    ),
    "Reformer": TokenizerClass(
        kind="BPE",
        flags=lambda given: {**_unknown(given), "fuse_unk": True},
        normalizer=parts.reformer,
        pre_tokenizer=parts.metaspace_always,
        named=_names(eos="</s>", unk="<unk>"),
        again=Again.KEPT,
    ),
    "XLMRoberta": _pieces(
        flags=_unigram(3), normalizer=parts.characters, pre_tokenizer=parts.words, named=ANGLES, ends=BOS_EOS
    ),
    "Camembert": _pieces(
        flags=lambda given: {"unk_id": given.piece(0)},
        normalizer=parts.characters,
        pre_tokenizer=parts.words,
        named=ANGLES,
        mask={"lstrip": True, "special": True},
        extra=_or("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
        ends=BOS_EOS,
    ),
    "T5": _pieces(
        flags=_unigram(2),
        normalizer=parts.characters,
        pre_tokenizer=parts.words_always,
        named=_names(eos="</s>", unk="<unk>", pad="<pad>"),
        extra=_sentinels,
        ends=("$A:0 {eos}:0", "$A:0 {eos}:0 $B:0 {eos}:0"),
    ),
    "Albert": _pieces(
        flags=_unigram(1),
        normalizer=partial(parts.quotes, keeps_accents=False, lowers=True),
        pre_tokenizer=parts.words,
        named=_ALBERT,
        ends_without=TYPED,
    ),
    "FNet": TokenizerClass(named=_ALBERT),
    "RemBert": _pieces(
        flags=_unigram(2),
        normalizer=partial(parts.quotes, keeps_accents=True, lowers=False, spaces=True),
        pre_tokenizer=parts.metaspace,
        named=_ALBERT,
        ends=TYPED,
        again=Again.KEPT,
    ),
    "XLNet": _pieces(
        flags=lambda given: {"unk_id": given.settings.get("unk_id", 0)},
        normalizer=parts.xlnet,
        pre_tokenizer=parts.words_always,
        named=_names(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>"),
        mask=_BEFORE,
        extra=_or("<eop>", "<eod>"),
        ends=("$A:0 {sep}:0 {cls}:2", "$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2"),
    ),
    "DebertaV2": _pieces(
        flags=_deberta_unknown,
        normalizer=partial(parts.spaces, lowers=True),
        pre_tokenizer=parts.deberta_words,
        named={**BRACKETS, **_names(bos="[CLS]", eos="[SEP]")},
        ends=TYPED,
    ),
    "BigBird": _pieces(
        flags=lambda given: {"unk_id": given.piece(100, weightless=True)},
        normalizer=parts.big_bird,
        pre_tokenizer=parts.metaspace,
        named={**ANGLES, **_names(sep="[SEP]", cls="[CLS]", mask="[MASK]")},
        mask=_BEFORE,
        ends=TYPED,
    ),
    "Barthez": _pieces(
        flags=_unigram(3), normalizer=parts.spaces, pre_tokenizer=parts.metaspace, named=ANGLES, mask=_BEFORE
    ),
    "XGLM": _pieces(
        flags=_unigram(3),
        normalizer=parts.single_spaces,
        pre_tokenizer=parts.metaspace,
        named={name: token for name, token in ANGLES.items() if name != "mask_token"},
        extra=lambda older, _: [
            *(older or ()),
            *(word for word in _numbered("<madeupword{}>", 7) if word not in map(str, older or ())),
        ],
        ends=("{eos}:0 $A:0", "{eos}:0 $A:0 {eos}:0 {eos}:0 $B:0"),
    ),
    "Pegasus": _pieces(
        flags=lambda given: {"unk_id": given.piece(1, weightless=True, start=1)},
        normalizer=partial(parts.single_spaces, lines=True),
        pre_tokenizer=parts.metaspace_always,
        named=_names(eos="</s>", unk="<unk>", pad="<pad>", mask="<mask_2>"),
        extra=_pegasus,
        ends=("$A:0 {eos}:0", "$A:0 $B:0 {eos}:0"),
    ),
}
