"""Static INT8 from texts: run the float graph, watch what each group of layers reads, and quantize it there and then.

The graph runs in stages (stages.py), so memory holds the weights of a few layers, some tokens of what they read, and
the token states between stages. Ranges come from ranges.py, weights are rounded by rounding.py, and the mean error of
each output is taken off its bias (Nagel et al. 2019, arXiv:1906.04721). Same texts, same weights, same recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fastembed_rt.run import memory

from ..errors import UnsupportedCheckpointError
from ..graph.cpu import CPU
from ..graph.graph import Graph, Value
from ..graph.int8 import GroupRecipe, Recipe, Rounded, weight_scales
from ..graph.target import Target
from ..graph.weight import Floats
from . import ranges, rounding
from .groups import PROJECTED, Groups, Weights, probe
from .ranges import Inputs, Outputs, divided, parts
from .sample import Sample
from .stages import stages
from .watching import Seen, Watched, together

CHOICE = 1024  # tokens that candidates are compared on
LEAST_STAGE = 6 << 20  # bytes of weights: starting smaller ones costs more than what they hold is worth
STAGES = 16  # about, of a large model
WORTH_DITHER = 0.9  # below this share of the error with a dither, the nearest integers stay
NONE = np.empty((0, 0), np.float32)
AT_ONCE = 4  # groups, each with its inputs several times and a square of their channels in memory


@dataclass(frozen=True)
class Calibrated:
    """What calibration found."""

    recipe: Recipe
    errors: Mapping[str, float]  # of each group's outputs, relative
    by_text: Mapping[str, Floats]  # of each group on each text held out, (texts,), squared
    by_text_of_tails: Mapping[str, Floats]  # the same with operators that know tails, where it is another
    exact: Floats  # float outputs of the texts held out


def calibrate(
    build: Callable[[Target], Graph],
    sample: Sample,
    held_out: Sample,
    threads: int,
    base: Target = CPU,
    step: Callable[[int], None] = lambda _: None,
    share: float = 1.0,
    *,
    dither: bool = False,
    rare: Sample | None = None,
) -> Calibrated:
    """Recipe for the graph's groups of layers.

    Args:
        build: makes the graph for a target.
        sample: texts to calibrate on.
        held_out: texts to measure on.
        threads: of each run.
        base: target whose graph is quantized.
        step: called with the share of the work done since the last call, in thousandths.
        share: of the tokens that weights are rounded on, for large models.
        dither: let operators that can dither inputs: for vectors that are means of token states.
        rare: texts that widen ranges and are no other part of the sample.
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
    run = Watched(sample, held_out, threads, share, rare)
    found = _Found(groups, len(held_out.rows), int(share * CHOICE), dither=dither)
    done = 0
    for number, stage in enumerate(cut, 1):
        seen = run.through(stage)
        memory.give_back()
        found.quantize(seen, threads)
        del seen
        reached = round(1000 * number / len(cut))
        step(reached - done)
        done = reached
    recipe = Recipe(groups=found.in_order(found.recipes), folds=found.in_order(found.folds))
    by_text, of_tails = found.in_order(found.by_text), found.in_order(found.by_text_of_tails)
    return Calibrated(recipe, found.in_order(found.errors), by_text, of_tails, run.exact())


@dataclass(frozen=True)
class _One:
    """What was found for a group."""

    recipe: GroupRecipe
    error: float
    by_text: Floats
    by_text_of_tails: Floats | None


@dataclass(frozen=True)
class _Way:
    """Integers of a group's layers, what their biases move by, and the error of the outputs."""

    rounded: tuple[Rounded, ...]
    moved: tuple[Floats, ...]
    error: float
    by_text: Floats


class _Found:
    """Recipes of the groups whose inputs have been seen."""

    def __init__(self, groups: Groups, texts: int, choice: int, *, dither: bool) -> None:
        self._groups, self._texts, self._choice, self._dither = groups, texts, choice, dither
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
        other, which stands still beside another busy process. The longest first, with what waits for it.
        """
        self._seen.update(seen)
        running: dict[Future[_One], str] = {}
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(min(threads, AT_ONCE)) as pool:
            while True:
                ready = [key for key in self._open if key not in running.values() and self._ready(key)]
                for key in sorted(ready, key=self._time, reverse=True):
                    running[pool.submit(self._one, key)] = key
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(done)
                    self._take(key, done.result())
                    self._open.remove(key)
                needed = {value for key in self._open for value in self._groups.reads[key]}
                self._seen = {value: one for value, one in self._seen.items() if value in needed}
                memory.give_back()

    def _time(self, key: str) -> int:
        """Multiplications of a group's rounding, and of that of the groups which wait for it."""
        layers = self._groups.layers[key]
        own = sum(layer.in_features**2 * layer.out_features for layer in layers)
        return own + sum(self._time(other) for other in self._open if other != key and key in self._behind(other))

    def in_order(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """By the groups' order in the graph, whichever was done first."""
        return {key: found[key] for key in self._groups.reads if key in found}

    def _take(self, key: str, found: _One) -> None:
        group = found.recipe
        if key in self._groups.free and group.smooth is not None:
            self.folds[key] = group.smooth
            group = replace(group, smooth=None)
        self.recipes[key], self.errors[key], self.by_text[key] = group, found.error, found.by_text
        if found.by_text_of_tails is not None:
            self.by_text_of_tails[key] = found.by_text_of_tails

    def _behind(self, key: str) -> list[str]:
        """Groups whose smoothing folds into this one's layers."""
        found = [self._groups.folds_into.get(layer.weight.name) for layer in self._groups.layers[key]]
        return [other for other in found if other is not None and other in self._groups.reads and other != key]

    def _ready(self, key: str) -> bool:
        waits = any(other in self._open for other in self._behind(key))
        return not waits and all(value in self._seen for value in self._groups.reads[key])

    def _one(self, key: str) -> _One:
        seen = together([self._seen[value] for value in self._groups.reads[key]])
        weights = Weights(self._groups, key, self.folds)
        outputs = weights.outputs()
        step = max(len(seen.sample) // self._choice, 1)
        free = key in self._groups.free
        few = Inputs(seen.sample[::step], seen.low, seen.high)
        heavy, own = self._groups.heavy(key), None
        smoothed = key not in self._groups.behind_activation
        group = ranges.choose(few, outputs, free=free, tails=heavy, smoothed=smoothed)
        if self._groups.blocks:
            share = ranges.TAILS if heavy else ranges.TAILS_OF_NORMED
            group = group if heavy else ranges.with_tails(few, group, share)
            own = None if free else ranges.own(few, outputs, group, share)
        outputs = replace(outputs, weights=NONE)  # the largest array here
        dither = self._dither and ranges.spread(few, own or group) >= WORTH_DITHER
        del few
        memory.give_back()  # here, where two groups at once hold most
        ways = [replace(group, tails=None)]
        if self._groups.blocks and own is None:
            ways.append(group)
        shared = self._groups.shared(key)
        found = self._ways(seen, weights, ways, outputs, last=own is None and not shared)
        if own is not None:
            found += self._ways(seen, weights, [own], outputs, last=not shared)
        stock, tails = found[0], None
        if narrow := (own or group).tails:
            tails = replace(narrow, bias_shift=found[1].moved)
        if own is not None and tails is not None:
            tails = replace(tails, smooth=own.smooth, rounded=found[1].rounded)
        return _One(
            replace(group, dither=dither, rounded=stock.rounded, bias_shift=stock.moved, tails=tails),
            error=stock.error,
            by_text=stock.by_text,
            by_text_of_tails=None if tails is None else found[1].by_text,
        )

    def _ways(
        self, seen: Seen, weights: Weights, ways: Sequence[GroupRecipe], outputs: Outputs, *, last: bool
    ) -> list[_Way]:
        """Integers for ways to quantize the inputs that have the same smoothing, and what each leaves of the outputs.

        `last`: nobody needs the inputs any more.
        """
        counts = outputs.counts(seen.sample)
        mean, covariance = rounding.second_moments(seen.sample, counts, ways[0].smooth)
        means = mean + _means(seen.sample, counts / counts.sum(), ways)
        if last:
            seen.sample = NONE
        memory.give_back()
        rounded, moved, projected, moves = _rounded(weights, ways[0], mean, covariance, means)
        del covariance
        found = []
        for way, shifts, move in zip(ways, moved, moves, strict=True):
            error, by_text = _errors(seen, way, projected, move, outputs, self._texts)
            found.append(_Way(rounded, shifts, error, by_text))
        return found


def _means(sample: Floats, share: Floats, ways: Sequence[GroupRecipe]) -> Floats:
    """(ways, K) weighted mean of what each way makes of (smoothed) inputs, less these."""
    found = np.zeros((len(ways), sample.shape[1]), np.float32)
    for part in parts(sample):
        smoothed = divided(sample[part], ways[0].smooth)
        found += np.stack([share[part] @ ranges.lost(smoothed, way) for way in ways])
    return found


def _rounded(
    weights: Weights, group: GroupRecipe, mean: Floats, covariance: Floats, means: Floats
) -> tuple[tuple[Rounded, ...], list[tuple[Floats, ...]], Floats, Floats]:
    """Integers of each layer, and what its bias moves by for each of the ways to quantize the inputs.

    Args:
        weights: of the group.
        group: its recipe, of which smoothing counts here.
        mean: (K,) of the (smoothed) inputs.
        covariance: (K, K) of them.
        means: (ways, K) mean of the inputs as each way gives them.

    Returns:
        Integers and scales by layer; by way and layer (N,) what the bias moves by; the rounded weights (K, R) and the
        moves (ways, R) through the random projection.
    """
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
    projected: Floats,
    moved: Floats,
    outputs: Outputs,
    texts: int,
) -> tuple[float, Floats]:
    """Error of the outputs of the tokens held out relative to each token's own output: of all, and squared by text."""
    exact = seen.held @ outputs.sketch
    squares = []
    for part in parts(seen.held):
        inputs = divided(seen.held[part], group.smooth)
        lost = (inputs + ranges.lost(inputs, group)) @ projected + moved - exact[part]
        squares.append(np.square(lost).sum(axis=1))
    squared = np.concatenate(squares) * ranges.counts_of(exact) * 2  # halves: the median is added to the power
    counts = np.maximum(np.bincount(seen.texts, minlength=texts), 1)
    by_text = (np.bincount(seen.texts, weights=squared, minlength=texts) / counts).astype(np.float32)
    return float(np.sqrt(squared.mean())), by_text
