"""Many requests and too many of them: memory stays flat, and what is too much is refused at once."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from statistics import median
from typing import Any

import pytest
from loopback import Load, Started

BODY = json.dumps({"inputs": "the cat sleeps."}).encode()
WORK = json.dumps({"inputs": ["the old dog runs under the tree . " * 4] * 16}).encode()
LARGE = json.dumps({"inputs": ["the old dog runs under the tree . " * 4] * 128}).encode()
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
PLACES = 4  # requests at a time


def answered(port: int, connections: int, seconds: float, body: bytes = WORK, pause: float = 0.05) -> Load:
    load = Load(port, body, pause=pause)
    asyncio.run(load.run(connections, seconds))
    assert load.lost == []
    assert set(load.answers) <= {200, 429}
    return load


@pytest.mark.parametrize(
    ("warm", "requests", "growth"),
    [
        # The first thousands fill what is filled once: allocators' pools, options of requests, histograms.
        pytest.param(3000, 2000, 4_000_000, id="quick"),
        pytest.param(20_000, 100_000, 8_000_000, id="long", marks=pytest.mark.slow),
    ],
)
def test_memory_is_flat_over_many_requests(directories: Any, warm: int, requests: int, growth: int) -> None:
    gc.collect()
    with Started(directories.models["encoder"], "--cache-mb", 0.5) as started:

        def memory_after(count: int) -> float:
            load = Load(started.port, BODY)
            asyncio.run(load.run(8, requests=count))
            assert (set(load.answers), load.lost) == ({200}, [])
            # New texts, other options, errors, and clients that open a connection each time.
            for k in range(count // 20):
                status, _, _ = started.ask("POST", "/embed", {"inputs": f"text {count} {k}", "dimensions": k % 7 + 1})
                assert status == 200
                assert started.ask("POST", "/embed", {"inputs": k})[0] == 422
            return started.metrics()["process_resident_memory_bytes"]

        before = memory_after(warm)
        after = memory_after(requests)
        assert after - before < growth, f"{(after - before) / 1e6:.1f} MB more"


def test_what_is_too_much_is_refused_at_once(directories: Any) -> None:
    with Started(directories.models["encoder"], "--max-concurrent-requests", PLACES) as started:
        answered(started.port, PLACES, 0.3)
        fitting = answered(started.port, PLACES, 1.5)
        assert 429 not in fitting.answers
        flood = answered(started.port, 10 * PLACES, 1.5)
        assert flood.answers[429] > 0
        assert flood.answers[200] > 0.25 * fitting.answers[200]  # on a machine that others use; see the next one
        assert median(flood.refusals) < 0.25
        status, _, _ = started.ask("POST", "/embed", json.loads(WORK))
        assert status == 200


@pytest.mark.slow
@pytest.mark.skipif(len(CPUS) < 2, reason="the server and its clients need a CPU each, and a system that says which")
def test_ten_times_too_much_holds_the_throughput(directories: Any) -> None:
    """Rounds in turn, and the median of their ratios; ten times as many requests as the server can answer.

    Clients have a CPU of their own, as they have elsewhere: what they take is not what a refusal costs.
    """
    others = CPUS[1:]
    os.sched_setaffinity(0, CPUS[:1])
    try:
        with Started(directories.models["encoder"], "--max-concurrent-requests", PLACES) as started:
            os.sched_setaffinity(0, others)
            answered(started.port, PLACES, 1.0, LARGE)
            ratios, offered, refused_in = [], [], 0.0
            for _ in range(20):
                fitting = answered(started.port, PLACES, 1.0, LARGE).answers[200]
                # Of nine in ten connections: with the wait for a refusal, each asks as often as one that is answered.
                pause = max(0.0, PLACES / fitting - refused_in)
                flood = answered(started.port, 10 * PLACES, 1.0, LARGE, pause)
                ratios.append(flood.answers[200] / fitting)
                offered.append(flood.answers.total() / fitting)
                refused_in = median(flood.refusals)
                assert refused_in < 0.05
    finally:
        os.sched_setaffinity(0, CPUS)
    assert median(offered) > 8, offered  # others use this machine
    assert median(ratios) > 0.9, ratios
