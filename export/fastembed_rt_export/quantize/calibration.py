"""Static INT8 from texts: run the float graph, watch what each group of layers reads, and quantize it there and then.

The graph runs in stages (stages.py), so memory holds the weights of a few layers, some tokens of what they read, and
the token states between stages. Ranges come from ranges.py, weights are rounded by rounding.py, and the mean error of
each output is taken off its bias (Nagel et al. 2019, arXiv:1906.04721). Same texts, same weights, same recipe.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fastembed_rt.run.batching import Ids

from ..errors import UnsupportedCheckpointError
from ..graph.cpu import CPU, with_linears
from ..graph.graph import Graph, Value
from ..graph.int8 import GroupRecipe, Recipe, Rounded, group_key, weight_scales
from ..graph.layers import FeedForward, Heads, Projections, Residual, ScoreBias
from ..graph.target import Target, Tokens
from ..graph.weight import Floats, Linear
from ..graph.writer import write
from . import ranges, rounding
from .ranges import Inputs, Outputs
from .sample import Sample, session, some_tokens, states_by_token
from .stages import Stage, stages
from .texts import SEED

SAMPLE = 4096  # tokens that weights are rounded on
CHOICE = 1024  # tokens that candidates are compared on
HELD = 1536  # tokens of the texts held out, to say which group fails which text
PROJECTED = 96  # outputs of the random projection
CHUNK = 4096  # columns of a weight that are worked on at a time
MOST_COLUMNS = 8192  # of a group, on which candidates are compared
LEAST_STAGE = 48 << 20  # bytes of weights: what smaller stages would save is less than what starting them costs
STAGES = 8  # about, of a large model
AT_ONCE = 4  # groups, each with its inputs several times and a square of their channels in memory


@dataclass
class Groups:
    """Groups of layers of a graph, by key."""

    reads: dict[str, list[Value]] = field(default_factory=dict)
    layers: dict[str, Sequence[Linear]] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)  # groups whose smoothing folds into an earlier layer
    folds_into: dict[str, str] = field(default_factory=dict)  # that layer's weight -> the group
    linear: set[str] = field(default_factory=set)  # groups whose outputs go through no activation (graph/native.py)

    @property
    def values(self) -> list[Value]:
        """What any of them reads. Layers that are run several times (ALBERT's) read several."""
        return list(dict.fromkeys(value for read in self.reads.values() for value in read))


@dataclass(frozen=True)
class Calibrated:
    """What calibration found."""

    recipe: Recipe
    errors: Mapping[str, float]  # of each group's outputs, relative
    by_text: Mapping[str, Floats]  # of each group on each text held out, (texts,), squared
    by_text_of_tails: Mapping[str, Floats]  # the same with operators that know tails, where it is another
    exact: Floats  # float outputs of the texts held out


def probe(groups: Groups, base: Target = CPU) -> Target:
    """The target, noting each group of layers, the values it reads, and whose smoothing folds into which layer."""

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        key = group_key(layers)
        groups.reads.setdefault(key, []).append(states)
        groups.layers.setdefault(key, list(layers))
        return base.linears(graph, states, layers)

    def balance(value: Linear, output: Linear) -> tuple[Linear, Linear]:
        groups.free.add(group_key([output]))
        groups.folds_into[value.weight.name] = group_key([output])
        return value, output

    def attention_block(
        graph: Graph,
        tokens: Tokens,
        states: Value,
        *,
        projections: Projections,
        heads: Heads,
        bias: ScoreBias,
        then: Residual | None,
    ) -> None:
        groups.linear.add(group_key([projections.output]))

    def feed_forward_block(graph: Graph, states: Value, *, layers: FeedForward, then: Residual | None) -> None:
        groups.linear.add(group_key([layers.down]))

    if base is not CPU:
        return replace(base, linears=linears)
    return replace(
        with_linears(CPU, linears),
        balance=balance,
        attention_block=attention_block,
        feed_forward_block=feed_forward_block,
    )


def calibrate(
    build: Callable[[Target], Graph],
    sample: Sample,
    held_out: Sample,
    threads: int,
    base: Target = CPU,
    step: Callable[[int], None] = lambda _: None,
) -> Calibrated:
    """Recipe for the graph's groups of layers.

    Args:
        build: makes the graph for a target.
        sample: texts to calibrate on.
        held_out: texts to measure on.
        threads: of each run.
        base: target whose graph is quantized.
        step: called with the share of the work done since the last call, in thousandths.
    """
    groups = Groups()
    graph = build(probe(groups, base))
    if not groups.reads and base is not CPU:  # a static embedding still has its table
        raise UnsupportedCheckpointError(
            "the graph multiplies nothing with a matrix of weights: int8 has nothing to do"
        )
    watched = groups.values
    part = graph.ending_in([held_out.output], watched)
    most = max(LEAST_STAGE, part.weight_bytes // STAGES) if base is CPU else part.weight_bytes + 1
    cut = stages(part, watched, most)
    run = _Run(sample, held_out, threads)
    found = _Found(groups, len(held_out.rows))
    done = 0
    for number, stage in enumerate(cut, 1):
        found.quantize(run.through(stage), threads)
        reached = round(1000 * number / len(cut))
        step(reached - done)
        done = reached
    recipe = Recipe(groups=found.recipes, folds=found.folds)
    return Calibrated(recipe, found.errors, found.by_text, found.by_text_of_tails, run.exact())


@dataclass
class Seen:
    """What one value held."""

    low: Floats
    high: Floats
    sample: Floats  # (n, K) tokens of the calibration texts
    held: Floats  # (m, K) tokens of the texts held out
    texts: Ids  # (m,) whose they are


class _Run:
    """The batches of all texts, and what leads from one stage to the next."""

    def __init__(self, sample: Sample, held_out: Sample, threads: int) -> None:
        self._threads, self._held_out = threads, held_out
        self._out: list[Any] = [None] * len(held_out.rows)
        # Of each batch: the texts, their numbers, the places of the tokens looked at, what has been made so far.
        self._batches: list[tuple[Sample, Ids, list[Ids], dict[Value, Any]]] = []
        for texts, tokens in ((sample, SAMPLE), (held_out, HELD)):
            places = some_tokens([len(row) for row in texts.rows], tokens, SEED)
            self._batches += [(texts, batch, [places[k] for k in batch], {}) for batch in texts.batches()]

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


@dataclass(frozen=True)
class _One:
    """What was found for a group."""

    recipe: GroupRecipe
    error: float
    by_text: Floats
    by_text_of_tails: Floats | None


class _Found:
    """Recipes of the groups whose inputs have been seen."""

    def __init__(self, groups: Groups, texts: int) -> None:
        self._groups, self._texts = groups, texts
        self._seen: dict[Value, Seen] = {}
        self._open = list(groups.reads)
        self.recipes: dict[str, GroupRecipe] = {}
        self.folds: dict[str, Floats] = {}
        self.errors: dict[str, float] = {}
        self.by_text: dict[str, Floats] = {}
        self.by_text_of_tails: dict[str, Floats] = {}

    def quantize(self, seen: Mapping[Value, Seen], threads: int) -> None:
        """Quantize every group whose inputs have been seen, once all that is to be folded into it is known.

        A group a thread, each on one thread of the products' library: its own threads spin while they wait for each
        other, which stands still beside another busy process.
        """
        self._seen.update(seen)
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(min(threads, AT_ONCE)) as pool:
            while ready := [key for key in self._open if self._ready(key)]:
                for key, found in zip(ready, pool.map(self._one, ready), strict=True):
                    self._take(key, found)
                self._open = [key for key in self._open if key not in ready]
                needed = {value for key in self._open for value in self._groups.reads[key]}
                self._seen = {value: one for value, one in self._seen.items() if value in needed}

    def _take(self, key: str, found: _One) -> None:
        group = found.recipe
        if key in self._groups.free and group.smooth is not None:
            self.folds[key] = group.smooth
            group = replace(group, smooth=None)
        self.recipes[key], self.errors[key], self.by_text[key] = group, found.error, found.by_text
        if found.by_text_of_tails is not None:
            self.by_text_of_tails[key] = found.by_text_of_tails

    def _ready(self, key: str) -> bool:
        behind = [self._groups.folds_into.get(layer.weight.name) for layer in self._groups.layers[key]]
        waits = any(other in self._open for other in behind if other in self._groups.reads and other != key)
        return not waits and all(value in self._seen for value in self._groups.reads[key])

    def _one(self, key: str) -> _One:
        seen = _together([self._seen[value] for value in self._groups.reads[key]])
        weights = _Weights(self._groups, key, self.folds)
        inputs = Inputs(seen.sample, seen.low, seen.high)
        sketch = weights.sketch()
        outputs = Outputs(sketch, weights.largest(), weights.some())
        step = max(len(inputs.sample) // CHOICE, 1)
        free = key in self._groups.free
        group = ranges.choose(inputs.every(step), outputs, free=free, tails=key in self._groups.linear)
        counts = outputs.counts(inputs.sample)
        smoothed = inputs.divided(group.smooth)
        share = counts / counts.sum()
        ways = [replace(group, tails=None), *([group] if group.tails is not None else [])]
        means = np.stack([_mean(smoothed.sample, share, way) for way in ways])
        rounded, moved, projected, moves = _rounded(weights, group, smoothed, counts, means)
        errors = [
            _errors(seen, way, sketch, projected, move, outputs, self._texts)
            for way, move in zip(ways, moves, strict=True)
        ]
        tails = None if group.tails is None else replace(group.tails, bias_shift=moved[1])
        return _One(
            replace(group, rounded=rounded, bias_shift=moved[0], tails=tails),
            error=errors[0][0],
            by_text=errors[0][1],
            by_text_of_tails=errors[1][1] if tails is not None else None,
        )


def _mean(sample: Floats, share: Floats, group: GroupRecipe) -> Floats:
    """(K,) weighted mean of (smoothed) inputs as the graph makes them, some tokens at a time to hold no copy of all."""
    parts = (slice(begin, begin + CHOICE) for begin in range(0, len(sample), CHOICE))
    found: Floats = np.sum([share[part] @ ranges.dequantized(sample[part], group) for part in parts], axis=0)
    return found


def _rounded(
    weights: _Weights, group: GroupRecipe, smoothed: Inputs, counts: Floats, means: Floats
) -> tuple[tuple[Rounded, ...], list[tuple[Floats, ...]], Floats, Floats]:
    """Integers of each layer, and what its bias moves by for each of the ways to quantize the inputs.

    Args:
        weights: of the group.
        group: its recipe, of which smoothing counts here.
        smoothed: its inputs.
        counts: (n,) weight of each token.
        means: (ways, K) mean of the inputs as each way gives them.

    Returns:
        Integers and scales by layer; by way and layer (N,) what the bias moves by; the rounded weights (K, R) and the
        moves (ways, R) through the random projection.
    """
    mean, covariance = rounding.second_moments(smoothed.sample, counts)
    found: list[Rounded] = []
    moved: list[list[Floats]] = [[] for _ in means]
    projected = np.zeros((len(mean), PROJECTED), np.float32)
    moves = np.zeros((len(means), PROJECTED), np.float32)
    for layer in range(weights.count):
        values, scales, shifts = [], [], []
        for number, columns in weights.chunks(layer):
            own = columns if group.smooth is None else columns * group.smooth[:, None]
            scale = weight_scales(own)
            values.append(rounding.rounded(own, scale, covariance))
            scales.append(scale)
            real = values[-1] * scale
            shifts.append(mean @ own - means @ real)
            projection = weights.projection(number, real.shape[1])
            projected += real @ projection
            moves += shifts[-1] @ projection
        found.append(Rounded(np.concatenate(values, axis=1), np.concatenate(scales)))
        for way, shift in zip(moved, np.concatenate(shifts, axis=1), strict=True):
            way.append(shift)
    return tuple(found), [tuple(way) for way in moved], projected, moves


def _errors(
    seen: Seen,
    group: GroupRecipe,
    sketch: Floats,
    projected: Floats,
    moved: Floats,
    outputs: Outputs,
    texts: int,
) -> tuple[float, Floats]:
    """Error of the outputs of the tokens held out relative to each token's own output: of all, and squared by text."""
    inputs: Floats = seen.held if group.smooth is None else (seen.held / group.smooth).astype(np.float32)
    lost = ranges.dequantized(inputs, group) @ projected + moved - seen.held @ sketch
    squared = np.square(lost).sum(axis=1) * outputs.counts(seen.held) * 2  # halves: the median is added to the power
    counts = np.maximum(np.bincount(seen.texts, minlength=texts), 1)
    by_text = (np.bincount(seen.texts, weights=squared, minlength=texts) / counts).astype(np.float32)
    return float(np.sqrt(squared.mean())), by_text


def _together(seen: Sequence[Seen]) -> Seen:
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


class _Weights:
    """The weights of a group, (K, N) of all its layers side by side, with earlier groups' smoothing folded in."""

    def __init__(self, groups: Groups, key: str, folds: Mapping[str, Floats]) -> None:
        self._layers = groups.layers[key]
        self._folds = [folds.get(groups.folds_into.get(layer.weight.name, "")) for layer in self._layers]
        self.count = len(self._layers)
        self._width = sum(layer.out_features for layer in self._layers)
        self._sizes = [len(range(0, layer.out_features, CHUNK)) for layer in self._layers]

    def chunks(self, layer: int) -> Iterator[tuple[int, Floats]]:
        """(K, n) columns of a layer at a time, with the number of the chunk in the group."""
        weight, fold = self._layers[layer].weight.load().T, self._folds[layer]
        for index, begin in enumerate(range(0, weight.shape[1], CHUNK)):
            columns = weight[:, begin : begin + CHUNK].astype(np.float32)
            if fold is not None:
                columns = columns / fold[begin : begin + CHUNK]
            yield sum(self._sizes[:layer]) + index, columns

    def _all(self) -> Iterator[tuple[int, Floats]]:
        for layer in range(self.count):
            yield from self.chunks(layer)

    def projection(self, number: int, columns: int) -> Floats:
        """(n, R) the rows of the random projection that belong to a chunk."""
        random = np.random.default_rng([SEED, number])
        return random.standard_normal((columns, PROJECTED), dtype=np.float32) / np.float32(np.sqrt(PROJECTED))

    def sketch(self) -> Floats:
        """(K, R) the weights through a random projection."""
        found: Floats = np.sum(
            [columns @ self.projection(number, columns.shape[1]) for number, columns in self._all()], axis=0
        )
        return found

    def largest(self) -> Floats:
        """(K,) largest magnitude of each input's weights."""
        found: Floats = np.max([np.abs(columns).max(axis=1) for _, columns in self._all()], axis=0)
        return found

    def some(self) -> Floats:
        """(K, n) every so many columns, larger for those left out: of a vocabulary's worth, a share tells as much."""
        step = -(-self._width // MOST_COLUMNS)
        return np.float32(np.sqrt(step)) * np.concatenate([columns[:, ::step] for _, columns in self._all()], axis=1)
