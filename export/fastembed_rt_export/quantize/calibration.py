"""Static INT8 from texts: run the float graph, watch what each group of layers reads, and quantize it there and then.

The graph runs in stages (stages.py), so memory holds the weights of a few layers, some tokens of what they read, and
the token states between stages. Ranges come from ranges.py, weights are rounded by rounding.py, and the mean error of
each output is taken off its bias (Nagel et al. 2019, arXiv:1906.04721). Same texts, same weights, same recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import UnsupportedCheckpointError
from ..graph.cpu import CPU
from ..graph.graph import Graph, Value
from ..graph.int8 import GroupRecipe, Recipe, Rounded, weight_scales
from ..graph.target import Target
from ..graph.weight import Floats
from . import ranges, rounding
from .groups import PROJECTED, Groups, Weights, probe
from .ranges import Inputs, Outputs
from .sample import Sample
from .stages import stages
from .watching import Seen, Watched, together

CHOICE = 1024  # tokens that candidates are compared on
LEAST_STAGE = 6 << 20  # bytes of weights: starting smaller ones costs more than what they hold is worth
STAGES = 16  # about, of a large model
WORTH_DITHER = 0.9  # below this share of the error with a dither, the nearest integers stay
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
        found.quantize(run.through(stage), threads)
        reached = round(1000 * number / len(cut))
        step(reached - done)
        done = reached
    recipe = Recipe(groups=found.recipes, folds=found.folds)
    return Calibrated(recipe, found.errors, found.by_text, found.by_text_of_tails, run.exact())


@dataclass(frozen=True)
class _One:
    """What was found for a group."""

    recipe: GroupRecipe
    error: float
    by_text: Floats
    by_text_of_tails: Floats | None


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
        seen = together([self._seen[value] for value in self._groups.reads[key]])
        weights = Weights(self._groups, key, self.folds)
        inputs = Inputs(seen.sample, seen.low, seen.high)
        sketch = weights.sketch()
        outputs = Outputs(sketch, weights.largest(), weights.some())
        step = max(len(inputs.sample) // self._choice, 1)
        free = key in self._groups.free
        group = ranges.choose(inputs.every(step), outputs, free=free, tails=self._groups.tails(key))
        counts = outputs.counts(inputs.sample)
        smoothed = inputs.divided(group.smooth)
        group = replace(group, dither=self._dither and ranges.spread(smoothed.every(step), group) >= WORTH_DITHER)
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
    weights: Weights, group: GroupRecipe, smoothed: Inputs, counts: Floats, means: Floats
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
