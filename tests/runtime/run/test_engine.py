"""Which calls run a batch at a time on all threads and which a batch a thread, on sessions that only take notes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from fastembed_rt.run.contract import Facts
from fastembed_rt.run.engine import Engine
from fastembed_rt.system.threads import Call

Ids = npt.NDArray[np.int64]
LIMIT = 512


class Notes:
    """A session that gives each row its length as vector, and notes the batches."""

    handles = ()

    def __init__(self, threads: int, own: bool) -> None:
        self.threads, self.batches = threads, list[list[int]]()
        self.facts = Facts(("rows",), padded=not own, light=own)

    def close(self) -> None:
        """Nothing to let go."""

    def run(self, feeds: Any) -> Any:
        self.batches.append(feeds["lengths"])
        return np.array(feeds["lengths"], dtype=np.float32)[:, None]


def engine(threads: int = 2, *, own: bool = False, load: Any = None, max_wait: float = 0.0) -> Engine:
    def feeds(rows: Sequence[Ids], *_: object) -> Any:
        return {"lengths": [len(row) for row in rows]}

    def notes(count: int) -> Any:
        return Notes(count, own)

    return Engine(
        load or notes,
        threads=threads,
        dim=1,
        pad_token_id=0,
        max_batch_tokens=LIMIT,
        max_wait=max_wait,
        feeds=feeds,
    )


def test_where_padding_changes_vectors_rows_of_a_batch_have_one_length() -> None:
    made = Engine(
        lambda count: Notes(count, False),
        threads=2,
        dim=1,
        pad_token_id=0,
        max_batch_tokens=LIMIT,
        feeds=lambda rows, *_: {"lengths": [len(row) for row in rows]},
        mixed_lengths=False,
    )
    lengths = [3, 5, 3, 0, 5, 5, 400]
    rows = [np.zeros(length, dtype=np.int64) for length in lengths]
    for vectors in (
        made.run_small(rows, np.zeros(7, np.int64)),
        made.collect(made.submit(rows, np.zeros(7, np.int64), Call())),
    ):
        np.testing.assert_array_equal(vectors[:, 0], lengths)
    for session in made.sessions:
        assert sorted(session.batches) == [[3, 3], [5, 5, 5], [400]]  # type: ignore[attr-defined]
    made.close()


class Held(Notes):
    """A session whose runs go on until they may end."""

    def __init__(self, threads: int, own: bool) -> None:
        super().__init__(threads, own)
        self.going, self.may_end = threading.Event(), threading.Event()

    def run(self, feeds: Any) -> Any:
        self.going.set()
        assert self.may_end.wait(10)
        return super().run(feeds)


class Meeting(Notes):
    """A session whose runs wait for another run to be going on, `wait` seconds."""

    together = threading.Barrier(2)
    wait: ClassVar[float]
    met: ClassVar[list[tuple[int, bool]]] = []  # threads of the session, whether another came

    def run(self, feeds: Any) -> Any:
        try:
            self.together.wait(self.wait)
            self.met.append((self.threads, True))
        except threading.BrokenBarrierError:
            self.together.reset()
            self.met.append((self.threads, False))
        return super().run(feeds)


def rows(*lengths: int) -> list[Ids]:
    return [np.ones(length, dtype=np.int64) for length in lengths]


def test_a_dropped_engine_is_gone_at_once_and_its_sessions_with_it() -> None:
    gc.collect()
    gc.disable()  # no circle keeps it until somebody looks for circles
    try:
        made = engine()
        made.run_small(rows(5), np.zeros(1, np.int64))
        made.collect(made.submit(rows(*[250] * 4), np.zeros(4, np.int64), Call()))
        gone: list[Any] = [weakref.ref(made), *(weakref.ref(session) for session in made.sessions)]
        assert len(gone) == 3
        del made
        for _ in range(100):  # its threads end first
            if all(one() is None for one in gone):
                break
            time.sleep(0.02)
        assert [one() for one in gone] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("lengths", [[16 * LIMIT], [16 * LIMIT, 16 * LIMIT, 16 * LIMIT], [16 * LIMIT, *[30] * 100]])
def test_texts_that_are_longer_than_a_batch_get_all_threads(lengths: list[int]) -> None:
    """A thread alone would be busy with one when the others have nothing left."""
    made = engine()
    assert made.is_small(rows(*lengths))
    made.run_small(rows(*lengths), np.zeros(len(lengths), np.int64))
    (session,) = made.sessions
    assert isinstance(session, Notes) and session.threads == 2
    assert [16 * LIMIT] in session.batches


@pytest.mark.parametrize("own", [False, True])
def test_a_few_texts_of_which_one_is_long_get_all_threads(own: bool) -> None:
    made = engine(own=own)
    lengths = (30, 500, 20, 60)
    assert made.is_small(rows(*lengths))
    vectors = made.run_small(rows(*lengths), np.zeros(len(lengths), np.int64))
    assert vectors[:, 0].tolist() == list(lengths)
    (session,) = made.sessions
    assert isinstance(session, Notes) and session.threads == 2
    assert len(session.batches) > 1
    for batch in session.batches:
        assert len(batch) == 1 or (sum(batch) if own else len(batch) * max(batch)) <= LIMIT


@pytest.mark.parametrize(
    ("threads", "lengths"),
    [
        pytest.param(2, [250] * 4, id="two batches, alike"),
        pytest.param(2, [40] * 200, id="more than a few batches"),
        pytest.param(2, [16 * LIMIT] * 4, id="longer than a batch, alike"),
        pytest.param(1, [400, 30, 20, 25, 90], id="one thread"),
    ],
)
def test_batches_for_all_threads_are_bulk(threads: int, lengths: list[int]) -> None:
    made = engine(threads)
    assert not made.is_small(rows(*lengths))
    vectors = made.collect(made.submit(rows(*lengths), np.zeros(len(lengths), np.int64), Call()))
    assert vectors[:, 0].tolist() == lengths
    made.close()


def test_padding_counts_where_there_is_padding() -> None:
    lengths = rows(300, *[20] * 10)
    made = engine(own=True)
    made.run_small(lengths, np.zeros(len(lengths), np.int64))
    (session,) = made.sessions
    assert isinstance(session, Notes)
    assert session.batches == [[len(row) for row in lengths]]


def test_no_text_is_small() -> None:
    assert engine().is_small([])


@pytest.mark.parametrize(
    ("threads", "own", "max_wait", "wanted"),
    [
        pytest.param(2, True, 0.0, [(1, True), (2, True)], id="a thread each"),
        pytest.param(2, False, 0.0, [(2, False), (2, False)], id="stock operators: one after the other"),
        pytest.param(4, True, 0.0, [(4, False), (4, False)], id="more threads: one after the other"),
        pytest.param(2, True, 0.01, [(2, False), (2, False)], id="they are to be gathered: one after the other"),
    ],
)
def test_two_calls_at_once(threads: int, own: bool, max_wait: float, wanted: list[tuple[int, bool]]) -> None:
    Meeting.met.clear()
    Meeting.wait = 10.0 if wanted[0][1] else 0.1  # nobody comes: not for long
    made = engine(threads, load=lambda count: Meeting(count, own), max_wait=max_wait)
    start = threading.Barrier(2)

    def call(length: int) -> float:
        start.wait(10)
        return float(made.run_small(rows(length), np.zeros(1, np.int64))[0, 0])

    with ThreadPoolExecutor(2) as pool:
        # Each fills a batch, so that they cannot run as one.
        assert list(pool.map(call, (LIMIT, LIMIT - 1))) == [LIMIT, LIMIT - 1]
    assert sorted(Meeting.met) == wanted


@pytest.mark.parametrize(
    ("threads", "callers", "batches"),
    [
        pytest.param(2, 6, [1, 1, 2, 2], id="two places: half of those that wait"),
        pytest.param(2, 10, [1, 1, 4, 2, 2], id="two places: half of those that wait, two at least"),
        pytest.param(4, 10, [1, 9], id="one place: all that wait"),
    ],
)
def test_calls_that_wait_are_gathered_in_fair_parts(threads: int, callers: int, batches: list[int]) -> None:
    """Batches run one at a time here, so that how many wait when one is gathered is known."""
    started, go_on = threading.Semaphore(0), threading.Semaphore(0)
    sizes: list[int] = []

    class Slow(Notes):
        def run(self, feeds: Any) -> Any:
            sizes.append(len(feeds["lengths"]))
            started.release()
            assert go_on.acquire(timeout=10)
            return super().run(feeds)

    made = engine(threads, load=lambda count: Slow(count, True))
    places = batches.count(1)
    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(made.run_small, rows(k + 1), np.zeros(1, np.int64)) for k in range(callers)]
        for _ in range(places):
            assert started.acquire(timeout=10)
        while len(made._turns._queue) < callers - places:
            time.sleep(0.001)
        for _ in batches[places:]:
            go_on.release()
            assert started.acquire(timeout=10)
        go_on.release(places)
        assert [call.result(10)[0, 0] for call in calls] == [k + 1 for k in range(callers)]
    assert sizes == batches


@pytest.mark.parametrize(("threads", "ahead"), [(1, False), (2, False), (4, True)])
def test_rows_are_made_before_their_turn_where_there_are_cores_to_spare(threads: int, ahead: bool) -> None:
    held = Held(threads, own=False)
    made = engine(threads, load=lambda _: held)
    by: list[tuple[bool, bool]] = []  # whether the caller's thread made them, and alone
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made.run_small, rows(3), np.zeros(1, np.int64))
        assert held.going.wait(10)

        def call() -> float:
            me = threading.get_ident()

            def make(alone: bool) -> tuple[list[Ids], Ids]:
                by.append((threading.get_ident() == me, alone))
                return rows(4), np.zeros(1, np.int64)

            return float(made.run_few(4, make)[0, 0])

        second = pool.submit(call)
        while not made._turns._queue:
            time.sleep(0.001)
        assert len(by) == (1 if ahead else 0)
        held.may_end.set()
        assert (first.result(10)[0, 0], second.result(10)) == (3, 4)
    assert by == [(ahead, True)]


def test_a_session_that_cannot_be_loaded_fails_the_call_that_wants_it_and_no_other() -> None:
    held = Held(2, own=True)

    def load(count: int) -> Any:
        if count == 1:
            raise MemoryError("no room")
        return held

    made = engine(load=load)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made.run_small, rows(3), np.zeros(1, np.int64))
        assert held.going.wait(10)
        with pytest.raises(MemoryError, match="no room"):
            made.run_small(rows(4), np.zeros(1, np.int64))
        held.may_end.set()
        assert first.result(10)[0, 0] == 3
    assert made.run_small(rows(5), np.zeros(1, np.int64))[0, 0] == 5
