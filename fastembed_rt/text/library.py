"""The Rust library's tokenizer of a file: made when a text comes that needs it, with a limit and without one.

Knows no policy and no prompt. Padding is the batcher's, so its own is switched off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..errors import ModelFormatError, from_outside
from .caps import STEPS, cutter, long_from, settings_of
from .pairs import Pair
from .parts import PART, Encoded, Parts, parts

THREADS = "TOKENIZERS_PARALLELISM"


def takes_no_threads() -> bool:
    """Whether the library uses no threads of its own, as its variable may say."""
    return os.environ.get(THREADS, "on").lower() in ("", "0", "f", "false", "n", "no", "off")


def on_the_same_model(tokenizer: Any) -> Any:
    """Another tokenizer that works alike and cuts otherwise; None where it is not certain that it does.

    The vocabulary of a multilingual model takes hundreds of megabytes: they have it in common.
    """
    from tokenizers import Tokenizer

    made = Tokenizer(tokenizer.model)
    for step in STEPS:
        if (done := getattr(tokenizer, step)) is not None:
            setattr(made, step, done)
    added = [token for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    for special, tokens in groupby(added, key=attrgetter("special")):
        (made.add_special_tokens if special else made.add_tokens)(list(tokens))
    return made if _added(made) == _added(tokenizer) else None


def _added(tokenizer: Any) -> dict[int, tuple[object, ...]]:
    flags = attrgetter("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {number: flags(token) for number, token in tokenizer.get_added_tokens_decoder().items()}


class Library:
    """One file and one limit. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        read: Callable[[], bytes],
        *,
        max_length: int,
        side: str,
        whole: bool,
        parallel: bool,
        of_pairs: bool,
        like: Library | None = None,
    ) -> None:
        """`read` gives the contents of the file, now and when they are wanted again.

        `side` is where a text over max_length loses tokens, `whole`: what it loses is wanted too. `parallel` and
        `of_pairs` are TextTokenizer's. `like` is of the same file, with another limit or side.

        Raises:
            ModelFormatError: the file cannot be read.
        """
        self._path, self._read = path, read
        self._first: list[Any] = [] if like is None else like._first  # tokenizer made of the file, for all like this
        self.content: bytes | None = None if self._first else self._bytes()  # until a tokenizer is made of it
        self.max_length, self._side, self._whole = max_length, side, whole
        self._parallel, self._of_pairs = parallel, of_pairs
        self._made_limited: Any = None
        self._made_free: Any = None
        self._special_ids: frozenset[int] | None = None
        self._shorten: Callable[[str], str] | None = None  # when there is a long text
        self._parts: list[Parts | None] = []  # one, when there is a very long text

    @property
    def limited(self) -> Any:
        """The tokenizer that cuts; of pairs it does not. Making it takes 50 ms.

        Two threads may make two, of which one is kept: a lock could be held for ever in a forked process.
        """
        if self._made_limited is None:
            self._made_limited = self._limited()
        return self._made_limited

    @property
    def free(self) -> Any:
        """One that does not cut."""
        if self._of_pairs:
            return self.limited
        if self._made_free is None:
            # A second tokenizer, because switching truncation off would disturb other threads.
            self._made_free = self._uncutting()
        return self._made_free

    def _uncutting(self) -> Any:
        """A tokenizer that neither cuts nor pads, on the vocabulary of the first; the first where there is none."""
        content = self.content
        made = on_the_same_model(self._first[0]) if self._first else None
        if made is None:
            made = self.make(content)
            self._first.append(made)
            del self._first[1:]  # of threads that make one at once
            if self._first[0] is not made:
                made = on_the_same_model(self._first[0]) or made
        self.content = None  # after it: who finds none finds a tokenizer
        made.no_padding()
        made.no_truncation()
        return made

    def make(self, content: bytes | None = None) -> Any:
        """One of its own, as the file says.

        Raises:
            ModelFormatError: the file is none of a tokenizer.
        """
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

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that the file calls special."""
        if self._special_ids is None:  # no cached_property: before Python 3.12 it holds a lock, which forks leave held
            added = self.limited.get_added_tokens_decoder()
            self._special_ids = frozenset(number for number, token in added.items() if token.special)
        return self._special_ids

    def special(self) -> int:
        """Special tokens of a text, or of a pair."""
        number: int = self.limited.num_special_tokens_to_add(self._of_pairs)
        return number

    def encode(
        self, texts: Sequence[str] | Sequence[Pair], tokenizer: Any = None, *, parallel: bool = True
    ) -> list[Any]:
        """Encodings by a tokenizer, the one that cuts unless another is given; without `parallel` on one core."""
        tokenizer = self.limited if tokenizer is None else tokenizer
        if (self._parallel and parallel) or len(texts) == 1 or takes_no_threads():
            return list(tokenizer.encode_batch_fast(texts))
        # One text a call: the library spreads a batch over all cores, however few the caller may use.
        return [tokenizer.encode_batch_fast([text])[0] for text in texts]

    def uncut(self, texts: Sequence[str], *, parallel: bool) -> Iterator[Any]:
        """Encodings of texts with places, one after the other, so that those of very long texts are not all there."""
        long = {k for k, text in enumerate(texts) if len(text) > PART}
        others = [text for k, text in enumerate(texts) if k not in long]
        together = self._parallel and parallel
        found = iter(self.free.encode_batch(others) if together and others else map(self.free.encode, others))
        for k, text in enumerate(texts):
            if k not in long:
                yield next(found)
            else:
                yield self._in_parts(text, offsets=True, parallel=parallel) or self.free.encode(text)

    def counts(self, texts: Sequence[str | Pair]) -> list[int]:
        """Tokens of each text, or of each pair, uncut, special ones included."""
        long = {k: self._in_parts(text, offsets=False) for k, text in enumerate(texts) if len(text) > PART}
        found = iter(self.free.encode_batch_fast([text for k, text in enumerate(texts) if long.get(k) is None]))
        return [len(next(found)) if (encoded := long.get(k)) is None else len(encoded) for k in range(len(texts))]

    def _in_parts(self, text: str | Pair, *, offsets: bool, parallel: bool = True) -> Encoded | None:
        """A very long text, uncut; None where the library has to have all of it at once."""
        if not isinstance(text, str):
            return None
        if not self._parts:
            self._parts = [parts(self.free)]
        (made,) = self._parts
        return None if made is None else made.encoded(text, offsets=offsets, parallel=self._parallel and parallel)

    def _cut(self, texts: Sequence[str], *, parallel: bool = True) -> list[Any]:
        """Encodings of texts, cut at the limit."""
        if max(map(len, texts), default=0) <= PART:  # nearly always
            return self.encode(texts, parallel=parallel)
        side, long = "right" if self._whole else self._side, dict[int, Encoded]()
        for k, text in enumerate(texts):
            if len(text) > PART and (encoded := self._in_parts(text, offsets=False, parallel=parallel)) is not None:
                (made,) = self._parts
                assert made is not None
                long[k] = made.cut(encoded, self.max_length, side)
        others = [text for k, text in enumerate(texts) if k not in long]
        found = iter(self.encode(others, parallel=parallel) if others else [])
        return [long[k] if k in long else next(found) for k in range(len(texts))]

    def first_tokens(self, texts: Sequence[str], *, parallel: bool) -> tuple[list[Any], list[int]]:
        """Encodings of texts; and numbers of those whose beginning alone was looked at, and is enough."""
        begin = self._beginnings(texts)
        found = self._cut(begin, parallel=parallel)
        if begin is texts:
            return found, []
        short = [k for k, text in enumerate(begin) if text is not texts[k]]
        again = [k for k in short if len(found[k].ids) < self.max_length]  # then the rest matters
        for k in again:
            found[k] = self._cut([texts[k]])[0]
        return found, [k for k in short if k not in again and not found[k].overflowing]

    def pairs(self, pairs: Sequence[Pair], *, parallel: bool) -> list[Any]:
        """Encodings of pairs, uncut, or with as much of a very long text as tells what is kept of the pair."""
        if not pairs:
            return []
        texts = [text for pair in pairs for text in pair]
        begin = self._beginnings(texts)
        found = self.encode(list(zip(begin[::2], begin[1::2], strict=True)), self.free, parallel=parallel)
        for k, pair in enumerate(pairs):
            short = [begin[2 * k + side] is not text for side, text in enumerate(pair)]
            if not any(short):
                continue
            numbers = found[k].sequence_ids
            over = [numbers.count(side) > self.max_length for side in range(2)]
            # The beginning of one text is enough, if it is more than there is room for and the other is whole and less.
            if over != short or all(short):
                found[k] = self.encode([pair], self.free)[0]
        return found

    def _beginnings(self, texts: Sequence[str]) -> Sequence[str]:
        """Texts without what may not matter of them."""
        if not texts or self._whole or self._side != "right" or max(map(len, texts)) <= long_from(self.max_length):
            return texts
        if self._shorten is None:
            self._shorten = cutter(settings_of(self.limited), self.max_length) or (lambda text: text)
        return [self._shorten(text) for text in texts]

    def _limited(self) -> Any:
        tokenizer = self._uncutting()
        if not self._of_pairs and self.max_length > tokenizer.num_special_tokens_to_add(False):  # else it is refused
            # Where nothing is lost, pieces begin at a text's beginning, where its prompt stands.
            tokenizer.enable_truncation(self.max_length, direction="right" if self._whole else self._side)
        return tokenizer

    def _bytes(self) -> bytes:
        try:
            return self._read()
        except OSError as error:
            raise ModelFormatError(f"{self._path} cannot be read ({error.strerror}); export the model again") from error
