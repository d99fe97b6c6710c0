"""Small calls of several threads: one leads at a time, and runs those that wait meanwhile with its own.

Nothing here is counted or locked by callers, since an exception from outside may end a call at any step. Who leads is
read from the frame of its call: a call that is over leads no more, whether it said so or not.
"""

from __future__ import annotations

import _thread
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import FrameType
from typing import Protocol

import numpy as np

from ..errors import from_outside
from ..system.threads import POLL, ended, under
from .batching import Ids
from .contract import Results

NOWHERE = -1  # place of a signal handler's call over one that it has interrupted, which cannot go on before it


class Run(Protocol):
    """Runs rows, batch after batch."""

    def __call__(self, rows: Sequence[Ids], left_out: Ids, *, alone: bool) -> Results:
        """Results (n, dim); `alone`: no other small call runs now, and all threads are free for this one."""


class _Small:
    """A small call."""

    __slots__ = ("_lock", "apart", "finished", "frame", "leader", "left_out", "results", "rows")

    def __init__(self, rows: Sequence[Ids], left_out: Ids) -> None:
        self.rows, self.left_out = rows, left_out
        self.results: Results | None = None
        self.finished = False

    def queue(self, frame: FrameType) -> None:
        """Get ready to wait, which a call that finds nobody before it never does."""
        self.frame: FrameType | None = frame  # its own
        self.leader: FrameType | None = None  # of the call that runs it along
        self.apart = False  # runs with no other: an error came up where it ran with some
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def waits(self) -> bool:
        """Whether it is neither done, nor run along with another call, nor over."""
        return not (self.finished or self.leader is not None or self.over())

    def over(self) -> bool:
        """Whether it has ended, however it did."""
        frame = self.frame
        return frame is None or ended(frame)

    def sleep(self) -> None:
        """Until somebody wakes it, or for a moment."""
        self._lock.acquire(timeout=POLL)

    def wake(self) -> None:
        """Let its thread have a look; for any thread, any number of times."""
        with suppress(RuntimeError):  # it is awake
            self._lock.release()


class Turns:
    """Whose turn it is, of a model's small calls."""

    def __init__(
        self,
        fits: Callable[[Sequence[Ids]], bool],
        check_open: Callable[[], None],
        *,
        places: int,
        max_wait: float,
    ) -> None:
        """Nobody's.

        Args:
            fits: whether rows make one batch.
            check_open: raises where nobody leads any more.
            places: how many calls lead at a time.
            max_wait: seconds that a call waits for others to join it.
        """
        self._fits, self._check_open = fits, check_open
        self._max_wait = max_wait
        self._places = range(places)
        self._leading: dict[int, FrameType] = {}  # by place, the call that has it or is to take it
        self._queue: dict[_Small, None] = {}  # calls that wait, in the order they came

    def run(self, rows: Sequence[Ids], left_out: Ids, run: Run) -> Results:
        """Results (n, dim) of a call's rows, once it has led or another has run it along.

        `run` is what a turn is for. Kept here, it would keep the engine that is dropped, and its sessions.
        """
        frame = sys._getframe()
        mine = _Small(rows, left_out)
        try:
            place = self._take_place(frame)
            if place is None:
                mine.queue(frame)
                self._queue[mine] = None
                place = self._wait(mine, frame)
            if place is not None:
                self._lead(mine, frame, place, run)
        finally:
            # Should this be left out, by a second interruption: others see that the call is over.
            if self._queue:
                self._queue.pop(mine, None)
            for number in self._places:
                if self._leading.get(number) is frame:
                    self._hand_on(number)
            mine.frame = None  # which holds this call
            del frame
        assert mine.results is not None
        return mine.results

    def _take_place(self, frame: FrameType) -> int | None:
        """A place for the call with this frame; None where others have all."""
        for number in self._places:
            holder = self._leading.setdefault(number, frame)
            if holder is frame:
                return number
            if ended(holder):
                # Two callers may find this at once and both lead, which is slower and nothing else.
                self._leading[number] = frame
                return number
        return None

    def _wait(self, mine: _Small, frame: FrameType) -> int | None:
        """A place to lead from, or None when another call has run this one."""
        while not mine.finished:
            if mine.leader is not None and ended(mine.leader) and not mine.finished:
                mine.leader = None  # interrupted before this one was done
                self._queue[mine] = None
            if mine.leader is None:
                place = self._take_place(frame)
                if place is not None:
                    return place
                if any(under(holder) for holder in list(self._leading.values())):
                    return NOWHERE
            self._check_open()
            mine.sleep()
        return None

    def _lead(self, mine: _Small, frame: FrameType, place: int, run: Run) -> None:
        """Run a call, and those that wait with it."""
        if self._max_wait > 0:
            time.sleep(self._max_wait)
        group = self._gather(mine, frame) if self._queue else [mine]
        alone = len(self._leading) <= 1 or not any(
            number != place and not ended(holder) for number, holder in list(self._leading.items())
        )
        try:
            if len(group) == 1:
                mine.results = run(mine.rows, mine.left_out, alone=alone)
                return
            rows = [row for call in group for row in call.rows]
            results = run(rows, np.concatenate([call.left_out for call in group]), alone=alone)
        except BaseException as error:
            for call in group[1:]:  # one call's fault must not be another's
                call.apart = True
                self._queue[call] = None
                call.leader = None
                call.wake()
            if len(group) == 1 or from_outside(error):
                raise
            mine.results = run(mine.rows, mine.left_out, alone=True)
            return
        start = 0
        for call in group:
            call.results = results[start : start + len(call.rows)]
            start += len(call.rows)
            call.finished = True
            if call is not mine:
                call.wake()

    def _gather(self, mine: _Small, frame: FrameType) -> list[_Small]:
        """A call, and of those that wait what fits into one batch with it."""
        group, rows = [mine], list(mine.rows)
        self._queue.pop(mine, None)
        if getattr(mine, "apart", False):  # which only calls have that have waited
            return group
        leading = list(self._leading.values())
        # A fair part: with all of them, a call that comes back would be ahead of them again and again meanwhile.
        most = max(2, -(-(len(self._queue) + 1) // len(self._places)))
        for call in self._waiting():
            if len(group) >= most:
                break
            if call.apart or any(call.frame is other for other in leading):
                continue
            rows += call.rows
            if not self._fits(rows):
                break
            call.leader = frame
            self._queue.pop(call, None)
            group.append(call)
        return group

    def _hand_on(self, place: int) -> None:
        """Give a place to the call that waits longest, or leave it free."""
        heir = self._heir() if self._queue else None
        frame = None if heir is None else heir.frame
        if frame is None:  # nobody waits, or who did has just ended
            self._leading.pop(place, None)
            if not self._queue:
                return
            # Who came in between has found the place taken, and may sleep already.
            heir = self._heir()
        else:
            self._leading[place] = frame
        if heir is not None:
            heir.wake()

    def _heir(self) -> _Small | None:
        leading = list(self._leading.values())
        return next((call for call in self._waiting() if all(call.frame is not other for other in leading)), None)

    def _waiting(self) -> Iterator[_Small]:
        """Calls that wait, the longest first; one that is over goes, if it was put back meanwhile or did not say so."""
        for call in list(self._queue):
            if call.waits():
                yield call
            elif call.over():
                self._queue.pop(call, None)
