"""Engines alone: token ids that are there already to vectors, without tokenizer; milliseconds and the matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .by_hand import ByHand
from .candidates import BY_HAND, ENGINES, failing
from .shapes import SPECIAL, Shape

if TYPE_CHECKING:
    from fastembed_rt import EmbeddingModel

# Texts and tokens of a batch, by shape: those of the issue that set the aims.
BATCHES = {
    "tiny": ((4, 8),),
    "minilm": ((256, 64),),
    "base": ((128, 128), (512, 32), (32, 512)),
    "large": ((32, 512),),
}


@dataclass
class Engines:
    """All engines with one batch, open."""

    texts: int
    length: int
    runs: dict[str, Callable[[], object]] = field(default_factory=dict)  # by contender
    targets: dict[str, str] = field(default_factory=dict)
    models: list[EmbeddingModel] = field(default_factory=list)


def with_each_batch(
    shape: Shape, names: Sequence[str], directory: Path, checkpoint: Path, use: Callable[[Engines], object]
) -> None:
    """Call `use` with the engines among the contenders, for each batch of the shape.

    Raises:
        ContenderError: one does not start, or a run fails.
    """
    random = np.random.default_rng(0)
    for count, length in BATCHES.get(shape.name, ()):
        ids = [random.integers(len(SPECIAL), shape.vocabulary, length) for _ in range(count)]
        made = Engines(count, length)
        try:
            for name in names:
                with failing(name):
                    _open(made, name, ids, directory, checkpoint)
            use(made)
        finally:
            for model in made.models:
                model.close()


def _open(made: Engines, name: str, ids: list[Any], directory: Path, checkpoint: Path) -> None:
    from fastembed_rt import EmbeddingModel

    run: Callable[[], object]
    if name in ENGINES:
        model = EmbeddingModel(directory, max_batch_tokens=made.texts * made.length, **ENGINES[name])
        made.models.append(model)
        run = partial(model._running().run_batch, ids, np.zeros(made.texts, np.int64), alone=True)
        made.targets[name] = model.variant.target
    elif name in BY_HAND:
        device, dtype, compiled = BY_HAND[name]
        run = partial(ByHand(checkpoint, device, dtype, compiled=compiled).vectors, ids)
        made.targets[name] = "torch"
    else:
        return
    made.runs[name] = failing(name)(run)


def measure(shape: Shape, names: Sequence[str], directory: Path, checkpoint: Path, rounds: int) -> list[dict[str, Any]]:
    """Seconds a batch of every engine, in turn; of what is written by hand as well."""
    rows: list[dict[str, Any]] = []

    def in_turn(engines: Engines) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in engines.runs}
        for turn in range(rounds + 2):  # two that are not counted
            for name, run in engines.runs.items():
                start = time.perf_counter()
                run()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
        operations = engines.texts * shape.operations(engines.length)
        rows.extend(
            {
                **{"contender": name, "target": engines.targets[name]},
                **{"texts": engines.texts, "length": engines.length, "seconds": samples},
                "operations_per_second": operations / float(np.median(samples)),
            }
            for name, samples in seconds.items()
        )

    with_each_batch(shape, names, directory, checkpoint, in_turn)
    return rows
