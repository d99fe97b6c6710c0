"""Texts -> token ids: prompts, and the policy for what is too long.

Knows no batch and no session. What a text's ids are is for quick, and for the library where that leaves it to it.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, TextTooLongError, UnknownTokenError
from .bpe import bpe
from .chat import Chat
from .library import Library
from .pairs import Pair, kept_of_pair, rows_of_pairs, without_end
from .quick import ALL, Quick
from .unigram import unigram
from .wordpiece import wordpiece

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
TRUNCATIONS = ("truncate", "warn", "error")  # of what must stay whole: pairs, and texts with a vector for each token
CHUNKED = (*TRUNCATIONS, "chunk")
TRUNCATION_SIDES = ("right", "left")
COUNTED = 256  # texts at a time
PACKAGE = __name__.partition(".")[0]


class TruncationWarning(UserWarning):
    """Texts were longer than max_length and lost their end."""


@dataclass(frozen=True)
class Tokenized:
    """Token ids of some texts: `ids[k]` belongs to text `owner[k]`; several to one text under "chunk"."""

    ids: list[Ids]
    owner: npt.NDArray[np.int64]
    texts: int
    truncated: int  # texts that lost tokens
    warning: str | None = None  # under the policy "warn"
    seen: Ids | None = None  # of queries that were filled up: tokens of each row that the others see
    first_segments: Ids | None = None  # of pairs: tokens at the beginning of each row that are of type 0

    @property
    def tokens(self) -> int:
        """Tokens of all rows, special tokens included."""
        return sum(map(len, self.ids))

    def part(self, start: int, stop: int) -> Tokenized:
        """Of texts from `start` to `stop`, where each has one row and none was cut."""
        seen, segments = self.seen, self.first_segments
        return Tokenized(
            self.ids[start:stop],
            np.arange(stop - start, dtype=np.int64),
            stop - start,
            0,
            seen=None if seen is None else seen[start:stop],
            first_segments=None if segments is None else segments[start:stop],
        )

    def without_end(self, token: int | None) -> Tokenized:
        """Pairs without this token at their ends, None for all as they are."""
        if token is None:
            return self
        assert self.first_segments is not None
        ids = [without_end(row, token) for row in self.ids]
        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        return replace(self, ids=ids, first_segments=np.minimum(self.first_segments, lengths))

    def report(self) -> None:
        """Warn of cut texts, in the caller's thread and at the caller's line."""
        if self.warning is not None:
            warnings.warn(self.warning, TruncationWarning, stacklevel=callers_level())

    def left_out(self, prompt_tokens: int) -> Ids:
        """Tokens at the beginning of each row that are not pooled: (rows,).

        A prompt of so many stands in the first, or only, piece of a text.
        """
        if not prompt_tokens:  # nearly always
            return np.zeros(len(self.ids), dtype=np.int64)
        return np.where(np.diff(self.owner, prepend=-1) > 0, prompt_tokens, 0)


class TextTokenizer:
    """A tokenizer.json with a limit and a policy for what is longer. Safe to call from several threads."""

    def __init__(
        self,
        path: Path,
        *,
        max_length: int,
        truncation: str = "truncate",
        truncation_side: str = "right",
        parallel: bool = True,
        of_pairs: bool = False,
        read: Callable[[], bytes] | None = None,
        vocabulary: int | None = None,
        chat: Chat | None = None,
        like: TextTokenizer | None = None,
    ) -> None:
        """Read tokenizer.json.

        `read` gives the contents of the file, now and when they are wanted again; None reads `path`.
        `truncation_side` is where a text over max_length loses tokens: its end (right) or its beginning (left).
        `parallel` lets the Rust library use all cores of the process at once; else a call uses one.
        `of_pairs` is for `pairs` alone, and saves it a second tokenizer. `vocabulary` is how many tokens the model
        knows, where the tokenizer has more. `chat` makes one text of each pair. `like` is another of the same file,
        vocabulary and pairs, whose work is not done again.

        Raises:
            InvalidInputError: unknown truncation policy, or no room for a token beside the special ones.
            ModelFormatError: the file cannot be read.
        """
        if truncation not in CHUNKED:
            raise InvalidInputError(f"truncation {truncation!r} is not known; known: {', '.join(CHUNKED)}")
        self._library: Library = Library(
            path,
            path.read_bytes if read is None else read,
            max_length=max_length,
            side=truncation_side,
            whole=truncation == "chunk",
            parallel=parallel,
            of_pairs=of_pairs,
            like=None if like is None else like._library,
        )
        self._others: dict[tuple[str, str], TextTokenizer] = {}  # by policy and side, each made once
        self._path, self._read, self._parallel, self._of_pairs = path, read, parallel, of_pairs
        self.max_length = max_length
        self.truncation = truncation
        self._side = truncation_side
        self._vocabulary = vocabulary
        self.chat = chat
        fast = None if like is None else like._fast
        if like is None:
            content = self._library.content
            assert content is not None
            fast = wordpiece(content) or bpe(content) or unigram(content)
            if fast is not None and read is not None:  # which reads the same again; it may be as large as the model
                self._library.content = None
        around = fast.pair if fast and of_pairs else fast
        self._fast: Quick | None = fast if around else None
        special = around.special if around else self._library.special()
        if max_length <= special:
            raise InvalidInputError(f"max_length {max_length} leaves no room beside {special} special tokens")
        if chat is not None and max_length <= (tokens := len(self._uncut(chat.render(("", ""))))):
            raise InvalidInputError(
                f"max_length {max_length} leaves no room beside {tokens} tokens of the chat template; raise it"
            )

    def with_max_length(self, max_length: int) -> TextTokenizer:
        """The same tokenizer with another limit; this one stays as it is, since other threads may use it."""
        return self._anew(max_length, self.truncation, self._side)

    def with_chat(self, chat: Chat | None) -> TextTokenizer:
        """The same tokenizer, of single texts, for pairs that go through a chat template, or not."""
        assert not self._of_pairs  # whose library does not cut
        made = copy.copy(self)
        made.chat, made._others = chat, {}
        return made

    def with_policy(self, truncation: str | None = None, side: str | None = None) -> TextTokenizer:
        """The same tokenizer with another policy or side for what is too long; None leaves each as it is.

        Raises:
            InvalidInputError: an unknown policy or side.
        """
        truncation, side = truncation or self.truncation, side or self._side
        if truncation not in CHUNKED:
            raise InvalidInputError(f"truncation {truncation!r} is not known; known: {', '.join(CHUNKED)}")
        if side not in TRUNCATION_SIDES:
            raise InvalidInputError(f"truncation side {side!r} is not known; known: {', '.join(TRUNCATION_SIDES)}")
        if (truncation, side) == (self.truncation, self._side):
            return self
        found = self._others.get((truncation, side))
        if found is None:
            # Two threads may make two, of which one is kept.
            found = self._others.setdefault((truncation, side), self._with_policy(truncation, side))
        return found

    def _with_policy(self, truncation: str, side: str) -> TextTokenizer:
        if side != self._side or "chunk" in (truncation, self.truncation):
            return self._anew(self.max_length, truncation, side)
        made = copy.copy(self)
        made.truncation, made._others = truncation, {}
        return made

    def _anew(self, max_length: int, truncation: str, side: str) -> TextTokenizer:
        return TextTokenizer(
            self._path,
            max_length=max_length,
            truncation=truncation,
            truncation_side=side,
            parallel=self._parallel,
            of_pairs=self._of_pairs,
            read=self._read,
            vocabulary=self._vocabulary,
            chat=self.chat,
            like=self,
        )

    def __call__(self, texts: Sequence[str], prompt: str = "", first: int = 0, *, parallel: bool = True) -> Tokenized:
        """Token ids with special tokens, cut at max_length as the policy says; `first` is text 0's number in messages.

        Without `parallel` this call uses one core: where all are busy, the library's threads would wait for each other.

        Raises:
            TextTooLongError: a text is too long and the policy is "error".
            InvalidInputError: a text has a token that the model does not know.
        """
        given = [prompt + text for text in texts] if prompt else texts
        rows, cut = self._without_library(given)
        others = [k for k, row in enumerate(rows) if row is None]
        encodings: list[Any] = []
        if others:
            encodings, beginnings = self._library.first_tokens([given[k] for k in others], parallel=parallel)
            cut += [others[k] for k in beginnings]
            if self._vocabulary is not None:
                all_of_it = self.truncation == "chunk"
                for k, encoding in zip(others, encodings, strict=True):
                    for piece in (encoding, *(encoding.overflowing if all_of_it else ())):
                        self._check_known(piece.ids, first + k)
        # Only a full encoding can have been cut, and only its overflow tells whether it was.
        overflowing: dict[int, list[Any]] = {}
        for k, encoding in zip(others, encodings, strict=True):
            rows[k] = np.array(encoding.ids, dtype=np.int64)
            if len(encoding.ids) >= self.max_length and (rest := encoding.overflowing):
                overflowing[k] = rest
        ids = cast(list[Ids], rows)
        owner = np.arange(len(ids), dtype=np.int64)
        long = sorted([*cut, *overflowing])
        if not long:
            return Tokenized(ids, owner, len(texts), 0)
        if self.truncation == "chunk":
            chunks = [[row] for row in ids]
            for k, rest in overflowing.items():
                chunks[k] += [np.array(piece.ids, dtype=np.int64) for piece in rest]
            owner = np.repeat(owner, [len(pieces) for pieces in chunks])
            return Tokenized([row for pieces in chunks for row in pieces], owner, len(texts), 0)
        return Tokenized(ids, owner, len(texts), len(long), self._warning(texts, long, prompt, first))

    def _without_library(self, texts: Sequence[str]) -> tuple[list[Ids | None], list[int]]:
        """Rows without the library, None for its texts; and which ones were cut, if that is done without it."""
        if self._fast is None:
            return [None] * len(texts), []
        rows, cut = self._fast(texts, self.max_length)
        if self._vocabulary is not None and (unknown := self._unknown(rows)):
            cut = [k for k in cut if k not in unknown]
        if self.truncation == "chunk" or self._side != "right":
            for k in cut:
                rows[k] = None
            cut = []
        return rows, cut

    def _unknown(self, rows: list[Ids | None]) -> set[int]:
        """Numbers of rows with a token that the model does not know, which the library gets now: it names it."""
        found = {k for k, row in enumerate(rows) if row is not None and len(row) and row.max() >= self._vocabulary}
        for k in found:
            rows[k] = None
        return found

    @property
    def side(self) -> str:
        """Where a text over max_length loses tokens: right (its end) or left (its beginning)."""
        return self._side

    def whole(
        self, texts: Sequence[str], prompt: str = "", first: int = 0, *, parallel: bool = True
    ) -> Iterator[tuple[Ids, Ids, Mask]]:
        """Of each text, uncut: ids (tokens,), first and last characters (tokens, 2) of prompt and text, special ones.

        Raises:
            InvalidInputError: a text has a token that the model does not know.
        """
        rows = [prompt + text for text in texts] if prompt else texts
        for k, encoding in enumerate(self._library.uncut(rows, parallel=parallel)):
            if self._vocabulary is not None:
                self._check_known(encoding.ids, first + k)
            ids = np.array(encoding.ids, dtype=np.int64)
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            yield ids, offsets, np.array(encoding.special_tokens_mask, dtype=bool)

    def cut(self, texts: Sequence[str], long: list[int], prompt: str, first: int) -> str | None:
        """The warning that texts with these numbers were cut, if the policy wants one.

        Raises:
            TextTooLongError: the policy is "error".
        """
        return self._warning(texts, long, prompt, first)

    def pairs(self, pairs: Sequence[Pair], prompt: str = "", first: int = 0, *, parallel: bool = True) -> Tokenized:
        """Token ids of two texts each, in one row; the longer of the two is cut first.

        A prompt stands in front of the first text. Errors as for single texts; "chunk" is not for pairs. Where pairs go
        through a chat template, that says where a prompt stands, and their text is cut as a whole.
        """
        if self.chat is not None:
            return self._chats(self.chat, pairs, prompt, first, parallel=parallel)
        given = [(prompt + left, right) for left, right in pairs] if prompt else pairs
        rows: list[Ids | None] = [None] * len(given)
        segments: list[int] = [0] * len(given)
        long: list[int] = []
        if self._fast is not None and (template := self._fast.pair) is not None:
            rows, segments, long = rows_of_pairs(self._fast.pieces, template, given, self.max_length, self._side)
            if self._vocabulary is not None and (unknown := self._unknown(rows)):
                long = [k for k in long if k not in unknown]
        others = [k for k, row in enumerate(rows) if row is None]
        encodings = self._library.pairs([given[k] for k in others], parallel=parallel)
        for k, encoding in zip(others, encodings, strict=True):
            row, types = np.array(encoding.ids, dtype=np.int64), np.array(encoding.type_ids, dtype=np.int64)
            # Cut here: the library would keep every piece of one text beside every piece of the other.
            if len(row) > self.max_length:
                kept = kept_of_pair(encoding.sequence_ids, self.max_length, self._side)
                row, types = row[kept], types[kept]
                long.append(k)
            rows[k], segments[k] = row, int(np.count_nonzero(types == 0))
        ids = cast(list[Ids], rows)
        if self._vocabulary is not None:
            for k in others:
                self._check_known(ids[k], first + k)
        warning = self._warning(given, sorted(long), "", first) if long else None
        owner, zeros = np.arange(len(ids), dtype=np.int64), np.array(segments, dtype=np.int64)
        return Tokenized(ids, owner, len(ids), len(long), warning, first_segments=zeros)

    def _chats(self, chat: Chat, pairs: Sequence[Pair], prompt: str, first: int, *, parallel: bool) -> Tokenized:
        made = self([chat.render(pair, prompt) for pair in pairs], "", first, parallel=parallel)
        chat.with_end(made.ids, self.max_length, prompt, self._uncut)
        return replace(made, first_segments=np.array([len(row) for row in made.ids], dtype=np.int64))

    def _uncut(self, text: str) -> Sequence[int]:
        if self._fast is not None and (row := self._fast([text], ALL)[0][0]) is not None:
            return cast(list[int], row.tolist())
        ids: Sequence[int] = self._library.limited.encode(text).ids
        return ids if len(ids) < self.max_length else self._library.free.encode(text).ids

    def _check_known(self, ids: Iterable[int], number: int) -> None:
        """Raise UnknownTokenError for a token without a row in the model's word table; `number` is its text's."""
        assert self._vocabulary is not None
        unknown = next((int(found) for found in ids if found >= self._vocabulary), None)
        if unknown is not None:
            token = self._library.limited.id_to_token(unknown)
            raise UnknownTokenError(
                f"text {number} has the token {token!r} (id {unknown}), and "
                f"the model knows {self._vocabulary} tokens: take it out of the text, or export a checkpoint "
                "whose word table is as large as its tokenizer"
            )

    def _warning(self, texts: Sequence[str] | Sequence[Pair], long: list[int], prompt: str, first: int) -> str | None:
        if self.truncation == "truncate":
            import logging

            logger = logging.getLogger("fastembed_rt")
            logger.info("%d of %d texts cut at %d tokens", len(long), len(texts), self.max_length)
            return None
        tokens = int(self.count(texts[long[0] : long[0] + 1], prompt)[0])
        message = (
            f"text {first + long[0]} has {tokens} tokens, {len(long)} of {len(texts)} texts are over "
            f"max_length {self.max_length}"
        )
        if self.truncation == "error":
            advice = "shorten them, or choose truncation='truncate', for dense vectors also 'chunk'"
            raise TextTooLongError(f"{message}; {advice}")
        return f"{message} and were cut"

    def count(self, texts: Sequence[str] | Sequence[Pair], prompt: str = "") -> npt.NDArray[np.int64]:
        """Tokens of each text, or of each pair, before any cut, special tokens and prompt included: (n,) int64."""
        counts: list[int] = []
        for start in range(0, len(texts), COUNTED):
            some = texts[start : start + COUNTED]
            wanted = [prompt + text if isinstance(text, str) else self._joined(text, prompt) for text in some]
            found = self._counts_without_library(wanted)
            others = [k for k, number in enumerate(found) if number is None]
            if others:
                for k, number in zip(others, self._library.counts([wanted[k] for k in others]), strict=True):
                    found[k] = number
            counts += cast(list[int], found)
        return np.array(counts, dtype=np.int64)

    def _joined(self, pair: Pair, prompt: str) -> Pair | str:
        """What is tokenized of a pair."""
        if self.chat is not None:
            return self.chat.render(pair, prompt)
        return (prompt + pair[0], pair[1]) if prompt else pair

    def _counts_without_library(self, texts: Sequence[str | Pair]) -> list[int | None]:
        """What `count` gives, None for the library's texts."""
        words = self._fast
        if words is None or (words.pair is None and not all(isinstance(text, str) for text in texts)):
            return [None] * len(texts)
        parts = [(text,) if isinstance(text, str) else text for text in texts]
        pieces = iter(words.pieces([text for part in parts for text in part]))
        counts: list[int | None] = []
        for part in parts:
            rows = [row for row in islice(pieces, len(part)) if row is not None]
            special = words.special if len(part) == 1 or words.pair is None else words.pair.special
            counts.append(special + sum(map(len, rows)) if len(rows) == len(part) else None)
        return counts

    def another(self) -> Any:
        """The Rust library's tokenizer as the file says, for whoever changes it."""
        return self._library.make()

    def around(self) -> tuple[list[int], list[int]]:
        """Special tokens in front of every text, and those behind it."""
        encoding = self._library.limited.encode("a")
        places = [k for k, special in enumerate(encoding.special_tokens_mask) if not special]
        if not places:  # "a" has no token of its own: what there is stands in front
            return list(encoding.ids), []
        return list(encoding.ids[: places[0]]), list(encoding.ids[places[-1] + 1 :])

    def from_ids(self, ids: Sequence[int], number: int = 0) -> tuple[Ids, bool]:
        """A text's row out of token ids of this tokenizer, special tokens put around it where it has none, and cut.

        `number` is the text's in messages; the second value is whether it lost tokens.

        Raises:
            InvalidInputError: an id that the model does not know.
            TextTooLongError: it is too long and the policy is "error"; "chunk" cuts.
        """
        known = self._library.limited.get_vocab_size() if self._vocabulary is None else self._vocabulary
        if ids and not 0 <= min(ids) <= max(ids) < known:
            raise InvalidInputError(f"text {number} has token ids outside 0 to {known - 1}, which the model knows")
        front, behind = self.around()
        row = list(ids)
        if row[: len(front)] == front and row[len(row) - len(behind) :] == behind and len(row) >= len(front + behind):
            row = row[len(front) : len(row) - len(behind)]
        room = self.max_length - len(front) - len(behind)
        long = len(row) > room
        if long and self.truncation == "error":
            tokens = len(row) + len(front) + len(behind)
            raise TextTooLongError(f"text {number} has {tokens} tokens, over max_length {self.max_length}; shorten it")
        kept = row[-room:] if self._side == "left" else row[:room]
        return np.array([*front, *kept, *behind], dtype=np.int64), long

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids; an id that the tokenizer does not know has none."""
        text: str = self._library.limited.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_to_id(self, token: str) -> int | None:
        """Id of a token of the vocabulary."""
        found: int | None = self._library.limited.token_to_id(token)
        return found

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's words under these ids; an id without one is written as its number in angle brackets."""
        found = [self._library.limited.id_to_token(number) for number in ids]
        return [f"<{number}>" if word is None else word for number, word in zip(ids, found, strict=True)]

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens that a prompt takes at the beginning of a text, special tokens in front included.

        Counted as sentence-transformers does: the prompt alone, less a special token at its end, also one of its own.
        """
        ids = self._library.limited.encode(prompt).ids
        return len(ids) - (1 if ids and ids[-1] in self._library.special_ids else 0)


def callers_level() -> int:
    """The `stacklevel` with which a warning of our caller points at the code outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        level, frame = level + 1, frame.f_back
    return level
