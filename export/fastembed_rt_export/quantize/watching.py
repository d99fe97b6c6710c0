"""The float graph run stage by stage over all texts: what each watched value held."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.run import memory
from fastembed_rt.run.batching import Ids

from ..graph.graph import Value
from ..graph.weight import Floats
from ..graph.writer import write
from .sample import Sample, session, side_by_side, some_tokens, states_by_token
from .stages import Stage
from .texts import SEED

SAMPLE = 4096  # tokens that weights are rounded on
BATCHES = 16  # between which free memory is given back
HELD = 1536  # tokens of the texts held out, to say which group fails which text
# Of a value in a batch: its range, but for texts held out, and the tokens that are looked at, with whose they are.
_Shown = tuple[tuple[Floats, Floats] | None, tuple[Floats, Ids] | None]


@dataclass
class Seen:
    """What one value held."""

    low: Floats
    high: Floats
    sample: Floats  # (n, K) tokens of the calibration texts
    held: Floats  # (m, K) tokens of the texts held out
    texts: Ids  # (m,) whose they are


@dataclass
class _Batch:
    """Texts that are run together."""

    texts: Sample
    chosen: Ids  # (B,) their numbers
    places: Sequence[Ids] = ()  # of the tokens looked at, of each text
    made: dict[Value, Any] = field(default_factory=dict)  # what stages so far have made for the next one


class Watched:
    """The batches of all texts, and what leads from one stage to the next."""

    def __init__(
        self, sample: Sample, held_out: Sample, threads: int, share: float = 1.0, rare: Sample | None = None
    ) -> None:
        """Of the tokens that are looked at, a share is; of `rare` texts ranges alone are."""
        self._threads, self._held_out = threads, held_out
        self._out: list[Any] = [None] * len(held_out.rows)
        self._looked_at: list[int] = []  # tokens of the calibration texts, of those held out
        self._batches: list[_Batch] = []
        for texts, tokens in ((sample, int(share * SAMPLE)), (held_out, int(share * HELD))):
            places = some_tokens([len(row) for row in texts.rows], tokens, SEED)
            self._looked_at.append(sum(map(len, places)))
            self._batches += [_Batch(texts, batch, [places[k] for k in batch]) for batch in texts.batches()]
        if rare is not None:
            self._batches += [_Batch(rare, batch) for batch in rare.batches()]

    def through(self, stage: Stage) -> dict[Value, Seen]:
        """Run a stage over all batches."""
        kept = {value: (_Rows(self._looked_at[0]), _Rows(self._looked_at[1])) for value in stage.watched}
        ranges: dict[Value, tuple[Floats, Floats]] = {}
        with tempfile.TemporaryDirectory() as work:
            # Beside the graph: a session maps the weights that it would hold twice more while it is made.
            write(stage.graph, Path(work), "stage.onnx", name="stage", metadata={}, external=True, checked=False)
            running = session(Path(work) / "stage.onnx")

            def run(batch: _Batch) -> tuple[_Batch, dict[Value, _Shown]]:
                return batch, self._run(running, stage, batch)

            for number, (batch, shown) in enumerate(side_by_side(run, self._batches, self._threads)):
                if number % BATCHES == 0:
                    memory.give_back()
                for value, (bounds, rows) in shown.items():
                    if bounds is not None:
                        low, high = ranges.get(value, bounds)
                        ranges[value] = np.minimum(low, bounds[0]), np.maximum(high, bounds[1])
                    if rows is not None:
                        kept[value][batch.texts is self._held_out].add(*rows)
        return {value: _seen(ranges[value], *kept[value]) for value in stage.watched}

    def _run(self, running: Any, stage: Stage, batch: _Batch) -> dict[Value, _Shown]:
        """Run a stage over a batch, which keeps what the next one takes; what is looked at of each watched value."""
        texts, chosen = batch.texts, batch.chosen
        needed = [entry.name for entry in running.get_inputs() if entry.name not in stage.takes]
        feeds = texts.fed(chosen, needed) | {name: batch.made[name] for name in stage.takes}
        given = dict(zip(stage.outputs, running.run(stage.outputs, feeds), strict=True))
        held, found = texts is self._held_out, dict[Value, _Shown]()
        for value in stage.watched:
            states = states_by_token(given[value], texts.lengths[chosen])
            bounds = None if held else (states.min(axis=0), states.max(axis=0))
            found[value] = bounds, _looked_at(states, texts, chosen, batch.places) if batch.places else None
        if held and texts.output in given:
            for k, piece in zip(chosen, texts.split(chosen, given[texts.output]), strict=True):
                self._out[k] = piece
        _keep(batch.made, {name: given[name] for name in stage.gives})
        return found

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


def _keep(made: dict[Value, Any], given: Mapping[Value, Any]) -> None:
    """Have `made` hold these values and no others, in the memory of those before where they have the same shapes."""
    spare = list(made.values())
    made.clear()
    for name, states in given.items():
        fitting = (k for k, held in enumerate(spare) if held.shape == states.shape and held.dtype == states.dtype)
        place = next(fitting, None)
        made[name] = memory.outside(states.shape, states.dtype) if place is None else spare.pop(place)
        made[name][...] = states


class _Rows:
    """Rows in one array while they come, and whose each is: no second copy where there are as many as expected."""

    def __init__(self, expected: int) -> None:
        self._expected, self._used = expected, 0
        self._rows = np.empty((0, 0), np.float32)
        self._texts = np.empty(0, np.int64)

    def add(self, rows: Floats, texts: Ids) -> None:
        """(n, K) and (n,)."""
        end = self._used + len(rows)
        if end > len(self._rows):
            more = max(self._expected, 2 * end if self._used else end)
            before = self._rows[: self._used], self._texts[: self._used]
            self._rows, self._texts = memory.outside((more, rows.shape[1])), np.empty(more, np.int64)
            if self._used:
                self._rows[: self._used], self._texts[: self._used] = before
        self._rows[self._used : end], self._texts[self._used : end] = rows, texts
        self._used = end

    @property
    def all(self) -> tuple[Floats, Ids]:
        """What has come."""
        return self._rows[: self._used], self._texts[: self._used]


def _seen(bounds: tuple[Floats, Floats], sample: _Rows, held: _Rows) -> Seen:
    return Seen(*bounds, sample.all[0], *held.all)


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
