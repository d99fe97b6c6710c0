"""Pairs of texts in one row: what stands around them, and what each of the two keeps of a row that is too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from ..records import record

Ids = npt.NDArray[np.int64]
Pair = tuple[str, str]
Pieces = Callable[[Sequence[str], int | None], list[Ids | None]]  # Quick.pieces


@record(frozen=True)
class PairTemplate:
    """Special tokens in front of, between and behind two texts, and which tokens are of type 0."""

    front: Ids
    between: Ids
    behind: Ids
    special_zeros: int  # special tokens of type 0
    second_is_zero: bool  # whether the second text is of type 0 as well

    @property
    def special(self) -> int:
        """Special tokens of a row."""
        return len(self.front) + len(self.between) + len(self.behind)


def template_of(processor: Mapping[str, Any]) -> PairTemplate | None:
    """Of a tokenizer.json's post-processor; None where tokens of type 0 do not all stand before the others."""
    kind = processor["type"]
    if kind in ("BertProcessing", "RobertaProcessing"):
        begin, end = [processor["cls"][1]], [processor["sep"][1]]
        roberta = kind == "RobertaProcessing"  # which has one type alone
        second = 0 if roberta else 1
        parts = [(0, begin), (0, None), (0, end * 2 if roberta else end), (second, None), (second, end)]
    elif kind == "TemplateProcessing":
        parts, names = [], []
        for part in processor["pair"]:
            (what, about), *_ = part.items()
            if what == "Sequence":
                names.append(about["id"])
                parts.append((about["type_id"], None))
            else:
                parts.append((about["type_id"], processor["special_tokens"][about["id"]]["ids"]))
        if names != ["A", "B"]:
            return None
    else:
        return None
    types = [number for number, _ in parts]
    if types != sorted(types) or not set(types) <= {0, 1}:
        return None
    sides: list[list[int]] = [[]]
    for _, ids in parts:
        if ids is None:
            sides.append([])
        else:
            sides[-1] += ids
    first, second = (number for number, ids in parts if ids is None)
    if first != 0:
        return None
    zeros = sum(len(ids) for number, ids in parts if ids is not None and number == 0)
    front, between, behind = (np.array(side, np.int64) for side in sides)
    return PairTemplate(front, between, behind, zeros, second == 0)


def shares_of_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that each of two texts keeps of a row with room for so many: the longer one loses them first.

    As the Rust library's longest_first: what is shorter than half of the room is kept whole.
    """
    short = min(first, second)
    long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (long, short) if first > second else (short, long)


def kept_of_pair(sequence_ids: Sequence[int | None], max_length: int, side: str) -> npt.NDArray[np.int64]:
    """Places (at most max_length,) of a pair's tokens that a cut keeps; `side` is where each of the texts loses some.

    `sequence_ids` is 0 or 1 for a text's tokens and None for special ones, all of which stay.
    """
    owner = np.array([2 if number is None else number for number in sequence_ids], dtype=np.int64)
    texts = [np.flatnonzero(owner == number) for number in (0, 1)]
    special = np.flatnonzero(owner == 2)
    shares = shares_of_pair(len(texts[0]), len(texts[1]), max(max_length - len(special), 0))
    kept = [_part(places, share, side) for places, share in zip(texts, shares, strict=True)]
    return np.sort(np.concatenate([special, *kept]))


def rows_of_pairs(
    pieces: Pieces, template: PairTemplate, pairs: Sequence[Pair], max_length: int, side: str
) -> tuple[list[Ids | None], list[int], list[int]]:
    """Rows of at most max_length tokens, None where the library has to make them; how many tokens at the beginning of
    each are of type 0; and numbers of those that were cut.

    A text that is in several pairs is looked at once.
    """
    room = max_length - template.special
    found = _found(pieces, pairs, room if side == "right" else None)
    rows: list[Ids | None] = []
    zeros, cut = [], []
    for k, (left, right) in enumerate(pairs):
        first, second = found[left], found[right]
        if first is None or second is None:
            rows.append(None)
            zeros.append(0)
            continue
        if len(first) + len(second) > room:
            cut.append(k)
            shares = shares_of_pair(len(first), len(second), room)
            first, second = _part(first, shares[0], side), _part(second, shares[1], side)
        rows.append(np.concatenate((template.front, first, template.between, second, template.behind)))
        zeros.append(template.special_zeros + len(first) + (len(second) if template.second_is_zero else 0))
    return rows, zeros, cut


def _found(pieces: Pieces, pairs: Sequence[Pair], room: int | None) -> dict[str, Ids | None]:
    """Ids of each text; with a room, no more of them than tell what a pair keeps."""
    texts = list(dict.fromkeys(chain.from_iterable(pairs)))
    found = dict(zip(texts, pieces(texts, None if room is None else room + 1), strict=True))
    if room is None or not room % 2:
        return found
    # Where both have more than there is room for, the longer one keeps the odd token.
    over = {text for text, ids in found.items() if ids is not None and len(ids) > room}
    whole = list({text: None for pair in pairs if over.issuperset(pair) for text in pair})
    return found | dict(zip(whole, pieces(whole, None), strict=True))


def _part(tokens: Ids, share: int, side: str) -> Ids:
    return tokens[:share] if side == "right" else tokens[len(tokens) - min(share, len(tokens)) :]


def without_end(row: Ids, token: int) -> Ids:
    """The row without this token at its end; the first place stays, also of a row of nothing else."""
    if len(row) < 2 or row[-1] != token:  # nearly always
        return row
    others = np.flatnonzero(row != token)
    return row[: others[-1] + 1 if len(others) else 1]
