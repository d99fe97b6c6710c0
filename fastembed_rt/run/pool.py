"""What engines are made of, whatever runs their batches: a pool of threads, and results put in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ..errors import InvalidInputError
from ..system.threads import CLOSED, Call, Task, Workers
from .contract import Results, Running
from .memory import Trimmer

T = TypeVar("T")


class Pool:
    """Threads of one engine, and room for what they make."""

    def __init__(self, threads: int, dim: int, *, objects: bool) -> None:
        """`dim` numbers in a row's result, or an object where `objects`."""
        self.closed = False
        self._dim, self._objects = dim, objects
        self._trimmer = Trimmer()
        self._workers = Workers(threads, "fastembed_rt")

    def background(self, call: Call, function: Callable[..., T], *arguments: object) -> Task[T]:
        """Run a function on one of the threads, behind what waits for them already."""
        return self._workers.start(Task(function, *arguments, call=call))

    def room(self, count: int) -> Results:
        """Zero vectors (count, dim), or None for each row."""
        return np.full(count, None) if self._objects else np.zeros((count, self._dim), dtype=np.float32)

    def collect(self, running: Running) -> Results:
        """Results (n, dim) of batches that run, in the order of their rows; raises what a batch raised."""
        out = self.room(sum(len(batch) for batch, _ in running))
        try:
            for k in range(len(running)):
                out[running[k][0]] = running[k][1].result()
        finally:
            # The batches' vectors are copied, and freed before memory is given back. An error is held by its promise
            # and holds this frame: with a promise in a name of its own here, both would outlive the call.
            running.clear()
        self.trim()
        return out

    def trim(self) -> None:
        """Give back what many batches or a long text have left, unless that was done a moment ago."""
        self._trimmer.after_bulk()

    def check_open(self) -> None:
        """Raise InvalidInputError once it is closed."""
        if self.closed:
            raise InvalidInputError(CLOSED)

    def close(self) -> None:
        """Let the threads go."""
        self.closed = True
        self._workers.close()
