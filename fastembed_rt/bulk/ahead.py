"""Work in threads of its own beside the model's: what reads ahead of it, and what writes behind it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
POLL = 0.1  # seconds after which who waits looks whether it is still wanted
DEPTH = 2  # things that wait


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """The things of an iterator, made in a thread of their own and handed over in order."""

    def __init__(self, things: Callable[[], Iterator[T]], depth: int = DEPTH) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._things = things
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._make, name="fastembed_rt_reader", daemon=True)
        self._thread.start()

    def _make(self) -> None:
        end = _End()
        try:
            with contextlib.closing(self._things()) as things:  # type: ignore[type-var]
                for thing in things:
                    if not self._put(thing):
                        return
        except BaseException as error:  # noqa: BLE001 - whoever takes the things gets it
            end = _End(error)
        self._put(end)

    def _put(self, thing: Any) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(thing, timeout=POLL)
                return True
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            thing = self._queue.get()
            if isinstance(thing, _End):
                if thing.error is not None:
                    raise thing.error
                return
            yield thing

    def stop(self) -> None:
        """Nobody wants more; returns when the thread has ended."""
        self._stopped.set()
        self._thread.join()


class Behind:
    """Tasks that run one after the other in a thread of their own; an error comes out at the next call.

    None waits behind another: what a task holds, such as the vectors of a part, is there twice at most.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="fastembed_rt_writer", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            if self._error is None:
                try:
                    task()
                except BaseException as error:  # noqa: BLE001 - whoever hands over the next task gets it
                    self._error = error
            del task  # and what it holds, before the next one comes
            self._queue.task_done()

    def put(self, task: Callable[[], object]) -> None:
        """Hand over a task, when the one before is done."""
        self._queue.join()
        self._check()
        self._queue.put(task)

    def finish(self) -> None:
        """Wait until all tasks are done."""
        self._queue.put(None)
        self._thread.join()
        self._check()

    def stop(self) -> None:
        """Wait until all tasks are done, and leave their errors alone: the caller has one of its own."""
        self._queue.put(None)
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
