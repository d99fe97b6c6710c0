"""The bar of `encode` and its like: it moves with the batches, not with windows of thousands of texts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tqdm

from fastembed_rt import EmbeddingModel

TEXTS = [f"the cat sleeps under tree {k}" for k in range(200)]


class Shown:
    """In tqdm's place; keeps what it is told."""

    made: list[Shown]

    def __init__(self, total: int, **_: Any) -> None:
        self.total, self.steps, self.closed = total, list[int](), False
        Shown.made.append(self)

    def update(self, count: int) -> None:
        self.steps.append(count)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    Shown.made = []
    monkeypatch.setattr(tqdm, "tqdm", Shown)
    return Shown.made


@pytest.mark.parametrize("truncation", ["truncate", "chunk"])
@pytest.mark.parametrize("count", [1, 3, len(TEXTS)])
def test_the_bar_ends_at_the_number_of_texts_and_moves_before(
    model_dir: Path, shown: list[Shown], truncation: str, count: int
) -> None:
    texts = [*TEXTS[: count - 1], "the cat " * 200]
    with EmbeddingModel(model_dir, max_batch_tokens=64, truncation=truncation) as model:
        expected = model.encode(texts)
        found = model.encode(texts, show_progress_bar=True)
    np.testing.assert_array_equal(found, expected)
    (bar,) = shown
    assert (bar.total, sum(bar.steps), bar.closed) == (count, count, True)
    assert all(0 <= sum(bar.steps[:k]) <= count for k in range(len(bar.steps)))
    assert count < len(TEXTS) or sum(step > 0 for step in bar.steps) > 10


def test_who_watches_sees_texts_before_their_window_is_done(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    with EmbeddingModel(model_dir, max_batch_tokens=64) as model:
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                seen.add(model._texts_now())

        watching = threading.Thread(target=watch)
        watching.start()
        model.encode(TEXTS * 5)
        over.set()
        watching.join()
        assert model._texts_now() == model.stats.texts == 5 * len(TEXTS)
    assert len(seen - {0, 5 * len(TEXTS)}) > 0
