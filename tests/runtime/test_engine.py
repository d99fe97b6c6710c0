"""Which calls run a batch at a time on all threads and which a batch a thread, on sessions that only take notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastembed_rt.engine import Engine

Ids = npt.NDArray[np.int64]
LIMIT = 512


class Notes:
    """A session that gives each row its length as vector, and notes the batches."""

    inputs = ("rows",)
    shared = False

    def __init__(self, threads: int, pads: bool) -> None:
        self.threads, self.pads, self.batches = threads, pads, list[list[int]]()

    def run(self, feeds: Any) -> Any:
        self.batches.append(feeds["lengths"])
        return np.array(feeds["lengths"], dtype=np.float32)[:, None]


def engine(threads: int = 2, *, pads: bool = True) -> Engine:
    def feeds(rows: Sequence[Ids], *_: object) -> Any:
        return {"lengths": [len(row) for row in rows]}

    load: Any = lambda count: Notes(count, pads)  # noqa: E731
    return Engine(load, threads=threads, dim=1, pad_token_id=0, max_batch_tokens=LIMIT, feeds=feeds)


def rows(*lengths: int) -> list[Ids]:
    return [np.ones(length, dtype=np.int64) for length in lengths]


@pytest.mark.parametrize("pads", [True, False])
def test_a_few_texts_of_which_one_is_long_get_all_threads(pads: bool) -> None:
    made = engine(pads=pads)
    lengths = (30, 500, 20, 60)
    assert made.is_small(rows(*lengths))
    vectors = made.run_small(rows(*lengths), np.zeros(len(lengths), np.int64))
    assert vectors[:, 0].tolist() == list(lengths)
    (session,) = made.sessions
    assert isinstance(session, Notes) and session.threads == 2
    assert len(session.batches) > 1
    for batch in session.batches:
        assert len(batch) == 1 or (len(batch) * max(batch) if pads else sum(batch)) <= LIMIT


@pytest.mark.parametrize(
    ("threads", "lengths"),
    [
        pytest.param(2, [250] * 4, id="two batches, alike"),
        pytest.param(2, [40] * 200, id="more than a few batches"),
        pytest.param(1, [400, 30, 20, 25, 90], id="one thread"),
    ],
)
def test_batches_for_all_threads_are_bulk(threads: int, lengths: list[int]) -> None:
    made = engine(threads)
    assert not made.is_small(rows(*lengths))
    vectors = made.collect(made.submit(rows(*lengths), np.zeros(len(lengths), np.int64)))
    assert vectors[:, 0].tolist() == lengths
    made.close()


def test_padding_counts_where_there_is_padding() -> None:
    lengths = rows(300, *[20] * 10)
    made = engine(pads=False)
    made.run_small(lengths, np.zeros(len(lengths), np.int64))
    (session,) = made.sessions
    assert isinstance(session, Notes)
    assert session.batches == [[len(row) for row in lengths]]


def test_no_text_is_small() -> None:
    assert engine().is_small([])
