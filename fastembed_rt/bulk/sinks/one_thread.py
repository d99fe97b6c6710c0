"""A store that knows one thread, whichever threads of a run write into it: handles such as sqlite3's want that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ...errors import FastembedRtError
from ...system.threads import Task, Workers
from . import Sink

T = TypeVar("T")


class InOneThread:
    """Opens, fills and closes a store in a thread of its own; each call waits until it is done there.

    Raises:
        FastembedRtError: the store's own, or one that says what its client raised: it is away, full, or refuses.
    """

    def __init__(self, opened: Callable[[], Sink]) -> None:
        self._workers = Workers(1, "fastembed_rt_sink")
        try:
            with _said("--to cannot be opened", ""):
                self._sink = self._do(opened)
        except BaseException:
            self._workers.close()
            raise

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        with _said(f"part {part} did not come into the database", "; --resume goes on with it"):
            self._do(self._sink.write, part, table)

    def close(self) -> None:  # noqa: D102
        try:
            self._do(self._sink.close)
        finally:
            self._workers.close()

    def _do(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._workers.start(Task(function, *arguments)).result()


@contextlib.contextmanager
def _said(what: str, advice: str) -> Iterator[None]:
    """Errors of a store's client in a sentence; nobody knows beforehand which ones it has."""
    try:
        yield
    except FastembedRtError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise FastembedRtError(f"{what} ({said}){advice}") from error
