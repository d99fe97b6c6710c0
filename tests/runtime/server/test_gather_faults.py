"""Faults while requests are gathered: whose they are, and that nobody else waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from gathering import Work, until, warm

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.models.work import Prepared
from fastembed_rt.server import gather
from fastembed_rt.server.gather import APART, Gatherer
from fastembed_rt.server.jobs import FatalError, Job
from fastembed_rt.text.tokenizer import Tokenized


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
from gathering import Runner, Work
from fastembed_rt.models.work import Prepared
from fastembed_rt.server.gather import Gatherer
from fastembed_rt.server.jobs import Job

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
    done = run_script(code, Path(__file__).parents[2])
    assert (done.returncode, done.stdout.split()) == (0, ["began", "over", "done"]), done.stderr
