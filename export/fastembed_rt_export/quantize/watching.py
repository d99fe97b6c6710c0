"""The float graph run stage by stage over all texts: what each watched value held."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.run.batching import Ids

from ..graph.graph import Value
from ..graph.weight import Floats
from ..graph.writer import write
from .sample import Sample, session, some_tokens, states_by_token
from .stages import Stage
from .texts import SEED

SAMPLE = 4096  # tokens that weights are rounded on
HELD = 1536  # tokens of the texts held out, to say which group fails which text


@dataclass
class Seen:
    """What one value held."""

    low: Floats
    high: Floats
    sample: Floats  # (n, K) tokens of the calibration texts
    held: Floats  # (m, K) tokens of the texts held out
    texts: Ids  # (m,) whose they are


class Watched:
    """The batches of all texts, and what leads from one stage to the next."""

    def __init__(
        self, sample: Sample, held_out: Sample, threads: int, share: float = 1.0, rare: Sample | None = None
    ) -> None:
        """Of the tokens that are looked at, a share is; of `rare` texts ranges alone are."""
        self._threads, self._held_out = threads, held_out
        self._out: list[Any] = [None] * len(held_out.rows)
        # Of each batch: the texts, their numbers, the places of the tokens looked at, what has been made so far.
        self._batches: list[tuple[Sample, Ids, list[Ids], dict[Value, Any]]] = []
        for texts, tokens in ((sample, int(share * SAMPLE)), (held_out, int(share * HELD))):
            places = some_tokens([len(row) for row in texts.rows], tokens, SEED)
            self._batches += [(texts, batch, [places[k] for k in batch], {}) for batch in texts.batches()]
        if rare is not None:
            self._batches += [(rare, batch, [], {}) for batch in rare.batches()]

    def through(self, stage: Stage) -> dict[Value, Seen]:
        """Run a stage over all batches."""
        kept: dict[Value, list[tuple[bool, Floats, Ids]]] = {value: [] for value in stage.watched}
        ranges: dict[Value, tuple[Floats, Floats]] = {}
        names = stage.outputs
        with tempfile.TemporaryDirectory() as work:
            write(stage.graph, Path(work), "stage.onnx", name="stage", metadata={}, checked=False)
            running = session(Path(work) / "stage.onnx", self._threads)
            needed = [entry.name for entry in running.get_inputs()]
            for texts, batch, places, made in self._batches:
                feeds = texts.fed(batch, [name for name in needed if name not in stage.takes])
                given = dict(zip(names, running.run(names, feeds | {n: made[n] for n in stage.takes}), strict=True))
                for value in stage.watched:
                    states = states_by_token(given[value], texts.lengths[batch])
                    if texts is not self._held_out:
                        low, high = states.min(axis=0), states.max(axis=0)
                        before = ranges.get(value, (low, high))
                        ranges[value] = np.minimum(before[0], low), np.maximum(before[1], high)
                    if places:
                        kept[value].append((texts is self._held_out, *_looked_at(states, texts, batch, places)))
                if self._held_out.output in given and texts is self._held_out:
                    for k, piece in zip(batch, texts.split(batch, given[self._held_out.output]), strict=True):
                        self._out[k] = piece
                made.clear()
                made |= {name: given[name] for name in stage.gives}
        return {value: _seen(ranges[value], kept.pop(value)) for value in stage.watched}

    def exact(self) -> Floats:
        """Outputs of the texts held out, once all stages have run."""
        return np.concatenate(self._out)


def _looked_at(states: Floats, texts: Sample, batch: Ids, places: Sequence[Ids]) -> tuple[Floats, Ids]:
    """The tokens at these places of each text, and whose they are."""
    lengths = texts.lengths[batch]
    if len(states) != int(lengths.sum()):  # a row a text (one pooled token), or of a table: few enough to keep all
        return states.copy(), batch if len(states) == len(batch) else np.resize(batch, len(states))
    starts = np.cumsum(lengths) - lengths
    chosen = np.concatenate([start + place for start, place in zip(starts, places, strict=True)])
    return states[chosen], np.concatenate([np.full(len(place), k) for k, place in zip(batch, places, strict=True)])


def _seen(bounds: tuple[Floats, Floats], kept: Sequence[tuple[bool, Floats, Ids]]) -> Seen:
    sample = np.concatenate([states for held, states, _ in kept if not held])
    rows = [(states, texts) for held, states, texts in kept if held]
    return Seen(
        *bounds, sample, np.concatenate([states for states, _ in rows]), np.concatenate([texts for _, texts in rows])
    )


def together(seen: Sequence[Seen]) -> Seen:
    """What several values held that the same layers read."""
    if len(seen) == 1:
        return seen[0]
    return Seen(
        np.min([one.low for one in seen], axis=0),
        np.max([one.high for one in seen], axis=0),
        np.concatenate([one.sample for one in seen])[:: len(seen)],
        np.concatenate([one.held for one in seen]),
        np.concatenate([one.texts for one in seen]),
    )
