"""Short requests that run in the event loop itself, and those that must not."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest
from gathering import Work, warm

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.models.work import Prepared
from fastembed_rt.server import gather
from fastembed_rt.server.gather import APART
from fastembed_rt.server.jobs import Job


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
