"""A store that knows one thread, whichever threads of a run write into it: handles such as sqlite3's want that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...system.threads import Task, Workers
from . import Sink

T = TypeVar("T")


class InOneThread:
    """Opens, fills and closes a store in a thread of its own; each call waits until it is done there."""

    def __init__(self, opened: Callable[[], Sink]) -> None:
        self._workers = Workers(1, "fastembed_rt_sink")
        try:
            self._sink = self._do(opened)
        except BaseException:
            self._workers.close()
            raise

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        self._do(self._sink.write, part, table)

    def close(self) -> None:  # noqa: D102
        try:
            self._do(self._sink.close)
        finally:
            self._workers.close()

    def _do(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._workers.start(Task(function, *arguments)).result()
