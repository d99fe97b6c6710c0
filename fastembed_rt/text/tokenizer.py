"""Texts -> token ids: the Rust tokenizer, prompts, the truncation policy, and what counts as a text.

Knows no batch and no session. Padding is the batcher's, so the tokenizer's own padding is switched off.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import (
    InvalidInputError,
    ModelFormatError,
    TextTooLongError,
    UnknownTokenError,
    from_outside,
)
from .caps import cutter, long_from
from .wordpiece import WordPiece, wordpiece

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Pair = tuple[str, str]
TRUNCATIONS = ("truncate", "warn", "error")  # of what must stay whole: pairs, and texts with a vector for each token
CHUNKED = (*TRUNCATIONS, "chunk")
TRUNCATION_SIDES = ("right", "left")
LIBRARY_THREADS = "TOKENIZERS_PARALLELISM"
PACKAGE = __name__.partition(".")[0]
logger = logging.getLogger("fastembed_rt")


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


def _takes_no_threads() -> bool:
    """Whether the library uses no threads of its own, as its variable may say."""
    return os.environ.get(LIBRARY_THREADS, "on").lower() in ("", "0", "f", "false", "n", "no", "off")


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
        fast: WordPiece | None = None,
    ) -> None:
        """Read tokenizer.json.

        `read` gives the contents of the file, now and when a second tokenizer is wanted; None reads `path`.
        `truncation_side` is where a text over max_length loses tokens: its end (right) or its beginning (left).
        `parallel` lets the Rust library use all cores of the process at once; else a call uses one.
        `of_pairs` is for `pairs` alone, and saves it a second tokenizer. `vocabulary` is how many tokens the model
        knows, where the tokenizer has more. `fast` is another tokenizer's of the same file.

        Raises:
            InvalidInputError: unknown truncation policy, or no room for a token beside the special ones.
            ModelFormatError: the file cannot be read.
        """
        if truncation not in CHUNKED:
            raise InvalidInputError(f"truncation {truncation!r} is not known; known: {', '.join(CHUNKED)}")
        self._read = path.read_bytes if read is None else read
        self._path = path
        self._content: bytes | None = self._bytes()  # until the library is made of it
        self._library: Any = None
        self._uncut: Any = None
        self._shorten: Callable[[str], str] | None = None  # when there is a long text
        self.max_length = max_length
        self.truncation = truncation
        self._side = truncation_side
        self._parallel = parallel
        self._of_pairs = of_pairs
        self._vocabulary = vocabulary
        self._fast = fast if fast or of_pairs or vocabulary is not None else wordpiece(self._content)
        special = self._fast.special if self._fast else self._tokenizer.num_special_tokens_to_add(of_pairs)
        if max_length <= special:
            raise InvalidInputError(f"max_length {max_length} leaves no room beside {special} special tokens")

    @property
    def _tokenizer(self) -> Any:
        """The Rust library's, which takes 50 ms to be made: when a text comes that needs it.

        Two threads may make two, of which one is kept: a lock could be held for ever in a forked process.
        """
        content = self._content
        if self._library is None:
            self._library = self._limited(content)
            self._content = None  # after it: who finds none finds the library
        return self._library

    def _limited(self, content: bytes | None) -> Any:
        tokenizer = self._made(content)
        tokenizer.no_padding()
        if self._of_pairs:
            tokenizer.no_truncation()
            self._uncut = tokenizer
        elif self.max_length > tokenizer.num_special_tokens_to_add(self._of_pairs):  # else it is refused
            # Chunks lose nothing, so they always begin at a text's beginning, where its prompt stands.
            side = "right" if self.truncation == "chunk" else self._side
            tokenizer.enable_truncation(self.max_length, direction=side)
        return tokenizer

    def _bytes(self) -> bytes:
        try:
            return self._read()
        except OSError as error:
            raise ModelFormatError(f"{self._path} cannot be read ({error.strerror}); export the model again") from error

    def _made(self, content: bytes | None = None) -> Any:
        from tokenizers import Tokenizer

        content = self._bytes() if content is None else content
        try:
            # Not from_file: the Rust library wants paths in UTF-8, whatever the locale says.
            return Tokenizer.from_buffer(content)
        except Exception as error:  # the Rust library raises plain Exception
            if from_outside(error):
                raise
            raise ModelFormatError(
                f"{self._path} cannot be read as a tokenizer ({error}); export the model again"
            ) from error

    def with_max_length(self, max_length: int) -> TextTokenizer:
        """The same tokenizer with another limit; this one stays as it is, since other threads may use it."""
        return TextTokenizer(
            self._path,
            max_length=max_length,
            truncation=self.truncation,
            truncation_side=self._side,
            parallel=self._parallel,
            of_pairs=self._of_pairs,
            read=self._read,
            vocabulary=self._vocabulary,
            fast=self._fast,
        )

    def with_policy(self, truncation: str | None = None, side: str | None = None) -> TextTokenizer:
        """The same tokenizer with another policy or side for what is too long; None leaves each as it is.

        Another side needs a second tokenizer in memory, another policy does not.

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
        if side == self._side and "chunk" not in (truncation, self.truncation):
            made = copy.copy(self)
            made.truncation = truncation
            return made
        return TextTokenizer(
            self._path,
            max_length=self.max_length,
            truncation=truncation,
            truncation_side=side,
            parallel=self._parallel,
            of_pairs=self._of_pairs,
            read=self._read,
            vocabulary=self._vocabulary,
            fast=self._fast,
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
        encodings, beginnings = self._first_tokens([given[k] for k in others], parallel=parallel)
        cut += [others[k] for k in beginnings]
        if self._vocabulary is not None:
            self._check_known(encodings, first, chunks=self.truncation == "chunk")
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

    def _first_tokens(self, texts: Sequence[str], *, parallel: bool) -> tuple[list[Any], list[int]]:
        """The library's encodings of texts; and numbers of those whose beginning alone was looked at, and is enough."""
        begin = texts
        if (
            texts
            and self.truncation != "chunk"
            and self._side == "right"
            and max(map(len, texts)) > long_from(self.max_length)
        ):
            if self._shorten is None:
                self._shorten = cutter(self._bytes(), self.max_length) or (lambda text: text)
            begin = [self._shorten(text) for text in texts]
        found = self._encode(begin, parallel=parallel) if begin else []
        short = [k for k, text in enumerate(begin) if text is not texts[k]]
        again = [k for k in short if len(found[k].ids) < self.max_length]  # then the rest matters
        for k in again:
            found[k] = self._encode([texts[k]])[0]
        return found, [k for k in short if k not in again and not found[k].overflowing]

    def _without_library(self, texts: Sequence[str]) -> tuple[list[Ids | None], list[int]]:
        """Rows without the library, None for its texts; and which ones were cut, if that is done without it."""
        if self._fast is None:
            return [None] * len(texts), []
        rows, cut = self._fast(texts, self.max_length)
        if self.truncation == "chunk" or self._side != "right":
            for k in cut:
                rows[k] = None
            cut = []
        return rows, cut

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
        tokenizer = self._without_limit()
        rows = [prompt + text for text in texts] if prompt else texts
        found = tokenizer.encode_batch(rows) if self._parallel and parallel else map(tokenizer.encode, rows)
        for k, encoding in enumerate(found):
            if self._vocabulary is not None:
                self._check_known([encoding], first + k)
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

        A prompt stands in front of the first text. Errors as for single texts; "chunk" is not for pairs.
        """
        rows = [(prompt + left, right) for left, right in pairs] if prompt else pairs
        # Cut here: the library would keep every piece of one text beside every piece of the other.
        encodings = self._encode(rows, self._without_limit(), parallel=parallel)
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        types = [np.array(encoding.type_ids, dtype=np.int64) for encoding in encodings]
        long = [k for k, row in enumerate(ids) if len(row) > self.max_length]
        for k in long:
            kept = kept_of_pair(encodings[k].sequence_ids, self.max_length, self._side)
            ids[k], types[k] = ids[k][kept], types[k][kept]
        if self._vocabulary is not None:
            self._check_known(encodings, first, ids)
        segments = np.array([np.count_nonzero(row == 0) for row in types], dtype=np.int64)
        warning = self._warning(rows, long, "", first) if long else None
        return Tokenized(
            ids, np.arange(len(ids), dtype=np.int64), len(ids), len(long), warning, first_segments=segments
        )

    def _check_known(
        self, encodings: list[Any], first: int, ids: Sequence[Ids] | None = None, *, chunks: bool = False
    ) -> None:
        """Raise InvalidInputError for a token without a row in the model's word table; `ids` are what is kept."""
        for k, encoding in enumerate(encodings):
            pieces = [encoding, *(encoding.overflowing if chunks else ())]
            for row in [piece.ids for piece in pieces] if ids is None else [ids[k]]:
                unknown = next((int(number) for number in row if number >= self._vocabulary), None)
                if unknown is not None:
                    raise UnknownTokenError(
                        f"text {first + k} has the token {self._tokenizer.id_to_token(unknown)!r} (id {unknown}), and "
                        f"the model knows {self._vocabulary} tokens: take it out of the text, or export a checkpoint "
                        "whose word table is as large as its tokenizer"
                    )

    def _encode(
        self, texts: Sequence[str] | Sequence[Pair], tokenizer: Any = None, *, parallel: bool = True
    ) -> list[Any]:
        tokenizer = self._tokenizer if tokenizer is None else tokenizer
        if (self._parallel and parallel) or len(texts) == 1 or _takes_no_threads():
            return list(tokenizer.encode_batch_fast(texts))
        # One text a call: the library spreads a batch over all cores, however few the caller may use.
        return [tokenizer.encode_batch_fast([text])[0] for text in texts]

    def _warning(self, texts: Sequence[str] | Sequence[Pair], long: list[int], prompt: str, first: int) -> str | None:
        if self.truncation == "truncate":
            logger.info("%d of %d texts cut at %d tokens", len(long), len(texts), self.max_length)
            return None
        tokens = int(self.count(texts[long[0] : long[0] + 1], prompt)[0])
        message = (
            f"text {first + long[0]} has {tokens} tokens, {len(long)} of {len(texts)} texts are over "
            f"max_length {self.max_length}"
        )
        if self.truncation == "error":
            raise TextTooLongError(f"{message}; shorten them, or choose truncation='truncate' or 'chunk'")
        return f"{message} and were cut"

    def count(self, texts: Sequence[str] | Sequence[Pair], prompt: str = "") -> npt.NDArray[np.int64]:
        """Tokens of each text before any cut, special tokens included: (n,) int64."""
        wanted = [prompt + text if isinstance(text, str) else text for text in texts]
        encodings = self._without_limit().encode_batch_fast(wanted)
        return np.array([len(encoding) for encoding in encodings], dtype=np.int64)

    def _without_limit(self) -> Any:
        if self._uncut is None:
            # A second tokenizer, because switching truncation off would disturb other threads.
            free = self._made()
            free.no_padding()
            free.no_truncation()
            self._uncut = free
        return self._uncut

    def around(self) -> tuple[list[int], list[int]]:
        """Special tokens in front of every text, and those behind it."""
        encoding = self._tokenizer.encode("a")
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
        known = self._tokenizer.get_vocab_size() if self._vocabulary is None else self._vocabulary
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
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_to_id(self, token: str) -> int | None:
        """Id of a token of the vocabulary."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's words under these ids; an id without one is written as its number in angle brackets."""
        found = [self._tokenizer.id_to_token(number) for number in ids]
        return [f"<{number}>" if word is None else word for number, word in zip(ids, found, strict=True)]

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens that a prompt takes at the beginning of a text, special tokens in front included.

        Counted as sentence-transformers does: the prompt alone, less a special token at its end.
        """
        encoding = self._tokenizer.encode(prompt)
        mask = encoding.special_tokens_mask
        return len(mask) - (1 if mask and mask[-1] else 0)


def kept_of_pair(sequence_ids: Sequence[int | None], max_length: int, side: str) -> npt.NDArray[np.int64]:
    """Places (at most max_length,) of a pair's tokens that a cut keeps; `side` is where each of the texts loses some.

    `sequence_ids` is 0 or 1 for a text's tokens and None for special ones, all of which stay. Shares are those of the
    Rust library's longest_first: what is shorter than half of the room is kept whole.
    """
    owner = np.array([2 if number is None else number for number in sequence_ids], dtype=np.int64)
    first, second = np.flatnonzero(owner == 0), np.flatnonzero(owner == 1)
    room = max(max_length - int(np.count_nonzero(owner == 2)), 0)
    short = min(len(first), len(second))
    long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    shares = (long, short) if len(first) > len(second) else (short, long)
    special = np.flatnonzero(owner == 2)
    texts = [
        places[:share] if side == "right" else places[max(len(places) - share, 0) :]
        for places, share in zip((first, second), shares, strict=True)
    ]
    return np.sort(np.concatenate([special, *texts]))


def callers_level() -> int:
    """The `stacklevel` with which a warning of our caller points at the code outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        level, frame = level + 1, frame.f_back
    return level
