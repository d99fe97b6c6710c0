"""Very long texts are tokenized a part at a time, where the parts' tokens are those of the whole.

The library makes a record of every token, hundreds of bytes for each letter, in one call that nothing interrupts. Where
a tokenizer works within words (see caps), a text falls apart at a gap between two of them: what stands before the gap
has the tokens that it has alone, and what stands behind it those that it has behind any other word. So every part but
the first is tokenized behind a word of its own, whose tokens are left out: nothing that is done to the beginning of a
text (a space put in front, one taken away, places counted otherwise) is done to a part.

Texts without such gaps, and tokenizers of which this is not sure, are left whole. tests/runtime/text/test_text_parts.py
compares ids and places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .caps import gaps_of, settings_of, steps, works_within_words

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
PART = 1 << 15  # characters, and as many more as there are up to the next gap
TOGETHER = 8  # parts of one call of the library, which it may share out among its threads
WORD = "a"  # in front of a part


@dataclass(frozen=True)
class Encoded:
    """What is read of the library's encoding of a text."""

    ids: Ids  # (tokens,)
    offsets: Ids  # (tokens, 2): first character, and the one behind the last; none where they were not asked for
    special_tokens_mask: Mask  # (tokens,)
    overflowing: list[Encoded] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


class Parts:
    """One tokenizer, which does not cut. Safe to use from several threads."""

    def __init__(self, tokenizer: Any, gaps: re.Pattern[str], word: int, front: Ids, behind: Ids) -> None:
        """`word` is how many tokens WORD has; special tokens stand in `front` of every text and `behind` it."""
        self._tokenizer, self._gaps, self._word = tokenizer, gaps, word
        self.front, self.behind = front, behind

    def encoded(self, text: str, *, offsets: bool, parallel: bool) -> Encoded | None:
        """A text, uncut and with special tokens around it; None for one that is not long, or has no gaps.

        Where `offsets` are wanted. With `parallel` the library may use its threads.
        """
        places = list(self._places(text)) if len(text) > PART else []
        if len(places) < 2:
            return None
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        together = TOGETHER if parallel else 1
        ids, found = [self.front], [np.zeros((len(self.front), 2), np.int64)]
        for at in range(0, len(places), together):
            some = places[at : at + together]
            rows = [text[start:stop] if start == 0 else WORD + text[start:stop] for start, stop in some]
            for (start, _), encoding in zip(some, encode(rows, add_special_tokens=False), strict=True):
                skipped, before = (self._word, start - len(WORD)) if start else (0, 0)
                ids.append(np.array(encoding.ids[skipped:], np.int64))
                if offsets:
                    found.append(np.array(encoding.offsets[skipped:], np.int64).reshape(-1, 2) + before)
        ids.append(self.behind)
        found.append(np.zeros((len(self.behind), 2), np.int64))
        joined = np.concatenate(ids)
        special = np.zeros(len(joined), bool)
        special[: len(self.front)] = special[len(joined) - len(self.behind) :] = True
        return Encoded(joined, np.concatenate(found) if offsets else np.empty((0, 2), np.int64), special)

    def cut(self, whole: Encoded, max_length: int, side: str) -> Encoded:
        """As the library cuts an encoding, ids alone; what it cuts off is `overflowing`, from the text's beginning on
        where that is kept.
        """
        room = max_length - len(self.front) - len(self.behind)
        content = whole.ids[len(self.front) : len(whole.ids) - len(self.behind)]
        if len(content) <= room:
            return whole
        if side == "left":
            return self._row(content[len(content) - room :], [self._row(content[: len(content) - room])])
        rest = [self._row(content[start : start + room]) for start in range(room, len(content), room)]
        return self._row(content[:room], rest)

    def _row(self, content: Ids, overflowing: list[Encoded] | None = None) -> Encoded:
        ids = np.concatenate((self.front, content, self.behind))
        return Encoded(ids, np.empty((0, 2), np.int64), np.empty(0, bool), overflowing or [])

    def _places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the parts of a text begin and end."""
        if not text[0].isprintable():  # places behind what normalizers remove there are the library's own
            return
        start = 0
        while len(text) - start > PART and (gap := self._gaps.search(text, start + PART)) is not None:
            yield start, gap.start()
            start = gap.start()
        yield start, len(text)


def parts(tokenizer: Any) -> Parts | None:
    """For a tokenizer that does not cut; None where it is not sure that parts have a whole's tokens."""
    settings = settings_of(tokenizer)
    if not works_within_words(settings) or any(map(_may_stand_before_a_gap, settings.get("added_tokens") or ())):
        return None
    if any(map(_repeats, steps(settings.get("post_processor"), "processors"))):
        return None
    alone = tokenizer.encode(WORD, add_special_tokens=False).ids
    found = tokenizer.encode(WORD)
    ids, special = np.array(found.ids, np.int64), np.array(found.special_tokens_mask, bool)
    first = int(np.argmin(special))
    content = slice(first, first + len(alone))
    if not alone or ids[content].tolist() != alone or np.count_nonzero(~special) != len(alone):
        return None
    return Parts(tokenizer, gaps_of(settings), len(alone), ids[:first], ids[content.stop :])


def _repeats(processor: Mapping[str, Any]) -> bool:
    """Whether a text is there twice, or not at all."""
    single = processor.get("single", ["Sequence"])  # of a TemplateProcessing
    return sum("Sequence" in part for part in single) != 1


def _may_stand_before_a_gap(token: Mapping[str, Any]) -> bool:
    """Whether an added token ends as a word does: behind it begins what normalizers and splits take for a new text."""
    return bool(token["content"][-1:].isalnum())
