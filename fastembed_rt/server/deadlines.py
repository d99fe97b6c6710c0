"""Ends what is not done in time, with one timer for all: setting and cancelling one takes longer than a dictionary."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol


class Late(Protocol):
    """What has a time."""

    deadline: float  # seconds of time.monotonic

    def end_late(self) -> None:
        """Its time is over."""


class Deadlines:
    """Of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Late, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when the timer looks, in seconds of time.monotonic

    def add(self, late: Late) -> None:
        """Call its `end_late` at its deadline, unless it is taken out before."""
        self._waiting[late] = None
        if late.deadline < self._next:
            self._set(late.deadline)

    def discard(self, late: Late) -> None:
        """Leave it out; nothing where it is not in."""
        self._waiting.pop(late, None)

    def _set(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = deadline
        self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0.0), self._look)

    def _look(self) -> None:
        self._timer, self._next = None, math.inf
        now = time.monotonic()
        for late in [late for late in self._waiting if late.deadline <= now]:
            self.discard(late)
            late.end_late()
        if self._waiting:
            self._set(min(late.deadline for late in self._waiting))
