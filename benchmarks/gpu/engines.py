"""Engines alone: token ids that are there already to vectors, without tokenizer; milliseconds and the matrix rate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .candidates import ENGINES
from .shapes import SPECIAL, Shape

# Texts and tokens of a batch, by shape: those of the issue that set the aims.
BATCHES = {
    "tiny": ((4, 8),),
    "minilm": ((256, 64),),
    "base": ((128, 128), (512, 32), (32, 512)),
    "large": ((32, 512),),
}


def measure(shape: Shape, names: Sequence[str], directory: Path, rounds: int) -> list[dict[str, Any]]:
    """Seconds a batch of every engine, in turn."""
    from fastembed_rt import EmbeddingModel

    random = np.random.default_rng(0)
    rows = []
    for count, length in BATCHES.get(shape.name, ()):
        ids = [random.integers(len(SPECIAL), shape.vocabulary, length) for _ in range(count)]
        nothing = np.zeros(count, np.int64)
        models = {
            name: EmbeddingModel(directory, max_batch_tokens=count * length, **ENGINES[name])
            for name in names
            if name in ENGINES
        }
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(rounds + 2):  # two that are not counted
            for name, model in models.items():
                engine = model._running()
                start = time.perf_counter()
                engine.run_batch(ids, nothing, alone=True)
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
        for name, model in models.items():
            rows.append(
                {
                    **{"contender": name, "target": model.variant.target, "texts": count, "length": length},
                    "seconds": seconds[name],
                    "operations_per_second": count * shape.operations(length) / float(np.median(seconds[name])),
                }
            )
            model.close()
    return rows
