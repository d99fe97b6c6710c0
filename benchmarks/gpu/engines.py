"""Engines alone: token ids that are there already to vectors, without tokenizer; milliseconds and the matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .by_hand import ByHand
from .candidates import BY_HAND, ENGINES
from .shapes import SPECIAL, Shape

# Texts and tokens of a batch, by shape: those of the issue that set the aims.
BATCHES = {
    "tiny": ((4, 8),),
    "minilm": ((256, 64),),
    "base": ((128, 128), (512, 32), (32, 512)),
    "large": ((32, 512),),
}


def measure(shape: Shape, names: Sequence[str], directory: Path, checkpoint: Path, rounds: int) -> list[dict[str, Any]]:
    """Seconds a batch of every engine, in turn; of what is written by hand as well."""
    from fastembed_rt import EmbeddingModel

    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for count, length in BATCHES.get(shape.name, ()):
        ids = [random.integers(len(SPECIAL), shape.vocabulary, length) for _ in range(count)]
        nothing = np.zeros(count, np.int64)
        models = {
            name: EmbeddingModel(directory, max_batch_tokens=count * length, **ENGINES[name])
            for name in names
            if name in ENGINES
        }
        targets = {name: model.variant.target for name, model in models.items()}
        runs: dict[str, Callable[[], object]] = {
            name: partial(model._running().run_batch, ids, nothing, alone=True) for name, model in models.items()
        }
        for name in names:
            if name in BY_HAND:
                device, dtype, compiled = BY_HAND[name]
                hand = ByHand(checkpoint, device, dtype, compiled=compiled)
                runs[name], targets[name] = partial(hand.vectors, ids), "torch"
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + 2):  # two that are not counted
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
        rows += [
            {
                **{"contender": name, "target": targets[name], "texts": count, "length": length},
                "seconds": seconds[name],
                "operations_per_second": count * shape.operations(length) / float(np.median(seconds[name])),
            }
            for name in runs
        ]
        for model in models.values():
            model.close()
    return rows
