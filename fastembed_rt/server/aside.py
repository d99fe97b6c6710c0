"""Work of requests that no model does, such as /tokenize: in threads of its own, few at a time, given up in time.

asyncio's own threads would do it too, but those are for what is short: a few long texts would hold all of them while
others wait for a tokenizer or a session to be loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..errors import InvalidInputError
from ..system.threads import CLOSED
from .jobs import DeadlineError, FatalError
from .limits import LONG, SHORT

THREADS = 2  # of each lane
Check = Callable[[], None]


class GivenUpError(Exception):
    """Nobody waits for it any more."""


class Errand:
    """Work of one request; made in the event loop that waits for it."""

    __slots__ = ("_aside", "_deadline", "future", "given_up", "loop")

    def __init__(self, aside: Aside, deadline: float) -> None:
        self._aside, self._deadline = aside, deadline
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.given_up = False

    def check(self) -> None:
        """For the thread, between two pieces of the work: end it here where nobody needs the rest.

        Raises:
            GivenUpError: who has asked is gone.
            DeadlineError: the request's seconds are over.
            InvalidInputError: the server has ended.
        """
        if self.given_up:
            raise GivenUpError
        if time.monotonic() > self._deadline:
            raise DeadlineError
        if self._aside.closed:
            raise InvalidInputError(CLOSED)

    def do(self, work: Callable[[Check], bytes]) -> bytes:
        """The work, in a thread; it may have waited for one."""
        self.check()
        return work(self.check)

    def deliver(self, done: Future[bytes]) -> None:
        """Tell the event loop; called by the thread."""
        with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits
            self.loop.call_soon_threadsafe(self._settle, done)

    def _settle(self, done: Future[bytes]) -> None:
        if self.future.done():
            return
        error = InvalidInputError(CLOSED) if done.cancelled() else done.exception()
        if error is None:
            self.future.set_result(done.result())
        elif isinstance(error, Exception):
            self.future.set_exception(error)
        else:  # such as a panic of the tokenizer's library, which must not end who waits
            fatal = FatalError(type(error).__name__)
            fatal.__cause__ = error
            self.future.set_exception(fatal)


class Aside:
    """The threads of one application. Long work holds up no short one: each lane has its own."""

    def __init__(self) -> None:
        self.closed = False
        self._lanes = {lane: ThreadPoolExecutor(THREADS, "fastembed_rt_aside") for lane in (SHORT, LONG)}

    def start(self, work: Callable[[Check], bytes], lane: int, deadline: float) -> Errand:
        """Have it done, which the future then says; the work calls what it is given between its pieces.

        Raises:
            InvalidInputError: the server has ended.
            RuntimeError: there is no thread for it, and the system gives none.
        """
        if self.closed:
            raise InvalidInputError(CLOSED)
        errand = Errand(self, deadline)
        try:
            self._lanes[lane].submit(errand.do, work).add_done_callback(errand.deliver)
        except RuntimeError:
            errand.given_up = True  # it is in the queue all the same
            raise
        return errand

    def close(self) -> None:
        """Take nothing more, and end what runs at its next piece."""
        self.closed = True
        for threads in self._lanes.values():
            threads.shutdown(wait=False, cancel_futures=True)
