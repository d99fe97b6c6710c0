"""Running batches on threads: token ids in, vectors out. Knows sessions and batches, no texts.

Two ways to use the same cores. A small call is one batch after the other on all threads, which is the shortest wait;
small calls that arrive while one runs are gathered into the next (turns.py). Bulk is many batches, one thread each, on
a session of its own: less is lost to waiting inside operators, and nothing as long as there are batches for all
threads. With two threads and our own operators, two small calls at a time get a thread each: on shared threads they
would be in each other's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ..system.threads import Call, Task, away, once
from . import batching
from .batching import Ids, Limits
from .contract import Feeder, GraphSession, Make, Results, Running, Split
from .pool import Pool
from .turns import Turns

FEW_THREADS = 2  # all of which a batch keeps busy, or two batches
FEW = 2  # full batches a thread: with more, threads that take the next one end at about the same time
SHARING = 1.25  # time of a batch on all threads over what it would take if nothing were lost to sharing it (two cores)
T = TypeVar("T")


class Engine:
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
        feeds: Feeder = batching.feeds,
        split: Split | None = None,
        mixed_lengths: bool = True,
        measured: bool = False,
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
            measured: take fewer tokens a batch where the session measured that fewer do as well.
        """
        self._small = load(threads)
        facts = self._small.facts
        self._threads, self._load = threads, load
        self._pad_token_id = pad_token_id
        self._feeds, self._split = feeds, split
        if measured and facts.batch_tokens is not None:
            max_batch_tokens = min(max_batch_tokens, facts.batch_tokens)
        self._limits = Limits(max_batch_tokens, padded=facts.padded, mixed_lengths=mixed_lengths)
        self._pool = Pool(threads, dim, objects=split is not None)
        self._loading: dict[str, Task[GraphSession]] = {}
        self._bulk: GraphSession | None = self._small if threads == 1 or facts.takes_all else None
        # With more threads one alone would be too slow for a call; where a second session packs all weights again it
        # is not worth them; and who says how long calls wait for others wants them gathered.
        in_pairs = threads == 2 and facts.light and max_wait == 0
        # Rows are made before their turn, by callers' threads: else cores would wait while one makes those of a batch.
        self._spare = threads > FEW_THREADS or facts.takes_all
        self._turns = Turns(
            self._limits.tokens,
            self._pool.check_open,
            places=2 if in_pairs else 1,
            max_wait=max_wait,
        )

    @property
    def sessions(self) -> tuple[GraphSession, ...]:
        """Those that are loaded."""
        return (self._small,) if self._bulk is None or self._bulk is self._small else (self._small, self._bulk)

    @property
    def limits(self) -> Limits:
        """What may be one batch."""
        return self._limits

    @property
    def spare(self) -> bool:
        """Where there are more threads than a batch needs, or a device does the work."""
        return self._spare

    @property
    def side_by_side(self) -> int:
        """One batch a thread; of what fills a device two, so that one is made ready while the other runs."""
        return 2 if self._small.facts.takes_all else self._threads

    def run_batch(self, rows: Sequence[Ids], left_out: Ids, *, alone: bool) -> Results:
        """Results (n, dim) of one batch, in the caller's thread: on all threads if `alone`, else on one."""
        self._pool.check_open()
        return self._run_in_turn(rows, left_out, alone=alone)

    def is_small(self, rows: Sequence[Ids]) -> bool:
        """Whether the rows, each (tokens,), are sooner done a batch at a time on all threads than a batch a thread."""
        if self._limits.is_one_batch(rows):
            return True
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        tokens, largest = int(lengths.sum()), max(int(lengths.max()), self._limits.tokens)
        if self._bulk is self._small or tokens > FEW * self._threads * largest:
            return False
        # Each thread takes the next batch when it is done with its last.
        loads = [0] * self._threads
        for batch in self._limits.plan(lengths):
            loads[loads.index(min(loads))] += int(lengths[batch].sum())
        return max(loads) > SHARING * tokens / self._threads

    def run_small(self, rows: Sequence[Ids], left_out: Ids) -> Results:
        """Results (n, dim) of a few rows; calls that wait meanwhile are run together.

        `left_out` (n,) is how many tokens at the beginning of each row are not pooled.
        """
        return self.run_few(sum(map(len, rows)), lambda _: (rows, left_out))

    def run_few(self, tokens: int, make: Make) -> Results:
        """Results (n, dim) of a few rows, about so many tokens, which `make` gives in whichever thread runs them.

        Where there are cores to spare that is the caller's, beside what runs.
        """
        self._pool.check_open()
        if self._spare:
            rows, left_out = make(True)
            return self._turns.run(sum(map(len, rows)), lambda _: (rows, left_out), self._run_in_turn)
        return self._turns.run(tokens, make, self._run_in_turn)

    def submit(self, rows: Sequence[Ids], left_out: Ids, call: Call) -> Running:
        """Start bulk work on n rows, of which `left_out` (n,) is not pooled: numbers (batch,) and results to come."""
        self._pool.check_open()
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        session = self._bulk_session()
        return [
            (batch, self.background(call, self._run, session, [rows[k] for k in batch], left_out[batch]))
            for batch in self._limits.plan(lengths)
        ]

    def background(self, call: Call, function: Callable[..., T], *arguments: object) -> Task[T]:
        """Run a function on one of the engine's threads, behind what waits for them already."""
        return self._pool.background(call, function, *arguments)

    def collect(self, running: Running) -> Results:
        """Results (n, dim) of what `submit` started, in the order of its rows; raises what a batch raised."""
        return self._pool.collect(running)

    def close(self) -> None:
        """Let the threads go."""
        self._pool.close()
        self._turns.close()
        for session in self.sessions:
            session.close()

    def _run_in_turn(self, rows: Sequence[Ids], left_out: Ids, *, alone: bool) -> Results:
        """Batch after batch, on all threads, or on one beside another call."""
        session = self._small if alone else self._bulk_session()
        if self._limits.is_one_batch(rows):
            return self._run(session, rows, left_out)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        out = self._pool.room(len(rows))
        for batch in self._limits.plan(lengths):
            self._pool.check_open()
            out[batch] = self._run(session, [rows[k] for k in batch], left_out[batch])
        self._pool.trim()
        return out

    def _run(self, session: GraphSession, rows: Sequence[Ids], left_out: Ids) -> Results:
        # A text without a single token (a tokenizer that adds none) has the zero vector, as a mean over nothing has.
        full = [k for k, row in enumerate(rows) if len(row)]
        if len(full) == len(rows):
            made = away(session.run, self._feeds(rows, session.facts.inputs, self._pad_token_id, left_out))
            if self._split is None:
                return made
            objects = self._pool.room(len(rows))
            for k, result in enumerate(self._split(made, rows)):  # one by one: numpy would stack them
                objects[k] = result
            return objects
        out = self._pool.room(len(rows))
        if full:
            out[full] = self._run(session, [rows[k] for k in full], left_out[full])
        return out

    def _bulk_session(self) -> GraphSession:
        if self._bulk is None:
            self._bulk = once(self._loading, "bulk", lambda: self._load(1))
        return self._bulk
