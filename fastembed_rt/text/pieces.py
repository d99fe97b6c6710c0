"""Texts -> rows of token ids whose tokens are told apart: where each stands in its text, which row it is taken from.

A text longer than a row becomes windows that overlap, each with the special tokens and the prompt that the model was
trained with. A token is taken from the first window that has it: the tokens that a later one repeats are there for the
others to see (long late chunking, Guenther et al. 2024, arXiv:2409.04701, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError, InvalidTypeError
from .tokenizer import Ids, TextTokenizer, Tokenized


@dataclass(frozen=True, kw_only=True)
class Pieces(Tokenized):
    """Rows of some texts. Of each text: offsets and marks of the tokens that are taken, one row after the other."""

    taken: list[slice]  # of each row, the tokens that are taken from it
    offsets: list[Ids]  # of each text, (tokens, 2): first character, and the one behind the last
    special: list[np.ndarray[tuple[int], np.dtype[np.bool_]]]  # of each text, (tokens,)


def pieces(
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    prompt: str = "",
    first: int = 0,
    *,
    overlap: int | None = None,
    parallel: bool = True,
) -> Pieces:
    """Rows of texts, cut as the tokenizer's policy says; with an `overlap` in tokens, windows of longer texts instead.

    Offsets are characters of the text without its prompt, whose tokens have (0, 0) and are marked as special ones are.
    Under the policy "chunk", windows that do not overlap. `parallel` as for the tokenizer's call.

    Raises:
        TextTooLongError: a text is too long, and the policy is "error".
        InvalidInputError: no room for the overlap, or a token that the model does not know.
    """
    made = Pieces([], np.empty(0, np.int64), len(texts), 0, taken=[], offsets=[], special=[])
    owner: list[int] = []
    long: list[int] = []
    windows = overlap if overlap is not None else (0 if tokenizer.truncation == "chunk" else None)
    for k, (ids, places, special) in enumerate(tokenizer.whole(texts, prompt, first, parallel=parallel)):
        offsets = np.maximum(places - len(prompt), 0)
        marks = special | (offsets[:, 1] == 0)
        if len(ids) > tokenizer.max_length:
            long.append(k)
        rows = _rows(ids, special, offsets, tokenizer, windows)
        made.ids.extend(ids[row] for row, _ in rows)
        made.taken.extend(part for _, part in rows)
        owner += [k] * len(rows)
        found = np.concatenate([row[part] for row, part in rows])
        made.offsets.append(offsets[found])
        made.special.append(marks[found])
    cut = bool(long) and (windows is None or tokenizer.truncation == "error")
    warning = tokenizer.cut(texts, long, prompt, first) if cut else None
    truncated = len(long) if windows is None else 0
    return Pieces(
        made.ids,
        np.array(owner, dtype=np.int64),
        len(texts),
        truncated,
        warning,
        taken=made.taken,
        offsets=made.offsets,
        special=made.special,
    )


def _rows(
    ids: Ids,
    special: np.ndarray[tuple[int], np.dtype[np.bool_]],
    offsets: Ids,
    tokenizer: TextTokenizer,
    overlap: int | None,
) -> list[tuple[Ids, slice]]:
    """Places (tokens,) of each row in the whole text, and the part of it that is taken."""
    everything = np.arange(len(ids))
    if len(ids) <= tokenizer.max_length:
        return [(everything, slice(None))]
    content = everything[~special]
    front = everything[: int(content[0])] if len(content) else everything[:0]
    back = everything[int(content[-1]) + 1 :] if len(content) else everything[:0]
    room = tokenizer.max_length - len(front) - len(back)
    if overlap is None:
        kept = content[:room] if tokenizer.side == "right" else content[len(content) - room :]
        return [(np.concatenate([front, kept, back]), slice(None))]
    of_prompt = content[: int(np.count_nonzero(offsets[content, 1] == 0))]
    content, front = content[len(of_prompt) :], np.concatenate([front, of_prompt])
    room -= len(of_prompt)
    check_overlap(overlap, room)
    starts = range(0, max(len(content) - overlap, 1), room - overlap)
    made = []
    for start in starts:
        window = content[start : start + room]
        begin = 0 if start == 0 else len(front) + overlap
        last = start == starts[-1]
        made.append((np.concatenate([front, window, back]), slice(begin, None if last else len(front) + len(window))))
    return made


def check_overlap(overlap: object, room: int) -> int:
    """Tokens that a window repeats of the last, fewer than the `room` that windows have beside prompt and special ones.

    Raises:
        InvalidTypeError, InvalidInputError: no whole number; one that is not possible.
    """
    if isinstance(overlap, bool) or not isinstance(overlap, (int, np.integer)):
        raise InvalidTypeError(f"overlap is {type(overlap).__name__}, expected int")
    if not 0 <= overlap < room:
        raise InvalidInputError(f"overlap {overlap} is not possible; windows have room for {room} tokens of a text")
    return int(overlap)
