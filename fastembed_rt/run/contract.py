"""What sessions and engines are to everybody else, whatever runs behind them: one graph; one model's graphs on threads.

The kinds: Session, CudaSession, TensorrtSession; Engine, DeviceEngine. tests/runtime/run/test_contract.py holds each
to all of this, through EmbeddingModel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..system.threads import Call, Promise, Task
from .batching import Ids

Vectors = npt.NDArray[Any]  # float32 (n, dim), or one object a row
Running = list[tuple[Ids, Promise[Vectors]]]  # row numbers of each batch, and its vectors to come
T = TypeVar("T")


class GraphSession(Protocol):
    """One graph that is loaded. Safe to run from several threads at once."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what `run` takes."""

    @property
    def shared(self) -> bool:
        """Whether bulk and small calls take this same session: a batch fills the device, threads only feed it."""

    @property
    def own_operators(self) -> bool:
        """Made of operators that fill no row up to another's length; sessions of a process share packed weights."""

    @property
    def native(self) -> Any:
        """The objects behind onnxruntime's Python sessions, which own threads: in a forked child they must not die."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The output for one batch, feeds by input name: for vectors (B, dim).

        Raises:
            InvalidInputError: more tokens in a text than the session takes.
        """


class Runner(Protocol):
    """What encodes the rows of a model. Safe to use from several threads; an interrupted call leaves nothing behind."""

    @property
    def sessions(self) -> tuple[GraphSession, ...]:
        """Those that are loaded in this process."""

    def is_small(self, rows: Sequence[Ids]) -> bool:
        """Whether `run_small` is sooner done with these rows than `submit` and `collect`."""

    def run_small(self, rows: Sequence[Ids], left_out: Ids) -> Vectors:
        """Vectors (n, dim) of a few rows; calls of other threads may run with it.

        `left_out` (n,) is how many tokens at the beginning of each row are not pooled.

        Raises:
            InvalidInputError: the engine is closed.
        """

    def submit(self, rows: Sequence[Ids], left_out: Ids, call: Call) -> Running:
        """Start bulk work; what has not begun when `call` is given up is not done.

        Raises:
            InvalidInputError: the engine is closed.
        """

    def background(self, call: Call, function: Any, *arguments: Any) -> Task[Any]:
        """Run a function on one of the engine's threads, behind what waits for them already."""

    def collect(self, running: Running) -> Vectors:
        """Vectors (n, dim) of what `submit` started, in the order of its rows; raises what a batch raised."""

    def close(self) -> None:
        """Let threads and processes go; what waits for them is an error, and so is all further use. Twice is once."""
