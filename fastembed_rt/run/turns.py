"""Small calls of several threads: who finds a place leads its own call; those that wait are run together.

A call that finds nobody before it runs in its caller's thread. What comes meanwhile waits, and a thread of this module,
a worker, takes the place when it is free: it runs all that waits, tokenizing included, and again, until nothing waits.
Handing the place from caller to caller instead, each of whom has to be woken first, left a fifth of two cores idle.

Nothing here is counted or locked by callers, since an exception from outside may end a call at any step. Whether a
caller leads is read from the frame of its call: a call that is over leads no more, whether it said so or not.
"""

from __future__ import annotations

import _thread
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Protocol

import numpy as np

from ..errors import InvalidInputError
from ..system.threads import POLL, Promise, Task, Workers, ended, ends_interpreter, under
from .batching import Ids
from .contract import Make, Results, Rows

CROWDED = 0.02  # seconds for which workers keep their places after a call has found all of them busy


class Run(Protocol):
    """Runs rows, batch after batch."""

    def __call__(self, rows: Sequence[Ids], left_out: Ids, *, alone: bool) -> Results:
        """Results (n, dim); `alone`: no other small call runs now, and all threads are free for this one."""


class _Lead:
    """Who has a place."""

    __slots__ = ("done", "frame", "worker")

    def __init__(self, frame: FrameType) -> None:
        """The call with this frame, or a worker that it calls."""
        self.frame: FrameType | None = frame
        self.worker = False  # one comes, or is there, and nothing interrupts it
        self.done = False  # the worker has gone, whatever is said later of its coming

    def over(self) -> bool:
        """Whether it has ended, however it did."""
        return self.done or (not self.worker and (self.frame is None or ended(self.frame)))

    def under(self) -> bool:
        """Whether it cannot go on before the call of a signal handler that asks."""
        return not (self.worker or self.done) and self.frame is not None and under(self.frame)


class _Small(Promise[Results]):
    """A call that waits."""

    __slots__ = ("frame", "make", "tokens")

    def __init__(self, tokens: int, make: Make, frame: FrameType) -> None:
        super().__init__()
        self.tokens, self.make = tokens, make
        self.frame: FrameType | None = frame

    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        frame = self.frame
        return frame is None or ended(frame)

    def sleep(self) -> None:
        """Until it is finished, or for a moment."""
        if self._lock.acquire(timeout=POLL):
            self._lock.release()


class Turns:
    """Whose turn it is, of a model's small calls."""

    def __init__(self, tokens: int, check_open: Callable[[], None], *, places: int, max_wait: float) -> None:
        """Nobody's.

        Args:
            tokens: about how many are run together.
            check_open: raises where nobody leads any more.
            places: how many lead at a time.
            max_wait: seconds that a call waits for others to join it.
        """
        self._tokens, self._check_open = tokens, check_open
        self._max_wait = max_wait
        self._places = range(places)
        self._leading: dict[int, _Lead] = {}  # by place
        self._queue: dict[_Small, None] = {}  # calls that wait, in the order they came
        self._idle: list[_thread.LockType] = []  # of workers that keep their places
        self._crowded = -math.inf  # when a call last found all places busy, in seconds of time.monotonic
        self._workers = Workers(places, "fastembed_rt_turns")

    def run(self, tokens: int, make: Make, run: Run) -> Results:
        """Results (n, dim) of a call with about so many tokens, whose rows `make` gives when its turn comes.

        `run` is what a turn is for. Kept here, it would keep the engine that is dropped, and its sessions.
        """
        frame = sys._getframe()
        lead = _Lead(frame)
        mine: _Small | None = None
        try:
            if self._max_wait == 0 and self._take_place(lead):
                return self._lead(make, run, alone=self._is_alone(lead))
            if ends_interpreter():  # those who have the places are refused what they want, and linger
                return self._lead(make, run, alone=False)
            mine = _Small(tokens, make, frame)
            self._queue[mine] = None
            if not self._wake_worker():
                self._crowded = time.monotonic()
            while not mine.finished:
                self._check_open()
                helpless = not self._call_worker(run)
                helpless = helpless or any(other.under() for other in list(self._leading.values()))
                if helpless and self._claim(mine):
                    return self._lead(make, run, alone=False)
                mine.sleep()
            return mine.result()
        finally:
            # Should this be left out, by a second interruption: others see that the call is over.
            if mine is not None:
                self._queue.pop(mine, None)
                mine.frame = None  # which holds this call
            self._hand_on(lead, run)
            lead.frame = None
            del frame, mine  # the call's error holds this frame

    def close(self) -> None:
        """Let the threads go."""
        self._workers.close()

    def _take_place(self, lead: _Lead) -> bool:
        """Whether there is a place for it, which it then has."""
        for number in self._places:
            holder = self._leading.setdefault(number, lead)
            if holder is lead:
                return True
            if holder.over():
                # Two callers may find this at once and both lead, which is slower and nothing else.
                self._leading[number] = lead
                return True
        return False

    def _is_alone(self, lead: _Lead) -> bool:
        return len(self._leading) <= 1 or all(other is lead or other.over() for other in list(self._leading.values()))

    def _lead(self, make: Make, run: Run, *, alone: bool) -> Results:
        rows, left_out = make(alone)
        return run(rows, left_out, alone=alone)

    def _claim(self, call: _Small) -> bool:
        """Whether it waits, and is this thread's from now on."""
        return self._queue.pop(call, self) is None  # of several threads, one gets it

    def _hand_on(self, lead: _Lead, run: Run) -> None:
        """A call is over: its place, where it has one, goes to those that wait."""
        for number in self._places:
            if self._leading.get(number) is lead:
                if self._queue:
                    self._start_worker(number, run)
                    continue
                self._leading.pop(number, None)
                if self._queue:  # who came in between has found the place taken, and may sleep already
                    self._call_worker(run)

    def _wake_worker(self) -> bool:
        """Have a worker that sleeps get up; whether there is one."""
        try:
            sleep = self._idle.pop()
        except IndexError:
            return False
        with suppress(RuntimeError):  # it is awake, after a time
            sleep.release()
        return True

    def _call_worker(self, run: Run) -> bool:
        """Where a place is free, have a worker take it; False where the system gives no thread for one."""
        for number in self._places:
            holder = self._leading.get(number)
            if holder is None or holder.over():
                return self._start_worker(number, run)
        return True

    def _start_worker(self, number: int, run: Run) -> bool:
        """Give a place to a worker, whoever has it; False where there is no thread for one."""
        lead = _Lead(sys._getframe())
        try:
            self._leading[number] = lead
            self._workers.start(Task(self._work, number, lead, run))
            lead.worker = True
        except (RuntimeError, InvalidInputError):  # the system gives none, or they have been let go
            return False
        finally:
            lead.frame = None  # without a worker, the place is free
        return True

    def _work(self, number: int, lead: _Lead, run: Run) -> None:
        """On a thread of its own: run what waits until nothing does."""
        lead.worker = True
        try:
            if self._leading.get(number) is lead:  # else two saw the place free
                self._serve(number, lead, run)
        finally:
            lead.done = True  # should it have failed: the place is free

    def _serve(self, number: int, lead: _Lead, run: Run) -> None:
        """A worker's turns."""
        sleep = _thread.allocate_lock()
        sleep.acquire()
        while True:
            if self._max_wait > 0:
                time.sleep(self._max_wait)
            while not self._workers.closed and (group := self._gather()):
                if self._queue and not self._wake_worker():
                    self._call_worker(run)
                self._run_group(group, run, alone=self._is_alone(lead))
            if self._workers.closed:
                self._leading.pop(number, None)
                return
            if time.monotonic() < self._crowded + CROWDED:
                self._idle.append(sleep)
                if not self._queue:
                    sleep.acquire(timeout=CROWDED)
                with suppress(ValueError):  # who woke it took it out
                    self._idle.remove(sleep)
                continue
            self._leading.pop(number, None)
            # Who came in between has found the place taken, and may sleep already.
            if not self._queue or self._leading.setdefault(number, lead) is not lead:
                return

    def _gather(self) -> list[_Small]:
        """Of the calls that wait, the longest first, what is run together."""
        group: list[_Small] = []
        waiting = list(self._queue)
        # A fair part: with all of them, a call that comes back would be ahead of them again and again meanwhile.
        most = max(2, -(-len(waiting) // len(self._places)))
        tokens = 0
        for call in waiting:
            tokens += call.tokens
            if group and (len(group) >= most or tokens > self._tokens):
                break
            if not self._claim(call):
                continue
            try:
                if not call.over():
                    group.append(call)
            except BaseException as error:  # such as no memory: it waits in no queue any more
                call.fail(error)
                _fail(group, error)
                raise
        return group

    def _run_group(self, group: list[_Small], run: Run, *, alone: bool) -> None:
        """Run calls together. One call's fault is no other's."""
        try:
            self._run_calls(group, run, alone=alone)
        except BaseException as error:  # noqa: BLE001  such as no memory for the lists: nobody may wait for ever
            _fail(group, error)
        # An error's traceback holds the frames that led to it, and a call its error: no frame may hold a call.
        group.clear()

    def _run_calls(self, group: list[_Small], run: Run, *, alone: bool) -> None:
        calls, made = [], []
        for call in group:
            found = _made(call, alone=alone and len(group) == 1)
            if found is not None:
                calls.append(call)
                made.append(found)
        results = _together(made, run, alone=alone) if len(made) > 1 else None
        start = 0
        for call, (rows, left_out) in zip(calls, made, strict=True):
            if results is None:
                _run_apart(call, rows, left_out, run, alone=alone)
            else:
                call.keep(results[start : start + len(rows)])
                start += len(rows)
        calls.clear()
        del call


def _fail(group: Sequence[_Small], error: BaseException) -> None:
    """Tell those who have no result yet."""
    for call in group:
        if not call.finished:
            call.fail(error)
        del call


def _made(call: _Small, *, alone: bool) -> Rows | None:
    """A call's rows; None where it fails."""
    try:
        return call.make(alone)
    except BaseException as error:  # noqa: BLE001  it belongs to who waits
        call.fail(error)
        return None
    finally:
        del call


def _together(made: Sequence[Rows], run: Run, *, alone: bool) -> Results | None:
    """Results of the rows of several calls; None where they have to run apart."""
    rows = [row for rows, _ in made for row in rows]
    try:
        return run(rows, np.concatenate([left_out for _, left_out in made]), alone=alone)
    except BaseException:  # noqa: BLE001  each sees its own
        return None


def _run_apart(call: _Small, rows: Sequence[Ids], left_out: Ids, run: Run, *, alone: bool) -> None:
    try:
        call.keep(run(rows, left_out, alone=alone))
    except BaseException as error:  # noqa: BLE001  it belongs to who waits
        call.fail(error)
    finally:
        del call
