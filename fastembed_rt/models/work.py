"""What a task does with the texts of one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..run.contract import Runner, Running
from ..system.progress import Bar, NoBar
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import Window

T_co = TypeVar("T_co", covariant=True)


class Work(Protocol[T_co]):
    """One call's texts on their way through the model."""

    def tokenize(self, window: Window) -> Tokenized:
        """Token ids of some texts."""

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        """(rows,) tokens at the beginning of each row that are told from the rest, as the model's feeds take them."""

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> T_co:
        """What the caller gets for those texts, of results (rows, dim) or (rows,) objects."""


@dataclass(frozen=True)
class Prepared(Generic[T_co]):
    """A call's work with all options resolved, for who brings texts through the engine in an order of its own."""

    work: Work[T_co]
    tokenizer: TextTokenizer  # with the call's policy for texts that are too long
    prompt: str  # in front of each text
    runner: Runner
    count: Callable[[Tokenized], None]  # into the model's `stats`


def show(running: Running, texts: int, bar: NoBar | None) -> None:
    """Move a bar over a window of so many texts as batch after batch is done; raises what a batch raised.

    A text may be several rows, and batches have rows.
    """
    if not isinstance(bar, Bar):
        return
    rows, done = sum(len(batch) for batch, _ in running), 0
    try:
        for k in range(len(running)):
            running[k][1].result()
            done += len(running[k][0])
            bar.early(texts * done // rows)
    except BaseException:
        running.clear()  # as where results are collected: an error that a batch holds would outlive the call
        raise
