"""Texts to calibrate on: those that ship with the package or the user's, and what any model meets sooner or later.

Ranges have to hold for every kind of text, not for the average one: a word repeated to the limit, one punctuation mark,
nothing at all. `degenerate_texts` are such; `long_texts` reach every position.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from ..errors import InvalidInputError

# Of texts as long as the model reads, in all and of the longest. Attention in float takes the square of a length: with
# 12 heads 0.4 CPU seconds and 230 MB a layer at 2,048 tokens, 6.5 seconds and 3.5 GB at 8,192.
LONG_TOKENS = 2_048
ENOUGH_LONG = 4  # texts that the model cuts: none are made where there are as many
WORD_CHARACTERS = 8  # a text without blanks is not one word
CALIBRATION_FILES = (
    'pass a UTF-8 file with a text a line, a .jsonl file of strings or {"text": ...}, or a directory of such'
)
TOKENS = 8_192  # of the given texts: every one costs a run of the float graph
# Multiply-adds of these tokens: a model of more than 130 million weights has fewer of all kinds, down to a quarter.
WORK, LEAST = 1.1e12, 0.25
SEED = 0
# Multiply-adds of words of the vocabulary, and how many tokens these are at most. Less than the least says little.
RARE_WORK, MOST_RARE, LEAST_RARE = 1e10, 8_192, 2_048
RARE_WORDS = 8  # a text
REPEATED = ("yes", "of the", "run", "1", ";", "two words", "мир", "水")
OFTEN = 400  # times that some of them are repeated
# Special tokens as they are written: where a text has them, its own are not the only ones. Those of RoBERTa's kind
# (<mask>, </s>) widen ranges for values that nothing else has: with them all-mpnet-base-v2 loses on all others.
SPECIAL = ("Put a [MASK] here, a [SEP] there.", "[MASK] [MASK] [SEP] [CLS] [UNK] [PAD]")
# Years are words of their own in many vocabularies, and unlike others.
YEARS = ("what was new in 1891?", "1066, 1492, 1776, 1848, 1890, 1914, 1934, 1945, 1969, 2024", "the 1880s, 1960s")
# A greeting in scripts that many vocabularies do not have: what an unknown token meets is another one.
SCRIPTS = (
    *("Բարև աշխարհ", "ሰላም ለዓለም", "გამარჯობა მსოფლიო", "ওহে বিশ্ব", "హలో ప్రపంచం", "வணக்கம் உலகம்", "હેલો વર્લ્ડ"),
    *("සුභ උදෑසනක්", "សួស្តី ពិភពលោក", "שלום עולם", "こんにちは世界", "世界你好", "안녕 세상", "مرحبا بالعالم"),
)


def calibration_texts(source: Path | None = None) -> list[str]:
    """Texts that ship with the package, or those of a file (.jsonl with strings or {"text"}, else a text a line).

    A directory stands for its .txt and .jsonl files in name order.

    Raises:
        InvalidInputError: no such file, or one that holds something else; the message has the line's number.
    """
    if source is None:
        shipped = resources.files("fastembed_rt_export") / "data" / "calibration.jsonl"
        return [json.loads(line)["text"] for _, line in _lines(shipped.read_text(encoding="utf-8"))]
    files = sorted(source.glob("*.txt")) + sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    texts = []
    for file in files:
        try:
            lines = _lines(file.read_bytes().decode("utf-8"))  # read as text, a lone \r would end a line
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InvalidInputError(
                f"calibration texts {file} cannot be read ({reason}); {CALIBRATION_FILES}"
            ) from error
        texts += [_text(line, file, number) if file.suffix == ".jsonl" else line for number, line in lines]
    if not texts:
        raise InvalidInputError(f"{source} has no texts to calibrate with; {CALIBRATION_FILES}")
    return texts


def _lines(content: str) -> list[tuple[int, str]]:
    """Lines that hold something, with their numbers from 1 on.

    A line ends where an editor ends one: str.splitlines would end others at U+2028, which texts and JSON strings hold.
    """
    lines = (line.removesuffix("\r") for line in content.split("\n"))
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _text(line: str, file: Path, number: int) -> str:
    """The text of a line of JSON.

    Raises:
        InvalidInputError: it holds something else.
    """
    where = f"calibration texts {file}, line {number}"
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{where} is no JSON ({error}); {CALIBRATION_FILES}") from error
    if isinstance(entry, dict):
        if "text" not in entry:
            raise InvalidInputError(f'{where} is an object without "text"; {CALIBRATION_FILES}')
        entry = entry["text"]
    if not isinstance(entry, str):
        raise InvalidInputError(f"{where} holds {json.dumps(entry)[:80]}, no text; {CALIBRATION_FILES}")
    return entry


def share_of(per_token: float) -> float:
    """Of the texts, by the multiply-adds of a token: 1 for all but large models."""
    return float(np.clip(WORK / (TOKENS * max(per_token, 1.0)), LEAST, 1.0))


def degenerate_texts(share: float = 1.0) -> list[str]:
    """Nothing, one token, words and sentences over and over, punctuation, digits, code, special tokens, scripts.

    `share` shortens those that repeat most.
    """
    return [
        *("", " ", ",", "yes", "7", "w", "!", "Σ", "😀"),
        *(" ".join([word] * times) for word in REPEATED for times in (2, 4, 12)),
        *(" ".join([word] * times) for word in REPEATED[:3] for times in (50, int(share * OFTEN))),
        *("A dog is barking. " * times for times in (2, 6, 30)),
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "!!! ??? ... ,,, ;;; ::: ''' ---",
        *("!?", "-" * 60, "." * 24),
        "0123456789 " * 8,
        *YEARS,
        "x = y + z;\nreturn f(x, y)\n" * 6,
        '<div class="row"><p>text</p></div>\n' * 4,
        *SPECIAL,
        *SCRIPTS,
    ]


def long_texts(texts: Sequence[str], max_length: int, share: float = 1.0) -> list[str]:
    """Texts joined to some as long as the model reads, where they are shorter: ranges are seen at every length.

    Each has at least min(max_length, LONG_TOKENS) tokens before it is cut, all of them together about a share of
    LONG_TOKENS.
    """
    length = min(max_length, LONG_TOKENS)
    ordered = sorted(dict.fromkeys(texts), key=_words, reverse=True)  # paragraphs before sentences
    if not ordered or sum(_words(text) >= max_length for text in ordered) >= ENOUGH_LONG:
        return []
    following = itertools.cycle(ordered)
    made = []
    for _ in range(min(max(int(share * LONG_TOKENS) // length, 1), ENOUGH_LONG)):
        pieces: list[str] = []
        while sum(map(_words, pieces)) < length:
            pieces.append(next(following))
        made.append(" ".join(pieces))
    return made


def chosen_texts(
    source: Path | None, max_length: int, count: Callable[[Sequence[str]], Iterable[int]], per_token: float = 0.0
) -> list[str]:
    """Texts to calibrate on, of about TOKENS tokens: a share of the given ones, all degenerate ones, some long ones.

    Args:
        source: of the given ones.
        max_length: tokens that are read of a text.
        count: gives the number of tokens of each text.
        per_token: multiply-adds of one, on which depends how many there are.
    """
    texts, share = calibration_texts(source), share_of(per_token)
    chosen = within([min(int(tokens), max_length) for tokens in count(texts)], int(share * TOKENS), SEED)
    return [*(texts[k] for k in chosen), *degenerate_texts(share), *long_texts(texts, max_length, share)]


def rare_texts(vocabulary: Iterable[str], per_token: float) -> list[str]:
    """Words of the vocabulary, a few a text: a small model has channels that answer to one word alone.

    Args:
        vocabulary: its tokens, as the tokenizer's file has them.
        per_token: multiply-adds of one. Larger models spread words over their channels, and get none of these.
    """
    most = min(int(RARE_WORK / max(per_token, 1.0)), MOST_RARE)
    if most < LEAST_RARE or not per_token:
        return []
    words = sorted({word for token in vocabulary if len(word := token.lstrip("\u2581\u0120")) > 2 and word.isalpha()})
    chosen = [words[k] for k in np.random.default_rng(SEED).permutation(len(words))[:most]]
    return [" ".join(chosen[k : k + RARE_WORDS]) for k in range(0, len(chosen), RARE_WORDS)]


def within(lengths: Sequence[int], most: int, seed: int) -> list[int]:
    """Numbers of the texts, in an order of chance, that have `most` tokens together."""
    chosen: list[int] = []
    total = 0
    for index in np.random.default_rng(seed).permutation(len(lengths)):
        if total + lengths[index] <= most or not chosen:
            chosen.append(int(index))
            total += lengths[index]
    return sorted(chosen)


def _words(text: str) -> int:
    return max(len(text.split()), len(text) // WORD_CHARACTERS, 1)
