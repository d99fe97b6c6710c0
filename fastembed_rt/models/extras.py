"""What a call may ask for beside its vectors, wrapped around its work: calls that do not ask pay nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..system.progress import NoBar, progress
from ..text.columns import Texts
from ..text.inputs import counted
from ..text.tokenizer import Tokenized
from ..text.windows import ERROR, TEXTS, Window, WindowWithNulls, check_on_null, windows
from .work import Work

T = TypeVar("T")


class Encoded(NamedTuple):
    """What `return_tokens=True` gives."""

    vectors: Any  # as without it
    tokens: Any  # (n,) int64 tokens as they ran: special tokens and prompt included, cut ones not; an int for one text


class Counted(Generic[T]):
    """Work that counts the tokens of each text."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self.tokenize, self.boundaries = work.tokenize, work.boundaries
        self._counts: list[npt.NDArray[np.int64]] = []

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> T:
        """As the work does."""
        lengths = [len(row) for row in tokenized.ids]
        self._counts.append(np.bincount(tokenized.owner, lengths, tokenized.texts).astype(np.int64))
        return self._work.finish(tokenized, results)

    def encoded(self, vectors: Any, *, single: bool) -> Encoded:
        """The vectors with the counts of all texts so far."""
        counts = np.concatenate(self._counts) if self._counts else np.empty(0, np.int64)
        return Encoded(vectors, int(counts[0]) if single else counts)


class Zeroed(Generic[T]):
    """Work whose texts may be none, which get `zero`."""

    def __init__(self, work: Work[T], zero: Callable[[], Any]) -> None:
        self._work, self._zero = work, zero
        self.boundaries = work.boundaries
        self._nulls: dict[int, tuple[int, ...]] = {}  # by identity of what is tokenized: the next window is so ahead

    def tokenize(self, window: Window) -> Tokenized:
        """As the work does; which of them are none is kept until they are finished."""
        assert isinstance(window, WindowWithNulls)
        made = self._work.tokenize(window)
        self._nulls[id(made)] = window.nulls
        return made

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> T:
        """As the work does, and `zero` for those that are none."""
        made: Any = self._work.finish(tokenized, results)
        for k in self._nulls.pop(id(tokenized)):
            made[k] = self._zero()
        return made  # type: ignore[no-any-return]


def asked(
    work: Work[T], on_null: str, zero: Callable[[], Any], *, return_tokens: bool
) -> tuple[Work[T], Counted[T] | None]:
    """Work with what a call asked for, and what counts, if something does.

    Raises:
        InvalidInputError: `on_null` is not known.
    """
    check_on_null(on_null)
    if on_null == "zero":
        work = Zeroed(work, zero)
    if not return_tokens:
        return work, None
    counting = Counted(work)
    return counting, counting


class Run(Protocol):
    """A model's `_work`."""

    def __call__(
        self, pieces: Iterator[Window], work: Work[T], *, ahead: bool, bar: NoBar | None = None
    ) -> Iterator[T]:
        """Finished results of each window."""


def lists(
    run: Run,
    inputs: Texts,
    call: Work[list[Any]],
    show: bool | None,
    on_null: str,
    zero: Callable[[], Any],
    *,
    return_tokens: bool,
) -> Any:
    """An object for a text, or a list of one for each, in input order; `Encoded` where tokens are asked for."""
    single = isinstance(inputs, str)
    count, texts = counted(inputs)
    work, counting = asked(call, on_null, zero, return_tokens=return_tokens)
    out: list[Any] = []
    with progress(count, show) as bar:
        for found in run(windows(texts, (TEXTS,), nulls=on_null != ERROR), work, ahead=True, bar=bar):
            out += found
            bar.update(len(found))
    made = out[0] if single else out
    return made if counting is None else counting.encoded(made, single=single)
