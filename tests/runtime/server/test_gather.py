"""Requests gathered into batches: which texts run together, whose turn it is, and what is not done any more."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from gathering import MOST, Work, until

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.models.work import Prepared
from fastembed_rt.server.jobs import DeadlineError, Job
from fastembed_rt.text.tokenizer import Tokenized


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
