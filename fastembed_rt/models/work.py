"""What a task does with the texts of one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..run.contract import Runner
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
