"""Requests gathered into batches: which texts run together, whose turn it is, and what is not done any more."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.models.work import Prepared
from fastembed_rt.run.batching import Limits
from fastembed_rt.server import gather
from fastembed_rt.server.gather import APART, Gatherer
from fastembed_rt.server.jobs import DeadlineError, FatalError, Job
from fastembed_rt.text.tokenizer import Tokenized

MOST = 100  # tokens of a batch


class Runner:
    """Runs batches, one after the other where `gate` says so; a row's result is its first id."""

    def __init__(self, side_by_side: int = 1, *, padded: bool = False, sessions: int = 1) -> None:
        self.sessions = (object(),) * sessions
        self.limits = Limits(MOST, padded=padded)
        self.side_by_side = side_by_side
        self.spare = False
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.threads: list[int] = []
        self.gate = threading.Semaphore(0)
        self.seconds = 0.0
        self.faulty = -1

    def run_batch(self, rows: Any, left_out: Any, *, alone: bool) -> Any:
        self.batches.append([int(row[0]) for row in rows])
        self.alone.append(alone)
        self.threads.append(threading.get_ident())
        self.gate.acquire(timeout=10)
        time.sleep(self.seconds)
        if any(row[0] == self.faulty for row in rows):
            raise RuntimeError("a fault")
        return np.array([[row[0]] for row in rows], dtype=np.float32)

    def open(self) -> None:
        self.gate.release(10_000)


class Work:
    """Texts are "ID TOKENS": a row of so many tokens that begins with the id."""

    def tokenize(self, window: Any) -> Tokenized:
        rows = []
        for text in window.texts:
            number, tokens = map(int, text.split())
            if tokens == 0:
                raise InvalidInputError("no tokens")
            rows.append(np.full(tokens, number))
        return Tokenized(rows, np.arange(len(rows)), len(rows), 0)

    def boundaries(self, tokenized: Tokenized) -> Any:
        return np.zeros(len(tokenized.ids), np.int64)

    def finish(self, tokenized: Tokenized, results: Any) -> Any:
        return results[:, 0].tolist()


@pytest.fixture
def gathering() -> Iterator[Callable[..., tuple[Runner, Gatherer, Callable[..., Job]]]]:
    made: list[tuple[Runner, Gatherer]] = []

    def make(*arguments: Any, **options: Any) -> tuple[Runner, Gatherer, Callable[..., Job]]:
        runner = Runner(*arguments, **options)
        gatherer = Gatherer(runner)  # type: ignore[arg-type]
        made.append((runner, gatherer))

        def submit(texts: list[str], seconds: float = 60.0) -> Job:
            prepared = Prepared(Work(), None, "", runner, lambda tokenized: None)  # type: ignore[arg-type]
            job = Job(prepared, texts, time.monotonic() + seconds)
            gatherer.submit(job, sum(int(text.split()[1]) for text in texts))
            return job

        return runner, gatherer, submit

    yield make
    for runner, gatherer in made:
        runner.open()
        gatherer.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it did not come to that")


def test_requests_that_wait_run_in_one_batch(gathering: Any) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering()
        first = submit(["1 10"])
        await until(lambda: runner.batches == [[1]])
        others = [submit([f"{k} 10"]) for k in range(2, 9)]
        runner.open()
        assert await first.future == [[1.0]]
        assert [await job.future for job in others] == [[[float(k)]] for k in range(2, 9)]
        assert sorted(number for batch in runner.batches[1:] for number in batch) == [*range(2, 9)]
        assert len(runner.batches) <= 3  # the thread may have tokenized some while the first was on its way
        assert runner.alone[0]

    asyncio.run(scenario())


@pytest.mark.parametrize("padded", [False, True])
def test_no_batch_is_over_the_bound_and_all_results_are_in_order(gathering: Any, padded: bool) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering(2, padded=padded)
        runner.open()
        random = np.random.default_rng(0)
        lengths = {k: int(random.integers(1, 60)) for k in range(900)}
        jobs = [submit([f"{k} {lengths[k]}" for k in range(start, start + 300)]) for start in (0, 300, 600)]
        jobs += [submit([f"{k} 120"]) for k in (900, 901)]  # longer than a batch, on their own
        found = [await job.future for job in jobs]
        assert [number for parts in found for part in parts for number in part] == [float(k) for k in range(902)]
        for batch in runner.batches:
            tokens = [lengths.get(number, 120) for number in batch]
            assert len(batch) == 1 or (max(tokens) * len(tokens) if padded else sum(tokens)) <= MOST

    asyncio.run(scenario())


def test_a_short_request_waits_for_no_long_one(gathering: Any) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering()
        runner.seconds = 0.01
        runner.open()
        long = submit([f"{k} 50" for k in range(400)])  # 200 batches
        await until(lambda: len(runner.batches) > 3)
        before = len(runner.batches)
        assert await submit(["1000 5"]).future == [[1000.0]]
        assert len(runner.batches) - before < 12
        assert not long.future.done()
        long.given_up = True

    asyncio.run(scenario())


def test_long_requests_take_turns(gathering: Any) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering()
        jobs = [submit([f"{first + k} 50" for k in range(40)]) for first in (0, 1000, 2000)]
        await until(lambda: len(runner.batches) == 1)
        runner.open()
        await asyncio.gather(*(job.future for job in jobs))
        owners = [batch[0] // 1000 for batch in runner.batches]
        places = [[k for k, owner in enumerate(owners) if owner == number] for number in range(3)]
        assert max(places[0]) > min(places[2])  # the last one began before the first was done
        assert max(len(set(owners[k : k + 3])) for k in range(10, 20)) == 3

    asyncio.run(scenario())


def test_nothing_more_is_done_for_who_has_gone(gathering: Any) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering()
        long = submit([f"{k} 50" for k in range(2000)])
        await until(lambda: len(runner.batches) == 1)
        long.given_up = True
        runner.open()
        assert await submit([f"{k} 50" for k in range(5000, 5004)]).future == [[5000.0, 5001.0, 5002.0, 5003.0]]
        assert len([batch for batch in runner.batches if batch[0] < 5000]) == 1

    asyncio.run(scenario())


def test_a_request_whose_time_is_over_is_not_begun(gathering: Any) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering()
        first = submit(["1 10"])
        await until(lambda: len(runner.batches) == 1)
        late = submit(["2 10"], seconds=0.01)
        await asyncio.sleep(0.03)
        runner.open()
        await first.future
        with pytest.raises(DeadlineError):
            await late.future
        assert runner.batches == [[1]]

    asyncio.run(scenario())


def test_one_requests_fault_is_not_anothers(gathering: Any) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering()
        runner.faulty = 3
        first = submit(["1 10"])
        await until(lambda: len(runner.batches) == 1)
        jobs = [submit([f"{k} 10"]) for k in (2, 3, 4)]
        wrong = submit(["5 0"])
        runner.open()
        await first.future
        assert (await jobs[0].future, await jobs[2].future) == ([[2.0]], [[4.0]])
        with pytest.raises(RuntimeError, match="a fault"):
            await jobs[1].future
        with pytest.raises(InvalidInputError, match="no tokens"):
            await wrong.future

    asyncio.run(scenario())


def test_texts_of_requests_that_wait_are_tokenized_together(gathering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], bool]] = []
    tokenize = Work.tokenize

    def watched(work: Work, window: Any) -> Tokenized:
        calls.append((window.texts, window.parallel))
        return tokenize(work, window)

    monkeypatch.setattr(Work, "tokenize", watched)

    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        shared = Prepared(Work(), None, "", runner, lambda tokenized: None)  # type: ignore[arg-type]

        def alike(texts: list[str]) -> Job:
            job = Job(shared, texts, time.monotonic() + 60)
            gatherer.submit(job, 10 * len(texts))
            return job

        first = submit(["1 100"])
        await until(lambda: bool(runner.batches))
        calls.clear()
        jobs = [alike(["2 5"]), alike(["3 6", "4 7"]), submit(["5 5"]), alike(["6 8"])]
        runner.open()
        await first.future
        assert [await job.future for job in jobs] == [[[2.0]], [[3.0, 4.0]], [[5.0]], [[6.0]]]
        assert calls == [(["2 5", "3 6", "4 7", "6 8"], False), (["5 5"], False)]
        assert [job.tokens for job in jobs] == [5, 13, 5, 8]
        assert all(job.tokenizing > 0 for job in jobs)

        calls.clear()
        runner.gate = threading.Semaphore(0)
        runner.batches.clear()
        first = submit(["1 100"])
        await until(lambda: bool(runner.batches))
        faulty, sound = alike(["7 0"]), alike(["8 5"])
        runner.open()
        with pytest.raises(InvalidInputError, match="no tokens"):
            await faulty.future
        assert await sound.future == [[8.0]]
        assert calls[1:] == [(["7 0", "8 5"], False), (["7 0"], False), (["8 5"], False)]

    asyncio.run(scenario())


def test_what_waits_fails_when_it_is_closed(gathering: Any) -> None:
    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        running = submit(["1 10"])
        await until(lambda: len(runner.batches) == 1)
        waiting = submit([f"{k} 50" for k in range(10)])
        gatherer.close()
        runner.open()
        assert await running.future == [[1.0]]
        with pytest.raises(InvalidInputError, match="closed"):
            await waiting.future
        with pytest.raises(InvalidInputError, match="closed"):
            submit(["2 10"])

    asyncio.run(scenario())


def test_what_is_tokenized_while_it_is_closed_fails_too(gathering: Any) -> None:
    async def scenario() -> None:
        runner, gatherer, _ = gathering()
        runner.open()

        class Closing(Work):
            def tokenize(self, window: Any) -> Tokenized:
                gatherer.close()
                return super().tokenize(window)

        prepared = Prepared(Closing(), None, "", runner, lambda tokenized: None)  # type: ignore[arg-type]
        job = Job(prepared, ["1 10"], time.monotonic() + 60)
        gatherer.submit(job, 10)
        with pytest.raises(InvalidInputError, match="closed"):
            await asyncio.wait_for(job.future, 20)
        assert runner.batches == []

    asyncio.run(scenario())


async def warm(runner: Runner, submit: Callable[..., Job]) -> None:
    """How long a batch takes is known, and no two requests have met of late."""
    runner.open()
    for _ in range(3):
        await submit(["1 10"]).future
        await asyncio.sleep(APART / 2)
    await asyncio.sleep(APART)
    runner.batches.clear()
    runner.threads.clear()


def test_a_short_request_that_is_alone_runs_in_the_event_loop(gathering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "LOOP_SECONDS", 10.0)  # however slow the machine

    async def scenario() -> None:
        runner, _, submit = gathering()
        await warm(runner, submit)
        for number in range(2, 6):
            assert await submit([f"{number} 10"]).future == [[float(number)]]
        assert runner.threads == [threading.get_ident()] * 4
        assert all(runner.alone)
        runner.faulty = 7
        with pytest.raises(RuntimeError, match="a fault"):
            await submit(["7 10"]).future
        with pytest.raises(InvalidInputError, match="no tokens"):
            await submit(["8 0"]).future
        gone = submit(["9 10"])
        gone.given_up = True
        assert await submit(["10 10"]).future == [[10.0]]
        assert [9] not in runner.batches

    asyncio.run(scenario())


def test_several_texts_run_in_the_event_loop_where_they_are_one_batch(
    gathering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "LOOP_SECONDS", 10.0)

    async def scenario() -> None:
        runner, _, submit = gathering(padded=True)
        await warm(runner, submit)
        assert await submit(["2 10", "3 30", "4 20"]).future == [[2.0, 3.0, 4.0]]
        assert runner.batches == [[3, 4, 2]]
        assert await submit(["5 40", "6 10", "7 10"]).future == [[5.0, 6.0, 7.0]]
        assert runner.batches[1:] == [[5, 6], [7]]
        own = threading.get_ident()
        assert [thread == own for thread in runner.threads] == [True, False, False]
        assert await submit(["8 10", "9 10"]).future == [[8.0, 9.0]]
        assert runner.threads[-1] == own, "nothing counts as running any more"

    asyncio.run(scenario())


def test_requests_that_come_together_are_left_to_a_thread_and_share_a_batch(
    gathering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "LOOP_SECONDS", 10.0)

    async def scenario() -> None:
        runner, _, submit = gathering()
        await warm(runner, submit)
        jobs = [submit([f"{number} 10"]) for number in range(2, 6)]
        assert [await job.future for job in jobs] == [[[float(number)]] for number in range(2, 6)]
        assert threading.get_ident() not in runner.threads
        assert max(map(len, runner.batches)) > 1
        await asyncio.sleep(2 * APART)
        assert await submit(["7 10"]).future == [[7.0]]
        assert runner.threads[-1] == threading.get_ident()

    asyncio.run(scenario())


@pytest.mark.parametrize("sessions", [0, 1])  # of this process; 0: other processes have them
def test_what_takes_long_or_may_hang_keeps_no_event_loop(gathering: Any, sessions: int) -> None:
    async def scenario() -> None:
        runner, _, submit = gathering(sessions=sessions)
        runner.seconds = 2 * gather.LOOP_SECONDS if sessions else 0.0
        await warm(runner, submit)
        assert await submit(["2 1"]).future == [[2.0]]  # few tokens, and yet no batch was ever quick
        assert await submit(["3 10"]).future == [[3.0]]
        assert threading.get_ident() not in runner.threads

    asyncio.run(scenario())


def test_a_request_of_more_tokens_than_was_estimated_is_not_run_in_the_event_loop(gathering: Any) -> None:
    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        runner.seconds = gather.LOOP_SECONDS / 2
        await warm(runner, submit)
        prepared = Prepared(Work(), None, "", runner, lambda tokenized: None)  # type: ignore[arg-type]
        job = Job(prepared, ["2 90"], time.monotonic() + 60)
        gatherer.submit(job, 10)
        assert await job.future == [[2.0]]
        assert threading.get_ident() not in runner.threads

    asyncio.run(scenario())


def test_how_long_a_batch_takes_is_learned_upwards_at_once() -> None:
    pace = gather._Pace()
    assert pace.seconds(1) == math.inf
    pace.learn(10, 0.010)
    assert pace.seconds(20) == pytest.approx(0.020)
    assert pace.seconds(1) == pytest.approx(0.010)  # no batch was quicker, however few tokens
    pace.learn(10, 0.100)
    assert pace.seconds(10) == pytest.approx(0.100)
    for _ in range(40):
        pace.learn(10, 0.010)
    assert pace.seconds(10) == pytest.approx(0.010, rel=0.01)


def test_a_request_for_which_there_is_no_thread_is_refused_and_leaves_nothing(
    gathering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        runner.open()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                submit(["1 10"])
        assert gatherer.waiting() == (0, 0)
        assert await submit(["2 10"]).future == [[2.0]]

    asyncio.run(scenario())


def test_an_event_loop_does_no_request_of_another(gathering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "LOOP_SECONDS", 10.0)

    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        await warm(runner, submit)
        job = submit(["2 10"])  # to be done in this loop, when it is its turn
        other = Job(Prepared(Work(), None, "", runner, lambda tokenized: None), ["3 10"], time.monotonic() + 60)  # type: ignore[arg-type]
        gatherer._run_in_loop(other)  # as another loop may have planned for one that threads have done since
        assert threading.get_ident() not in runner.threads
        assert await job.future == [[2.0]]

    asyncio.run(scenario())


def test_what_comes_while_others_are_given_up_is_done(gathering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    tokenize = Work.tokenize

    def slowly(work: Work, window: Any) -> Tokenized:
        if window.texts[0].startswith("2 "):
            begun.set()
            assert go_on.wait(10)
        return tokenize(work, window)

    monkeypatch.setattr(Work, "tokenize", slowly)

    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        runner.open()
        gone = submit(["2 5"])
        await until(begun.is_set)
        late = submit(["3 5"])  # the only thread is busy
        gone.given_up = True
        go_on.set()
        assert await asyncio.wait_for(late.future, 10) == [[3.0]]
        assert (gatherer._short.tokens, gatherer._running) == (0, 0)

    asyncio.run(scenario())


class PanicError(BaseException):
    """As the tokenizer's library raises it."""


@pytest.mark.parametrize("place", ["tokenize", "boundaries", "finish"])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("in_loop", [False, True])
def test_what_is_no_exception_ends_one_request_and_no_thread(
    gathering: Any, monkeypatch: pytest.MonkeyPatch, place: str, together: bool, in_loop: bool
) -> None:
    monkeypatch.setattr(gather, "LOOP_SECONDS", 10.0 if in_loop else 0.0)
    works = getattr(Work, place)

    def fails(work: Work, *arguments: Any) -> Any:
        tokenized = arguments[0]
        numbers = (
            [text.split()[0] for text in tokenized.texts]
            if place == "tokenize"
            else [str(row[0]) for row in tokenized.ids]
        )
        if "7" in numbers:
            raise PanicError
        return works(work, *arguments)

    monkeypatch.setattr(Work, place, fails)

    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        await warm(runner, submit)
        shared = Prepared(Work(), None, "", runner, lambda tokenized: None)  # type: ignore[arg-type]
        for _ in range(3):
            jobs = [Job(shared, [text], time.monotonic() + 60) for text in (("7 5", "8 5") if together else ("7 5",))]
            for job in jobs:
                gatherer.submit(job, 5)
            with pytest.raises(FatalError, match="PanicError"):
                await asyncio.wait_for(jobs[0].future, 10)
            if together:
                assert await asyncio.wait_for(jobs[1].future, 10) == [[8.0]]
            assert await asyncio.wait_for(submit(["9 5"]).future, 10) == [[9.0]]
            await asyncio.sleep(2 * APART if in_loop else 0)
        assert gatherer._running == 0

    asyncio.run(scenario())


def test_a_thread_that_ends_is_replaced(gathering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    take = Gatherer._take_batch
    faults = 2

    def fails(gatherer: Gatherer, lane: Any) -> Any:
        nonlocal faults
        if lane.ready and faults:
            faults -= 1
            raise MemoryError
        return take(gatherer, lane)

    monkeypatch.setattr(Gatherer, "_take_batch", fails)

    async def scenario() -> None:
        runner, gatherer, submit = gathering()
        runner.open()
        assert await asyncio.wait_for(submit(["1 5"]).future, 10) == [[1.0]]
        assert (gatherer._short.threads, len(gatherer._threads), faults) == (1, 1, 0)

    asyncio.run(scenario())


def test_a_process_ends_when_its_batches_have(run_script: Any) -> None:
    code = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[1])
from test_gather import Job, Gatherer, Prepared, Runner, Work

class Slow(Runner):
    def run_batch(self, rows, left_out, *, alone):
        print("began", flush=True)
        time.sleep(0.5)
        print("done", flush=True)
        return super().run_batch(rows, left_out, alone=alone)

async def main():
    runner = Slow()
    runner.open()
    gatherer = Gatherer(runner)
    gatherer.submit(Job(Prepared(Work(), None, "", runner, lambda tokenized: None), ["1 5"], time.monotonic() + 60), 5)
    await asyncio.sleep(0.2)
    return gatherer

gatherer = asyncio.run(main())
print("over", flush=True)
"""
    done = run_script(code, Path(__file__).parent)
    assert (done.returncode, done.stdout.split()) == (0, ["began", "over", "done"]), done.stderr
