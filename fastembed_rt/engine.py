"""Running batches on threads: token ids in, vectors out. Knows sessions and batches, no texts.

Two ways to use the same cores. A small call is one batch after the other on all threads, which is the shortest wait;
small calls that arrive while one runs are gathered into the next. Bulk is many batches, one thread each, on a session
of its own: less is lost to waiting inside operators, and nothing as long as there are batches for all threads. With two
threads and our own operators, two small calls at a time get a thread each: on shared threads they would be in each
other's way.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import batching
from .batching import Ids
from .errors import InvalidInputError
from .memory import Trimmer
from .session import Session

Vectors = npt.NDArray[Any]  # float32 (n, dim), or one object a row
FEW = 2  # full batches a thread: with more, threads that take the next one end at about the same time
SHARING = 1.25  # time of a batch on all threads over what it would take if nothing were lost to sharing it (two cores)
Feeds = Callable[[Sequence[Ids], Sequence[str], int, Ids], batching.Feeds]
Split = Callable[[npt.NDArray[np.float32], Sequence[Ids]], Sequence[Any]]
T = TypeVar("T")


@dataclass(eq=False)
class _Waiting:
    """A small call in the queue."""

    rows: Sequence[Ids]
    left_out: Ids
    done: threading.Event | None = None  # for a call that has to wait, which one alone never has
    leads: bool = False  # its thread runs it, and others of the queue with it
    vectors: Vectors | None = None
    error: BaseException | None = None

    def wake(self) -> None:
        """Let its thread go on, if that waits."""
        if self.done is not None:
            self.done.set()


class Engine:
    """Sessions and threads of one model; safe to use from several threads."""

    _padded = True  # a batch costs as much as if all its rows were as long as the longest
    _mixed_lengths = True  # rows of a batch may differ in length

    def __init__(
        self,
        load: Callable[[int], Session],
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
        self._load = load
        self._threads = threads
        self._dim = dim
        self._pad_token_id = pad_token_id
        self._max_batch_tokens = max_batch_tokens
        self._max_wait = max_wait
        self._feeds = feeds
        self._split = split
        self._mixed_lengths = mixed_lengths
        self._lock = threading.Lock()
        self._trimmer = Trimmer()
        self._queue: deque[_Waiting] = deque()
        self._running = 0  # calls that lead
        self._small = load(threads)
        self._padded = not self._small.own_operators
        self._bulk: Session | None = self._small if threads == 1 or self._small.shared else None
        # With more threads one alone would be too slow for a call; with stock operators a second session packs all
        # weights again; and who says how long calls wait for others wants them gathered.
        in_pairs = threads == 2 and self._small.own_operators and max_wait == 0
        self._most_running = 2 if in_pairs else 1
        self._pool: ThreadPoolExecutor | None = None

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that are loaded."""
        return (self._small,) if self._bulk is None or self._bulk is self._small else (self._small, self._bulk)

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The threads that work on bulk: as many as the engine may use."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fastembed_rt")
            return self._pool

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

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
        mine = _Waiting(rows, left_out)
        with self._lock:
            self._queue.append(mine)
            if self._running < self._most_running:
                mine.leads = True
                self._running += 1
            else:
                mine.done = threading.Event()
        try:
            if mine.done is not None:
                mine.done.wait()
            if mine.leads:
                if self._max_wait > 0:
                    time.sleep(self._max_wait)
                self._lead(mine)
        except BaseException:
            self._leave(mine)
            raise
        if mine.error is not None:
            raise mine.error
        assert mine.vectors is not None
        return mine.vectors

    def submit(self, rows: Sequence[Ids], left_out: Ids) -> list[tuple[Ids, Future[Vectors]]]:
        """Start bulk work: row numbers of each batch, and its vectors to come."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        session = self._bulk_session()
        return [
            (batch, self.background(self._run, session, [rows[k] for k in batch], left_out[batch]))
            for batch in self._plan(lengths)
        ]

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run a function on one of the engine's threads, behind what waits for them already."""
        try:
            return self.pool.submit(function, *arguments)
        except RuntimeError as error:  # what a pool says after its shutdown
            raise InvalidInputError("the model is closed; load it again") from error

    def collect(self, running: list[tuple[Ids, Future[Vectors]]]) -> Vectors:
        """Vectors (n, dim) of what `submit` started, in the order of its rows; stops the rest when a batch fails."""
        out = self._room(sum(len(batch) for batch, _ in running))
        try:
            for batch, vectors in running:
                out[batch] = vectors.result()
        except BaseException as error:
            for _, vectors in running:
                vectors.cancel()
            if isinstance(error, CancelledError):
                raise InvalidInputError("the model is closed; load it again") from error
            raise
        running.clear()  # the batches' vectors are copied; freed before memory is given back
        self._trimmer.after_bulk()
        return out

    def _lead(self, mine: _Waiting) -> None:
        """Run a call, and those that wait with it; then hand the lead to whoever waits next."""
        with self._lock:
            group = self._take(mine)
            alone = self._running == 1
        try:
            self._run_group(group, alone=alone)
        finally:
            for waiting in group:
                waiting.wake()
            with self._lock:
                self._hand_on()

    def _hand_on(self) -> None:
        """Wake the next call to lead, or rest; the lock is held."""
        heir = next((waiting for waiting in self._queue if not waiting.leads), None)
        if heir is None:
            self._running -= 1
        else:
            heir.leads = True
            heir.wake()

    def _leave(self, mine: _Waiting) -> None:
        """Out of the queue when the call is interrupted (Ctrl-C) while it waits, so that the others go on."""
        with self._lock:
            if mine in self._queue:
                self._queue.remove(mine)
                if mine.leads:
                    self._hand_on()

    def _take(self, mine: _Waiting) -> list[_Waiting]:
        """A call, and of those behind it that wait what fits into one batch with it; the lock is held."""
        self._queue.remove(mine)
        group, rows = [mine], list(mine.rows)
        for following in [waiting for waiting in self._queue if not waiting.leads]:
            rows += following.rows
            if not self._is_one_batch(rows):
                break
            self._queue.remove(following)
            group.append(following)
        return group

    def _run_group(self, group: list[_Waiting], *, alone: bool) -> None:
        """Vectors or an error for each call, on all threads if no other group runs."""
        rows = [row for waiting in group for row in waiting.rows]
        try:
            session = self._small if alone else self._bulk_session()
            vectors = self._run_in_turn(session, rows, np.concatenate([waiting.left_out for waiting in group]))
        except BaseException as error:  # noqa: BLE001  handed to the calls it belongs to, which raise it
            if len(group) > 1 and isinstance(error, Exception):
                for waiting in group:  # one call's fault must not be another's
                    self._run_group([waiting], alone=alone)
                return
            group[0].error = error
            if not isinstance(error, Exception):  # Ctrl-C belongs to this thread: the others try again themselves
                for waiting in group[1:]:
                    waiting.error = RuntimeError("interrupted while running with another call; call again")
            return
        start = 0
        for waiting in group:
            waiting.vectors = vectors[start : start + len(waiting.rows)]
            start += len(waiting.rows)

    def _is_one_batch(self, rows: Sequence[Ids]) -> bool:
        if not self._mixed_lengths and len({len(row) for row in rows}) > 1:
            return False
        lengths = map(len, rows)  # no array: single texts come this way
        tokens = len(rows) * max(lengths, default=0) if self._padded else sum(lengths)
        return tokens <= self._max_batch_tokens

    def _plan(self, lengths: Ids) -> list[Ids]:
        return batching.plan(lengths, self._max_batch_tokens, padded=self._padded, mixed_lengths=self._mixed_lengths)

    def _run_in_turn(self, session: Session, rows: Sequence[Ids], left_out: Ids) -> Vectors:
        """Batch after batch, each on all of a session's threads."""
        if self._is_one_batch(rows):
            return self._run(session, rows, left_out)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        out = self._room(len(rows))
        for batch in self._plan(lengths):
            out[batch] = self._run(session, [rows[k] for k in batch], left_out[batch])
        return out

    def _run(self, session: Session, rows: Sequence[Ids], left_out: Ids) -> Vectors:
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

    def _room(self, count: int) -> Vectors:
        """Zero vectors (count, dim), or None for each row."""
        return np.zeros((count, self._dim), dtype=np.float32) if self._split is None else np.full(count, None)

    def _bulk_session(self) -> Session:
        with self._lock:
            if self._bulk is None:
                self._bulk = self._load(1)
            return self._bulk
