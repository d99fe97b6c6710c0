"""What sessions and engines are to everybody else, whatever runs behind them: one graph; one model's graphs on threads.

B texts in a batch, n rows in a call, dim numbers in a vector. The kinds: Session, CudaSession, TensorrtSession; Engine,
DeviceEngine. tests/runtime/run/test_contract.py holds each to all of this, through EmbeddingModel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..records import record
from ..system.threads import Call, Promise, Task
from .batching import Feeds, Ids, Limits

Output = npt.NDArray[np.float32]  # of a graph: for vectors (B, dim)
Results = npt.NDArray[Any]  # float32 (n, dim), or (n,) objects
Running = list[tuple[Ids, Promise[Results]]]  # row numbers of each batch, and its results to come
# What a graph with these inputs takes for rows of token ids: rows, inputs, pad id, tokens left out of the pooling (n,).
Feeder = Callable[[Sequence[Ids], Sequence[str], int, Ids], Feeds]
Rows = tuple[Sequence[Ids], Ids]  # of a call, and (n,) tokens at the beginning of each that are not pooled
Make = Callable[[bool], Rows]  # makes them when the call's turn comes; told whether nothing else runs
Split = Callable[[Output, Sequence[Ids]], Sequence[Any]]  # an object for each row, made of the graph's output


@record(frozen=True)
class Facts:
    """What an engine has to know of a session to use it well."""

    inputs: tuple[str, ...]  # names of what `run` takes
    padded: bool = True  # a batch costs as much as if each of its rows were as long as the longest
    takes_all: bool = False  # bulk and small calls take one session: a batch fills the device, threads only feed it
    batch_tokens: int | None = None  # in a batch, as measured; fewer than the caller's bound, where that is a default
    light: bool = False  # another session of the same graph takes the same packed weights


class GraphSession(Protocol):
    """One graph that is loaded. Safe to run from several threads at once."""

    @property
    def facts(self) -> Facts:
        """What is true of it for good."""

    @property
    def handles(self) -> tuple[object, ...]:
        """The objects behind onnxruntime's Python sessions, which own threads: in a forked child they must not die."""

    def run(self, feeds: Feeds) -> Output:
        """The output for one batch, feeds by input name: for vectors (B, dim).

        Raises:
            InvalidInputError: more tokens in a text than the session takes.
        """

    def close(self) -> None:
        """Let threads of its own go; it is not run again. Twice is once."""


class Runner(Protocol):
    """What encodes the rows of a model. Safe to use from several threads; an interrupted call leaves nothing behind."""

    @property
    def sessions(self) -> tuple[GraphSession, ...]:
        """Those that are loaded in this process."""

    @property
    def limits(self) -> Limits:
        """What may be one batch."""

    @property
    def side_by_side(self) -> int:
        """Batches that run at a time where there are enough of them."""

    @property
    def spare(self) -> bool:
        """Whether cores are free beside what runs: then a tokenizer's own threads wait for none of it."""

    def run_batch(self, rows: Sequence[Ids], left_out: Ids, *, alone: bool) -> Results:
        """Results (n, dim) of one batch, for callers that see to whose turn it is themselves.

        `left_out` (n,) as for `run_small`; `alone`: nothing else runs now, and all threads are free for it.

        Raises:
            InvalidInputError: the engine is closed.
        """

    def is_small(self, rows: Sequence[Ids]) -> bool:
        """Whether `run_small` is sooner done with these rows, each (tokens,), than `submit` and `collect`."""

    def run_small(self, rows: Sequence[Ids], left_out: Ids) -> Results:
        """Results (n, dim) of a few rows; calls of other threads may run with it.

        `left_out` (n,) is how many tokens at the beginning of each row are not pooled.

        Raises:
            InvalidInputError: the engine is closed.
        """

    def run_few(self, tokens: int, make: Make) -> Results:
        """Results (n, dim) of a few rows, about so many tokens, which `make` gives in whichever thread runs them.

        Raises:
            InvalidInputError: the engine is closed.
            Exception: whatever `make` raises.
        """

    def submit(self, rows: Sequence[Ids], left_out: Ids, call: Call) -> Running:
        """Start bulk work on n rows; what has not begun when `call` is given up is not done.

        `left_out` (n,) as for `run_small`.

        Raises:
            InvalidInputError: the engine is closed.
        """

    def background(self, call: Call, function: Any, *arguments: Any) -> Task[Any]:
        """Run a function on one of the engine's threads, behind what waits for them already."""

    def collect(self, running: Running) -> Results:
        """Results (n, dim) of what `submit` started, in the order of its rows; raises what a batch raised."""

    def close(self) -> None:
        """Let threads and processes go; what waits for them is an error, and so is all further use. Twice is once."""
