"""Token ids of ASCII texts for BERT's tokenizers, in C (native/src/wordpiece.c): ten times as fast as the Rust library.

Exactly the library's ids, or none: what the file has beside BERT's own settings, other characters and texts with added
tokens in them are left to it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import native

Ids = npt.NDArray[np.int64]
CONTINUES = "##"
MOST_CHARACTERS = 1000  # of a word that is cut into pieces, as in the C source
FEW = 64  # texts that are not worth letting other threads run meanwhile


class WordPiece:
    """One vocabulary. Safe to use from several threads."""

    def __init__(self, described: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> None:
        """Of a tokenizer.json that `fits`, with the special tokens before and after a text."""
        model = described["model"]
        vocabulary: dict[str, int] = {piece: k for piece, k in model["vocab"].items() if piece.isascii() and piece}
        begin = [piece for piece in vocabulary if not piece.startswith(CONTINUES) or piece == CONTINUES]
        go_on = [piece for piece in vocabulary if piece.startswith(CONTINUES) and piece != CONTINUES]
        # A word never begins with the mark: it is punctuation, which stands alone.
        pieces = [*begin, *(piece.removeprefix(CONTINUES) for piece in go_on)]
        added = [token["content"] for token in described["added_tokens"] if token["content"].isascii()]
        data = "".join([*pieces, *added]).encode("ascii")
        lengths = np.array([len(piece) for piece in [*pieces, *added]], np.int32)
        ids = np.array([vocabulary[piece] for piece in [*begin, *go_on]], np.int32)
        functions = native.wordpiece()
        assert functions is not None
        self._made = functions.new(
            data,
            len(data),
            _at(lengths),
            _at(ids),
            len(pieces),
            len(begin),
            len(added),
            model["max_input_chars_per_word"],
            model["vocab"][model["unk_token"]],
            described["normalizer"]["lowercase"],
        )
        if not self._made:
            raise MemoryError
        weakref.finalize(self, functions.free, self._made)
        self._few, self._many = functions.encode_few, functions.encode_many
        self._around = np.array([*before, *after], np.int64)
        self._before, self._after = len(before), len(after)
        self.special = len(self._around)  # tokens around each text

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[list[Ids | None], list[int]]:
        """Ids of texts, each at most `max_length` tokens, special ones included; None where the library has to do it.

        Beside them the numbers of texts that were cut.
        """
        count = len(texts)
        if count == 1:  # most calls of a server
            joined = texts[0]
            if not joined.isascii():
                return [None], []
            numbers: Sequence[int] = (0,)
            lengths = np.array([len(joined)], np.int64)
        else:
            numbers = [k for k, text in enumerate(texts) if text.isascii()]
            mine = texts if len(numbers) == count else [texts[k] for k in numbers]
            joined = "".join(mine)
            lengths = np.fromiter(map(len, mine), np.int64, len(mine))
        most = max_length - self.special
        ids = np.empty(int(np.minimum(lengths, most).sum()) + self.special * len(numbers), np.int64)
        counts, more = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.uint8)
        encode = self._few if len(numbers) <= FEW else self._many
        encode(
            self._made,
            joined.encode("ascii"),
            _at(lengths),
            len(numbers),
            most,
            _at(self._around),
            self._before,
            self._after,
            _at(ids),
            _at(counts),
            _at(more),
        )
        found: list[Ids | None] = [None] * count
        start = 0
        for k, length in zip(numbers, counts.tolist(), strict=True):
            if length >= 0:
                found[k] = ids[start : start + length]
                start += length
        return found, [k for k, cut in zip(numbers, more.tolist(), strict=True) if cut]


def wordpiece(content: bytes) -> WordPiece | None:
    """What does a tokenizer.json's work for ASCII texts; None where the library has to do all of it."""
    if b'"WordPiece"' not in content or native.wordpiece() is None:  # soon said of other kinds, which are larger
        return None
    try:
        described = json.loads(content)
        special = around(described["post_processor"])
        return None if special is None or not fits(described) else WordPiece(described, *special)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):  # the library says what is wrong with it
        return None


def fits(described: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is of BERT's kind in all that concerns ASCII texts."""
    model, normalizer, words = described["model"], described["normalizer"], described["pre_tokenizer"]
    # An added token that begins with a letter or a blank might begin within a word.
    begin = "".join(token["content"][0] for token in described["added_tokens"])
    return bool(
        model.get("type", "WordPiece" if "merges" not in model else "BPE") == "WordPiece"  # old files do not say it
        and model["continuing_subword_prefix"] == CONTINUES
        and model["unk_token"] in model["vocab"]
        and set(map(type, model["vocab"].values())) == {int}
        and 0 < model["max_input_chars_per_word"] <= MOST_CHARACTERS
        and normalizer["type"] == "BertNormalizer"
        and words["type"] == "BertPreTokenizer"
        and not any(first.isascii() and (first.isalnum() or not first.isprintable() or first == " ") for first in begin)
    )


def around(processor: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """Special tokens before and after a single text; None where that is not all that is done to it."""
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
