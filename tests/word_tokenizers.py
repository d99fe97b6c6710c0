"""Tokenizers that work within words, trained ones and real ones, and long texts of everything that is hard for them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints import WORDS
from tokenizer_texts import DATA, nasty_texts, some_texts
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from fastembed_rt.text import caps

REAL = Path(os.environ.get("FASTEMBED_RT_REAL", "."))
PIECES = 400


def made(model: Any, trainer: Any, splits: Any, normalizer: Any = None) -> Tokenizer:
    """A tokenizer trained on some words, numbers and signs."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splits
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    chance = random.Random(1)
    words = [*WORDS, "don't", "1999", "12", "über", "naïve", "a.b", "猫", "x"]
    tokenizer.train_from_iterator([" ".join(chance.choices(words, k=12)) for _ in range(300)], trainer)
    return tokenizer


def byte_level() -> Any:
    return trainers.BpeTrainer(
        vocab_size=PIECES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )


def split(pattern: str) -> Any:
    pieces = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


TRAINED: dict[str, Callable[[], Tokenizer]] = {
    "BERT": lambda: made(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=["[UNK]"], show_progress=False),
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(),
    ),
    "GPT-2": lambda: made(models.BPE(), byte_level(), pre_tokenizers.ByteLevel()),
    "GPT-4": lambda: made(models.BPE(), byte_level(), split(caps.WORDS[0])),
    "Qwen 2": lambda: made(models.BPE(), byte_level(), split(caps.WORDS[1]), normalizers.NFC()),
    "sentencepiece": lambda: made(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=PIECES, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
        pre_tokenizers.Metaspace(),
        normalizers.NFKC(),
    ),
    "ALBERT": lambda: made(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=PIECES, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
        pre_tokenizers.Metaspace(),
        normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents()]),
    ),
    "words": lambda: made(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=PIECES, special_tokens=["<unk>"], show_progress=False),
        pre_tokenizers.Whitespace(),
        normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
    ),
}
FILES = [*sorted(DATA.glob("tokenizers/*/tokenizer.json")), *sorted(REAL.glob("*/tokenizer.json"))]
UNSAFE = {"phi-2"}  # added tokens of several spaces


@cache
def long_texts() -> list[str]:
    """Long ones of everything that is hard, joined by all kinds of gaps."""
    chance = random.Random(2)
    hard = nasty_texts() + (some_texts()[::7] if (DATA / "texts").is_dir() else [])
    rows = [_chinese(chance) for _ in range(30)]
    for _ in range(60):
        parts = [chance.choice(hard if chance.random() < 0.7 else WORDS) for _ in range(40)]
        rows.append("".join(part + chance.choice([" ", " ", "  ", "\n", "", " 7 ", " a "]) for part in parts))
    return rows


def _chinese(chance: random.Random) -> str:
    """Letters without a blank between them, and what stands between sentences."""
    letters = "\u732b\u72d7\u4e2d\u65b0\u3042\u304b\u3099\u30ab\u30fc\uac00x9"  # kana with a voicing mark among them
    stops = ["\u3002", "\uff0c", "\u3001", "\uff1f", "\uff01", "\uff1a", "\uff1b", "\u3002\u300d", "\uff0c9", "\u2026"]
    parts = ["".join(chance.choices(letters, k=chance.randint(1, 12))) + chance.choice(stops) for _ in range(40)]
    return "".join(parts)
