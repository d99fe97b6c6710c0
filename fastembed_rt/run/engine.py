"""Running batches on threads: token ids in, vectors out. Knows sessions and batches, no texts.

Two ways to use the same cores. A small call is one batch after the other on all threads, which is the shortest wait;
small calls that arrive while one runs are gathered into the next. Bulk is many batches, one thread each, on a session
of its own: less is lost to waiting inside operators, and nothing as long as there are batches for all threads. With two
threads and our own operators, two small calls at a time get a thread each: on shared threads they would be in each
other's way.

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
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, from_outside
from ..system.threads import CLOSED, POLL, Call, Task, Workers, ended, once, under
from . import batching
from .batching import Ids
from .contract import GraphSession, Running, Vectors
from .memory import Trimmer

FEW = 2  # full batches a thread: with more, threads that take the next one end at about the same time
SHARING = 1.25  # time of a batch on all threads over what it would take if nothing were lost to sharing it (two cores)
NOWHERE = -1  # place of a signal handler's call over one that it has interrupted, which cannot go on before it
Feeds = Callable[[Sequence[Ids], Sequence[str], int, Ids], batching.Feeds]
Split = Callable[[npt.NDArray[np.float32], Sequence[Ids]], Sequence[Any]]
T = TypeVar("T")


class _Small:
    """A small call."""

    __slots__ = ("_lock", "apart", "finished", "frame", "leader", "left_out", "rows", "vectors")

    def __init__(self, rows: Sequence[Ids], left_out: Ids) -> None:
        self.rows, self.left_out = rows, left_out
        self.vectors: Vectors | None = None
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


class Pooled:
    """What the kinds of engines share: a pool of threads, plans of batches, results put in order."""

    def __init__(
        self,
        *,
        threads: int,
        dim: int,
        max_batch_tokens: int,
        split: Split | None,
        padded: bool = True,
        mixed_lengths: bool = True,
    ) -> None:
        """As for Engine; where `padded`, a batch costs as much as if all its rows were as long as the longest."""
        self._threads = threads
        self._dim = dim
        self._max_batch_tokens = max_batch_tokens
        self._split = split
        self._padded = padded
        self._mixed_lengths = mixed_lengths
        self._closed = False
        self._trimmer = Trimmer()
        self._workers = Workers(threads, "fastembed_rt")

    def background(self, call: Call, function: Callable[..., T], *arguments: Any) -> Task[T]:
        """Run a function on one of the engine's threads, behind what waits for them already."""
        return self._workers.start(Task(function, *arguments, call=call))

    def collect(self, running: Running) -> Vectors:
        """Vectors (n, dim) of what `submit` started, in the order of its rows; raises what a batch raised."""
        out = self._room(sum(len(batch) for batch, _ in running))
        try:
            for k in range(len(running)):
                out[running[k][0]] = running[k][1].result()
        finally:
            # The batches' vectors are copied, and freed before memory is given back. An error is held by its promise
            # and holds this frame: with a promise in a name of its own here, both would outlive the call.
            running.clear()
        self._trimmer.after_bulk()
        return out

    def close(self) -> None:
        """Let the threads go."""
        self._closed = True
        self._workers.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInputError(CLOSED)

    def _is_one_batch(self, rows: Sequence[Ids]) -> bool:
        if not self._mixed_lengths and len({len(row) for row in rows}) > 1:
            return False
        lengths = map(len, rows)  # no array: single texts come this way
        tokens = len(rows) * max(lengths, default=0) if self._padded else sum(lengths)
        return tokens <= self._max_batch_tokens

    def _plan(self, lengths: Ids) -> list[Ids]:
        return batching.plan(lengths, self._max_batch_tokens, padded=self._padded, mixed_lengths=self._mixed_lengths)

    def _room(self, count: int) -> Vectors:
        """Zero vectors (count, dim), or None for each row."""
        return np.zeros((count, self._dim), dtype=np.float32) if self._split is None else np.full(count, None)


class Engine(Pooled):
    """Sessions and threads of one model; safe to use from several threads."""

    def __init__(
        self,
        load: Callable[[int], GraphSession],
        *,
        threads: int,
        dim: int,
        pad_token_id: int,
        max_batch_tokens: int,
        max_wait: float = 0.0,
        feeds: Feeds = batching.feeds,
        split: Split | None = None,
        mixed_lengths: bool = True,
    ) -> None:
        """Load the session for small calls; the one for bulk comes with the first bulk call.

        Args:
            load: makes a session with so many threads.
            threads: most threads that work at a time.
            dim: length of the vectors.
            pad_token_id: fills padded positions.
            max_batch_tokens: bound on the tokens of a batch, padding included.
            max_wait: seconds that a small call waits for others to join it.
            feeds: what a graph takes for a batch.
            split: an object for each row of a batch, made of the graph's output; None takes the output's rows.
            mixed_lengths: False where padding changes the output: all rows of a batch have one length.
        """
        self._small = load(threads)
        super().__init__(
            threads=threads,
            dim=dim,
            max_batch_tokens=max_batch_tokens,
            split=split,
            padded=not self._small.own_operators,
            mixed_lengths=mixed_lengths,
        )
        self._load = load
        self._pad_token_id = pad_token_id
        self._max_wait = max_wait
        self._feeds = feeds
        self._loading: dict[str, Task[GraphSession]] = {}
        self._bulk: GraphSession | None = self._small if threads == 1 or self._small.shared else None
        # With more threads one alone would be too slow for a call; with stock operators a second session packs all
        # weights again; and who says how long calls wait for others wants them gathered.
        in_pairs = threads == 2 and self._small.own_operators and max_wait == 0
        self._places = (0, 1) if in_pairs else (0,)
        self._leading: dict[int, FrameType] = {}  # by place, the call that has it or is to take it
        self._queue: dict[_Small, None] = {}  # calls that wait, in the order they came

    @property
    def sessions(self) -> tuple[GraphSession, ...]:
        """Those that are loaded."""
        return (self._small,) if self._bulk is None or self._bulk is self._small else (self._small, self._bulk)

    def is_small(self, rows: Sequence[Ids]) -> bool:
        """Whether the rows are sooner done a batch at a time on all threads than a batch a thread."""
        if self._is_one_batch(rows):
            return True
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        tokens = int(lengths.sum())
        if self._bulk is self._small or tokens > FEW * self._threads * self._max_batch_tokens:
            return False
        # Each thread takes the next batch when it is done with its last.
        loads = [0] * self._threads
        for batch in self._plan(lengths):
            loads[loads.index(min(loads))] += int(lengths[batch].sum())
        return max(loads) > SHARING * tokens / self._threads

    def run_small(self, rows: Sequence[Ids], left_out: Ids) -> Vectors:
        """Vectors (n, dim) of a few rows; calls that wait meanwhile are run together.

        `left_out` (n,) is how many tokens at the beginning of each row are not pooled.
        """
        self._check_open()
        frame = sys._getframe()
        mine = _Small(rows, left_out)
        try:
            place = self._take_place(frame)
            if place is None:
                mine.queue(frame)
                self._queue[mine] = None
                place = self._wait(mine, frame)
            if place is not None:
                self._lead(mine, frame, place)
        finally:
            # Should this be left out, by a second interruption: others see that the call is over.
            if self._queue:
                self._queue.pop(mine, None)
            for number in self._places:
                if self._leading.get(number) is frame:
                    self._hand_on(number)
            mine.frame = None  # which holds this call
            del frame
        assert mine.vectors is not None
        return mine.vectors

    def submit(self, rows: Sequence[Ids], left_out: Ids, call: Call) -> Running:
        """Start bulk work: row numbers of each batch, and its vectors to come."""
        self._check_open()
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        session = self._bulk_session()
        return [
            (batch, self.background(call, self._run, session, [rows[k] for k in batch], left_out[batch]))
            for batch in self._plan(lengths)
        ]

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

    def _lead(self, mine: _Small, frame: FrameType, place: int) -> None:
        """Run a call, and those that wait with it."""
        if self._max_wait > 0:
            time.sleep(self._max_wait)
        group = self._gather(mine, frame) if self._queue else [mine]
        alone = len(self._leading) <= 1 or not any(
            number != place and not ended(holder) for number, holder in list(self._leading.items())
        )
        try:
            session = self._small if alone else self._bulk_session()
            if len(group) == 1:
                mine.vectors = self._run_in_turn(session, mine.rows, mine.left_out)
                return
            rows = [row for call in group for row in call.rows]
            vectors = self._run_in_turn(session, rows, np.concatenate([call.left_out for call in group]))
        except BaseException as error:
            for call in group[1:]:  # one call's fault must not be another's
                call.apart = True
                self._queue[call] = None
                call.leader = None
                call.wake()
            if len(group) == 1 or from_outside(error):
                raise
            mine.vectors = self._run_in_turn(self._small, mine.rows, mine.left_out)
            return
        start = 0
        for call in group:
            call.vectors = vectors[start : start + len(call.rows)]
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
        for call in self._waiting():
            if call.apart or any(call.frame is other for other in leading):
                continue
            rows += call.rows
            if not self._is_one_batch(rows):
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

    def _run_in_turn(self, session: GraphSession, rows: Sequence[Ids], left_out: Ids) -> Vectors:
        """Batch after batch, each on all of a session's threads."""
        if self._is_one_batch(rows):
            return self._run(session, rows, left_out)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        out = self._room(len(rows))
        for batch in self._plan(lengths):
            self._check_open()
            out[batch] = self._run(session, [rows[k] for k in batch], left_out[batch])
        return out

    def _run(self, session: GraphSession, rows: Sequence[Ids], left_out: Ids) -> Vectors:
        # A text without a single token (a tokenizer that adds none) has the zero vector, as a mean over nothing has.
        full = [k for k, row in enumerate(rows) if len(row)]
        if len(full) == len(rows):
            made = session.run(self._feeds(rows, session.inputs, self._pad_token_id, left_out))
            if self._split is None:
                return made
            objects = self._room(len(rows))
            for k, result in enumerate(self._split(made, rows)):  # one by one: numpy would stack them
                objects[k] = result
            return objects
        out = self._room(len(rows))
        if full:
            out[full] = self._run(session, [rows[k] for k in full], left_out[full])
        return out

    def _bulk_session(self) -> GraphSession:
        if self._bulk is None:
            self._bulk = once(self._loading, "bulk", lambda: self._load(1))
        return self._bulk
