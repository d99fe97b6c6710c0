"""Static FP8 from texts, as INT8 in calibration.py: what each group of layers reads, the numbers that lose least.

Scales, means of channels, weights rounded by the second moments of their inputs, the mean error of outputs taken off
the biases. Nothing is smoothed and no channel is kept apart: numbers with an exponent of their own need neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import UnsupportedCheckpointError
from ..gate.parity import Fidelity
from ..graph import fp8
from ..graph.cpu import CPU, with_linears
from ..graph.graph import Graph, Value
from ..graph.int8 import group_key
from ..graph.target import Target
from ..graph.weight import Floats, Linear
from . import calibration, fallback, rounding
from .fallback import Trial
from .groups import Groups, Weights
from .ranges import MARGIN
from .sample import Sample
from .stages import stages
from .watching import Seen, Watched, together

Recipe = fp8.Recipe
MEAN, WORST = 0.998, 0.99  # fidelity asked of all texts together, and of each
ADVICE = f"and {MEAN} in the mean; export fp16"


class Near(Fidelity):
    """Fidelity of FP8: texts have to be near on average too."""

    def passes(self, min_cosine: float) -> bool:
        """Whether the mean is near enough, and the worst text."""
        return self.mean_cosine >= MEAN and self.min_cosine >= min_cosine


@dataclass(frozen=True)
class Calibrated:
    """What calibration found."""

    recipe: Recipe
    errors: dict[str, float]  # of each group's outputs, relative
    by_text: dict[str, Floats]  # of each group on each text held out, (texts,), squared
    exact: Floats  # float outputs of the texts held out
    attended: frozenset[str]  # groups of queries, keys and values


def calibrate(
    build: Callable[[Target], Graph],
    sample: Sample,
    held_out: Sample,
    threads: int,
    share: float = 1.0,
    rare: Sample | None = None,
) -> Calibrated:
    """Recipe for the graph's groups of layers; see calibration.calibrate.

    Raises:
        UnsupportedCheckpointError: there is nothing to quantize.
    """
    allowed = fp8.Groups()
    build(fp8.probe(allowed))
    groups = Groups()
    graph = build(_probe(groups, allowed))
    if not groups.reads:
        raise UnsupportedCheckpointError(
            "the graph has no product for fp8, whose inputs and outputs are multiples of 16; take fp16"
        )
    watched = groups.values
    part = graph.ending_in([held_out.output], watched)
    run = Watched(sample, held_out, threads, share, rare)
    seen: dict[Value, Seen] = {}
    found, errors, by_text = dict[str, fp8.GroupRecipe](), dict[str, float](), dict[str, Floats]()
    left = list(groups.reads)

    def one(key: str) -> tuple[fp8.GroupRecipe, float, Floats]:
        inputs = together([seen[value] for value in groups.reads[key]])
        return _quantized(groups, key, inputs, len(held_out.rows), centered=key not in allowed.activated)

    for stage in stages(part, watched, max(calibration.LEAST_STAGE, part.weight_bytes // calibration.STAGES)):
        seen |= run.through(stage)
        ready = [key for key in left if all(value in seen for value in groups.reads[key])]
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(min(threads, calibration.AT_ONCE)) as pool:
            for key, (group, error, squared) in zip(ready, pool.map(one, ready), strict=True):
                found[key], errors[key], by_text[key] = group, error, squared
        left = [key for key in left if key not in ready]
        needed = {value for key in left for value in groups.reads[key]}
        seen = {value: held for value, held in seen.items() if value in needed}
    return Calibrated(Recipe(groups=found), errors, by_text, run.exact(), frozenset(allowed.attended))


def passing(found: Calibrated, trial: Trial) -> tuple[Recipe, Fidelity]:
    """The recipe with as few groups in 16 bits as it takes, or as many as are allowed.

    What attention reads goes back first: it is a quarter of the multiplications, and on real models its error costs
    most. Behind it, the largest error first. How many is found by halving.
    """
    order = sorted(found.errors, key=lambda key: (key not in found.attended, -found.errors[key]))

    def tried(count: int) -> tuple[Recipe, Fidelity]:
        groups = {key: group for key, group in found.recipe.groups.items() if key not in order[:count]}
        recipe = Recipe(groups=groups)
        measured = trial.fidelity(trial.vectors(recipe, trial.held_out), found.exact)
        trial.say(f"fidelity to fp32 on {len(trial.held_out.rows)} texts with {count} groups in 16 bits: {measured}")
        return recipe, measured

    enough, few = int(len(order) * fallback.MOST_FLOAT), 0
    best = tried(0)
    if best[1].passes(trial.bound) or not enough:
        return best
    best = tried(enough)
    while best[1].passes(trial.bound) and enough - few > 1:
        middle = (few + enough) // 2
        given = tried(middle)
        if given[1].passes(trial.bound):
            best, enough = given, middle
        else:
            few = middle
    return best


def _probe(groups: Groups, allowed: fp8.Groups) -> Target:
    """The cpu target for all tokens, noting what each group that may be quantized reads."""
    base = replace(CPU, first=None, attend_first=None, last=None)

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        key = group_key(layers)
        if key in allowed.found:
            groups.reads.setdefault(key, []).append(states)
            groups.layers.setdefault(key, list(layers))
        return base.linears(graph, states, layers)

    return with_linears(base, linears)


def _quantized(
    groups: Groups, key: str, seen: Seen, texts: int, *, centered: bool
) -> tuple[fp8.GroupRecipe, float, Floats]:
    """A group's recipe, the error of its outputs relative to each token's own, and its square by text."""
    weights = Weights(groups, key, {})
    outputs = weights.outputs(some=False)
    sketch = outputs.sketch
    counts = outputs.counts(seen.sample)
    mean, covariance = rounding.second_moments(seen.sample, counts)
    center = mean.astype(np.float32) if centered else None
    away = np.zeros_like(mean) if center is None else center
    top = float(max(np.abs(seen.low - away).max(), np.abs(seen.high - away).max()))
    group = fp8.GroupRecipe(scale=max(MARGIN * top, 1e-6) / fp8.LARGEST, center=center, layers=())
    share = counts / counts.sum()
    begins = range(0, len(seen.sample), calibration.CHOICE)
    parts = [slice(begin, begin + calibration.CHOICE) for begin in begins]
    given = np.sum([share[part] @ dequantized(seen.sample[part], group) for part in parts], axis=0)
    projected = np.zeros_like(sketch)
    moved = np.zeros(sketch.shape[1], np.float32)
    layers = []
    for layer in range(weights.count):
        chunks = list(weights.chunks(layer))
        scale = np.float32(max(1e-12, *(float(np.abs(columns).max()) for _, columns in chunks)) / fp8.LARGEST)
        values, shifts = [], []
        for number, columns in chunks:
            numbers = rounding.descended(columns, scale, covariance, fp8.nearest)
            real = numbers * scale
            values.append(numbers.astype(fp8.E4M3).T)
            shifts.append((mean @ columns - given @ real).astype(np.float32))
            projection = weights.projection(number, real.shape[1])
            projected += real @ projection
            moved += shifts[-1] @ projection
        layers.append(fp8.Rounded(np.concatenate(values), float(scale), np.concatenate(shifts)))
    lost = dequantized(seen.held, group) @ projected + moved - seen.held @ sketch
    squared = np.square(lost).sum(axis=1) * outputs.counts(seen.held) * 2  # halves: the median is added to the power
    of_texts = np.maximum(np.bincount(seen.texts, minlength=texts), 1)
    by_text = (np.bincount(seen.texts, weights=squared, minlength=texts) / of_texts).astype(np.float32)
    return replace(group, layers=tuple(layers)), float(np.sqrt(squared.mean())), by_text


def dequantized(inputs: Floats, group: fp8.GroupRecipe) -> Floats:
    """What a product reads of inputs (n, K), in floats: rounded, without the mean that was taken off."""
    steps: Floats = (inputs if group.center is None else inputs - group.center) / np.float32(group.scale)
    fp8.nearest(steps)
    steps *= np.float32(group.scale)
    return steps
