"""Stand-ins for an engine and a model, around which requests are gathered, and what waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.run.batching import Limits
from fastembed_rt.server.gather import APART
from fastembed_rt.server.jobs import Job
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


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it did not come to that")


async def warm(runner: Runner, submit: Callable[..., Job]) -> None:
    """How long a batch takes is known, and no two requests have met of late."""
    runner.open()
    for _ in range(3):
        await submit(["1 10"]).future
        await asyncio.sleep(APART / 2)
    await asyncio.sleep(APART)
    runner.batches.clear()
    runner.threads.clear()
