"""Texts of all connections gathered by tokens into the engine's batches. Knows no HTTP and no JSON.

Two lanes, each with threads of its own: short requests, and long ones. A short one so waits for no long job: the
system shares the cores between the lanes, which is fair by the time that tokens take. In a lane the requests take
turns, a batch each, and what a batch has room for is filled up from the next ones.

A short request that finds nothing else to do runs in the event loop itself, where that takes no longer than a few
milliseconds: no thread has to be woken, and none has to wake the loop.
"""

from __future__ import annotations

import _thread
import atexit
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import InvalidInputError
from ..run.batching import Ids
from ..run.contract import Runner
from ..system.threads import CLOSED
from ..text.windows import estimate
from .jobs import DeadlineError, Job, Piece, deliver, fail, is_short, settle, tokenize_together

LOOP_SECONDS = 0.005  # that an event loop may be kept by a request that runs in it
APART = 0.05  # seconds since two requests met, before one runs in the loop: threads batch what comes together
LONG_REQUESTS = 16  # that take turns at a time; those behind them wait
Observe = Callable[[int, int, int, float], None]  # of a batch: texts, tokens, tokens with padding, seconds
Share = tuple[Piece, list[int]]  # rows of a piece that run in one batch


class _Lane:
    """Jobs that wait, and the threads that work for them."""

    def __init__(self, ahead: int) -> None:
        """So many pieces are tokenized at least, where that many wait: their requests take turns."""
        self.ahead = ahead
        self.fresh: deque[Piece] = deque()  # not tokenized
        self.ready: deque[Piece] = deque()
        self.tokens = 0  # that are ready
        self.idle: list[_thread.LockType] = []  # of threads that sleep
        self.threads = 0

    def waits(self) -> bool:
        """Whether there is something to do."""
        return bool(self.fresh or self.ready)


class _Pace:
    """How long a batch takes that runs alone, judged by those that did."""

    def __init__(self) -> None:
        self._each: float | None = None  # seconds a token
        self._least = 0.0  # seconds of a batch, however short

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long."""
        each = seconds / max(tokens, 1)
        if self._each is None or each > self._each:
            self._each = each  # at once: a loop that is kept too long is worse than a thread too many
        else:
            self._each += (each - self._each) / 4
        self._least = min(seconds, 1.1 * self._least or seconds)

    def seconds(self, tokens: int) -> float:
        """That a batch will take; without end where none has run."""
        return math.inf if self._each is None else max(tokens * self._each, self._least)


class Gatherer:
    """What runs the jobs of one engine. `submit` is for event loops, the rest is done by threads."""

    def __init__(self, runner: Runner, observe: Observe | None = None) -> None:
        """`observe` is told of every batch, by the thread that ran it."""
        self._runner = runner
        self._limits = runner.limits
        self._observe = observe
        self._lock = threading.Lock()  # of a few steps that wait for nothing
        self._short, self._long = _Lane(0), _Lane(LONG_REQUESTS)
        self._running = 0  # batches
        self._pace = _Pace()
        self._in_process = bool(runner.sessions)  # else processes have them, which may die under a batch
        self._met = -math.inf  # when a request last found another, in seconds of time.monotonic
        self._closed = False
        self._threads: set[threading.Thread] = set()
        _all.add(self)

    def submit(self, job: Job, tokens: int) -> None:
        """Have a job done, which its future then says; `tokens` is about how many it has.

        Raises:
            InvalidInputError: it is closed.
            RuntimeError: there is no thread for it, and the system gives none.
        """
        lane = self._short if is_short(tokens, len(job.texts), self._limits.tokens) else self._long
        with self._lock:
            if self._closed:
                raise InvalidInputError(CLOSED)
            if not self._is_idle():
                self._met = job.queued
            quick = self._pace.seconds(tokens) <= LOOP_SECONDS
            in_loop = quick and self._in_process and lane is self._short and job.queued > self._met + APART
            lane.fresh.append(Piece(job, 0))
            if not in_loop:
                try:
                    self._wake(lane)
                except RuntimeError:
                    lane.fresh.pop()
                    raise
        if in_loop:
            job.loop.call_soon(self._run_in_loop, job)  # after what else has come by now

    def waiting(self) -> tuple[int, int]:
        """Requests that have texts in the queue, short and long ones."""
        with self._lock:
            lanes = (self._short, self._long)
            short, long = (len({id(p.job) for p in (*lane.fresh, *lane.ready)}) for lane in lanes)
        return short, long

    def close(self) -> None:
        """Refuse what comes, fail what waits, and let the threads go when they are done with what they do."""
        with self._lock:
            self._closed = True
            waiting = [piece.job for lane in (self._short, self._long) for piece in (*lane.fresh, *lane.ready)]
            for lane in (self._short, self._long):
                lane.fresh.clear()
                lane.ready.clear()
                lane.tokens = 0
                while lane.idle:
                    lane.idle.pop().release()
        for job in waiting:
            fail(job, InvalidInputError(CLOSED))
        deliver(waiting)

    def _wake(self, lane: _Lane) -> None:
        """A thread for what waits; the lock is held."""
        if lane.idle:
            lane.idle.pop().release()
        elif lane.threads < self._runner.side_by_side:
            lane.threads += 1
            thread = threading.Thread(target=self._work, args=(lane,), name="fastembed_rt_server", daemon=True)
            try:
                thread.start()
                self._threads.add(thread)
            except RuntimeError:  # the system gives no thread more: those that there are do the work
                lane.threads -= 1
                if not lane.threads:
                    raise

    def _is_idle(self) -> bool:
        """Whether nothing runs or waits; the lock is held."""
        return self._running == 0 and not (self._short.waits() or self._long.waits())

    def _run_in_loop(self, job: Job) -> None:
        """In the job's event loop: do it, where it is all that waits still; else threads have it."""
        try:
            piece = self._piece_in_loop(job)
        except RuntimeError as error:  # no thread for it
            fail(job, error)
            settle([job])
            return
        if piece is None:
            return
        if len(piece.order) > 1:
            self._run([(piece, piece.order)], settle, alone=True)
            return
        try:
            began = time.monotonic()
            piece.results = self._runner.run_batch(piece.tokenized.ids, piece.boundaries, alone=True)
            job.started = began
            self._ran(1, piece.length, piece.length, time.monotonic() - began, alone=True)
            self._finish(piece)
        except BaseException as error:
            fail(job, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):  # the event loop's own end
                raise
        finally:
            with self._lock:
                self._running -= 1
            settle([job])

    def _piece_in_loop(self, job: Job) -> Piece | None:
        """The job's texts, tokenized and counted as running; None where threads have them, or nobody wants them."""
        lane = self._short
        with self._lock:
            mine = len(lane.fresh) == 1 and lane.fresh[0].job is job
            if not mine or self._running or lane.ready or self._long.waits():  # others have come
                if lane.waits():
                    self._wake(lane)
                return None
            piece = lane.fresh.popleft()
            self._running += 1
        ran = False
        try:
            if _dropped(job):
                return None
            piece.tokenize(parallel=True)
            # Tokens were estimated before.
            ran = self._pace.seconds(piece.length) <= LOOP_SECONDS and self._is_one_batch(piece)
        except BaseException as error:
            fail(job, error)
            settle([job])
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return None
        finally:
            if not ran:
                with self._lock:
                    self._running -= 1
        if ran:
            return piece
        self._have_ready(lane, [piece], [])
        with self._lock:
            if lane.waits():
                self._wake(lane)
        return None

    def _is_one_batch(self, piece: Piece) -> bool:
        lengths = [len(row) for row in piece.tokenized.ids]
        if len(lengths) == 1:
            return True
        most = max(lengths) * len(lengths) if self._limits.padded else piece.length
        return most <= self._limits.tokens and (self._limits.mixed_lengths or max(lengths) == min(lengths))

    def _work(self, lane: _Lane) -> None:
        """A thread of a lane."""
        try:
            self._serve(lane)
        finally:  # however it ended: what waits, and what comes, has another thread
            with self._lock:
                lane.threads -= 1
                self._threads.discard(threading.current_thread())
                if lane.waits() and not self._closed:
                    self._wake(lane)

    def _serve(self, lane: _Lane) -> None:
        sleep = _thread.allocate_lock()
        sleep.acquire()
        tokenized = False  # just now: a batch comes first
        while True:
            with self._lock:
                fresh = [] if tokenized and lane.ready else self._take_fresh(lane)
                batch = None if fresh else self._take_batch(lane)
                tokenized = bool(fresh)
                if fresh or batch:
                    if lane.waits():
                        self._wake(lane)
                    # All threads of the engine for it, where nothing else runs or waits.
                    alone = self._is_idle()
                    self._running += 1 if batch else 0
                elif self._closed:
                    return
                elif lane.waits():  # all that was ready is wanted no more
                    continue
                else:
                    lane.idle.append(sleep)
            if fresh:
                self._tokenize(lane, fresh)
            elif batch:
                self._run(batch, deliver, alone=alone)
            else:
                sleep.acquire()
            del fresh, batch  # not held while the thread sleeps

    def _take_fresh(self, lane: _Lane) -> list[Piece]:
        """Pieces to tokenize: about a batch while less is ready, else one while few are ready; the lock is held."""
        room = self._limits.tokens - lane.tokens
        taken: list[Piece] = []
        while lane.fresh and (room > 0 or (not taken and len(lane.ready) < lane.ahead)):
            piece = lane.fresh.popleft()
            if not _dropped(piece.job):
                taken.append(piece)
                room -= sum(map(estimate, piece.texts))
        return taken

    def _take_batch(self, lane: _Lane) -> list[Share]:
        """Rows of the pieces in turn, as many as make one batch; the lock is held."""
        batch: list[Share] = []
        tokens = count = longest = 0
        padded, most, mixed = self._limits.padded, self._limits.tokens, self._limits.mixed_lengths
        ready = lane.ready
        while ready:
            piece = ready[0]
            if _dropped(piece.job):
                ready.popleft()
                lane.tokens -= piece.rest
                continue
            rows, order, start = piece.tokenized.ids, piece.order, piece.next
            stop = start
            before = tokens
            while stop < len(order):
                length = len(rows[order[stop]])
                widest = max(longest, length)
                new = widest * (count + 1) if padded else tokens + length
                if count and (new > most or not (mixed or length == longest)):
                    break
                longest, tokens, count, stop = widest, tokens + length, count + 1, stop + 1
            if stop > start:
                batch.append((piece, order[start:stop]))
                piece.next = stop
                piece.rest -= tokens - before
                lane.tokens -= tokens - before
            if stop < len(order):
                if stop > start:
                    ready.rotate(-1)  # it is the next one's turn; who had none keeps the first place
                break
            ready.popleft()
            if piece.number + 1 < len(piece.job.parts):
                lane.fresh.append(Piece(piece.job, piece.number + 1))
        if not ready:
            lane.tokens = 0  # as it is but after a fault; else nothing fresh would be taken any more
        return batch

    def _tokenize(self, lane: _Lane, pieces: list[Piece]) -> None:
        done: list[Job] = []
        ready: list[Piece] = []
        alike: dict[int, list[Piece]] = {}
        for piece in pieces:
            alike.setdefault(id(piece.job.work), []).append(piece)
        single: list[Piece] = []
        for group in alike.values():
            try:
                together = len(group) > 1 and tokenize_together(group, parallel=self._runner.spare)
            except BaseException as error:  # noqa: BLE001  a thread that ends answers nobody
                for piece in group:
                    fail(piece.job, error)
                    done.append(piece.job)
            else:
                (ready if together else single).extend(group)
        for piece in single:
            try:
                piece.tokenize(parallel=self._runner.spare)
            except BaseException as error:  # noqa: BLE001  it belongs to who sent the texts
                fail(piece.job, error)
                done.append(piece.job)
            else:
                ready.append(piece)
        self._have_ready(lane, ready, done)

    def _have_ready(self, lane: _Lane, ready: list[Piece], done: list[Job]) -> None:
        """Tokenized pieces to their lane; who waits for jobs that are done is told."""
        with self._lock:
            if self._closed:  # meanwhile, when these pieces were in no lane
                for piece in ready:
                    fail(piece.job, InvalidInputError(CLOSED))
                done += [piece.job for piece in ready]
            else:
                lane.ready.extend(ready)
                lane.tokens += sum(piece.rest for piece in ready)
        deliver(done)

    def _run(self, batch: list[Share], tell: Callable[[Sequence[Job]], None], *, alone: bool) -> None:
        began = time.monotonic()
        try:
            try:
                self._run_rows(batch, alone=alone)
            except BaseException as error:  # noqa: BLE001  it belongs to who sent the texts
                if len(batch) == 1:
                    fail(batch[0][0].job, error)
                else:  # one request's fault must not be another's
                    for share in batch:
                        try:
                            self._run_rows([share], alone=False)
                        except BaseException as own:  # noqa: BLE001
                            fail(share[0].job, own)
            done = []
            for piece, rows in batch:
                job = piece.job
                if not job.started:
                    job.started = began
                with self._lock:  # its other rows may be running too
                    piece.left -= len(rows)
                    last = piece.left == 0
                if job.failed is not None or (last and self._finish(piece)):
                    done.append(job)
        finally:
            with self._lock:
                self._running -= 1
        tell(done)

    def _run_rows(self, batch: list[Share], *, alone: bool) -> None:
        began = time.perf_counter()
        rows: list[Ids] = [piece.tokenized.ids[k] for piece, numbers in batch for k in numbers]
        parts = [piece.boundaries[numbers] for piece, numbers in batch]
        results = self._runner.run_batch(rows, parts[0] if len(parts) == 1 else np.concatenate(parts), alone=alone)
        start = 0
        for piece, numbers in batch:
            found = results[start : start + len(numbers)]
            start += len(numbers)
            if len(numbers) == len(piece.order) == 1:
                piece.results = found
                continue
            with self._lock:
                if piece.results is None:
                    piece.results = np.empty((len(piece.order), *results.shape[1:]), results.dtype)
            piece.results[numbers] = found
        seconds = time.perf_counter() - began
        lengths = [len(row) for row in rows]
        tokens = sum(lengths)
        padded = max(lengths) * len(lengths) if self._limits.padded else tokens
        self._ran(len(rows), tokens, padded, seconds, alone=alone)

    def _ran(self, texts: int, tokens: int, padded: int, seconds: float, *, alone: bool) -> None:
        """Learn from a batch, and tell of it."""
        if alone:
            self._pace.learn(tokens, seconds)
        if self._observe is not None:
            self._observe(texts, tokens, padded, seconds)

    def _finish(self, piece: Piece) -> bool:
        """Make of a piece's results what the request wants; whether its job is done."""
        job = piece.job
        try:
            job.parts[piece.number] = job.work.finish(piece.tokenized, piece.results)
            job.count(piece.tokenized)
        except BaseException as error:  # noqa: BLE001  it belongs to who sent the texts
            fail(job, error)
            return True
        with self._lock:
            job.left -= 1
            return job.left == 0


def _dropped(job: Job) -> bool:
    """Whether nothing more is done for a job; one whose time is over fails here."""
    if job.over():
        return True
    if time.monotonic() > job.deadline:
        fail(job, DeadlineError())
        deliver([job])
        return True
    return False


_all: weakref.WeakSet[Gatherer] = weakref.WeakSet()


def _at_exit() -> None:
    """Let threads come back from onnxruntime before the interpreter goes; what only waits is refused."""
    gatherers = list(_all)
    for gatherer in gatherers:
        gatherer.close()
    while any(thread.is_alive() for gatherer in gatherers for thread in list(gatherer._threads)):
        time.sleep(0.001)


atexit.register(_at_exit)
