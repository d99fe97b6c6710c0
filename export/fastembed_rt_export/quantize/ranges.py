"""Which integers stand for a layer's inputs: smoothing, outlier channels, scale and zero point.

Smoothing moves range from activations to weights (Xiao et al. 2022, arXiv:2211.10438); channels with rare huge values
are clipped and their excess is added back in float (after Dettmers et al. 2022, arXiv:2208.07339). Nothing else is
clipped: whatever the calibration texts hold keeps its value. Where an operator adds back what lies beyond the range
(`TAILS`), the range is narrow.

The choice is the one with the smallest error of the outputs, in shares of each token's own output: in many encoders a
token or two a text (the first, the last) are a hundred times larger than all others, and would decide alone. Outputs
are compared through a random projection, which keeps squared lengths (Johnson and Lindenstrauss 1984).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.int8 import GroupRecipe, Tails
from ..graph.weight import Array, Floats

OUTLIERS = (0, 1, 2, 4)
ALPHAS = (0.35, 0.5, 0.65, 0.8, 0.95)
# More outlier channels must bring the squared error down to this share. Their product writes all outputs once more:
# little beside the integer product where that is long and narrow (down projections), much where it is short and wide.
WORTH_OUTLIERS, WORTH_WIDE_OUTLIERS = 0.85, 0.25
WORTH_SMOOTHING = 0.75  # a multiplication at run time must bring it down to this share
ROUNDED_BETTER = 0.35  # of the error of the nearest integers, what `rounding` is taken to leave
EVERY = 4  # token of a sample: enough to say where the tails begin
# Share of inputs beyond a narrow range: a product of a few rows more for each token. Behind a normalization few inputs
# are far from the others, and the layers are the widest.
TAILS, TAILS_OF_NORMED = 0.001, 0.0005
# Of a range that is not narrow: other texts reach a little further than those calibrated on, and what attention mixes
# further still, since it does not average the values of tokens that are all alike.
MARGIN, MARGIN_OF_MIXED = 1.1, 1.5
OWN_ALPHAS = (0.2, 0.35, 0.5, 0.65, 0.8)
USUAL = 0.99  # share of a channel's inputs that smoothing for operators with tails knows
# An input's rounding error is another one for each token, a weight's the same for all: in what tokens are summed up to
# it counts that much more.
COHERENT = 4.0
WORTH_OWN = 0.7  # share of the error that integers of their own leave
STOCK_COUNTS = 0.25  # of the error of stock operators beside that of our own
AT_A_TIME = 1 << 17  # numbers that are rounded at a time: a few arrays of so many stay in a processor's cache


@dataclass(frozen=True)
class Inputs:
    """What was seen of a group's input: some tokens of all texts, and every channel's range over all tokens."""

    sample: Floats  # (n, K)
    low: Floats  # (K,)
    high: Floats


def divided(sample: Floats, smooth: Array | None) -> Floats:
    """Inputs (n, K) with every channel divided by its factor, (K,)."""
    return sample if smooth is None else (sample / smooth).astype(np.float32, copy=False)


def parts(sample: Floats) -> Iterator[slice]:
    """Tokens of a sample (n, K) that are worked on at a time."""
    step = max(AT_A_TIME // sample.shape[1], 1)
    return (slice(begin, begin + step) for begin in range(0, len(sample), step))


@dataclass(frozen=True)
class Outputs:
    """What a choice needs to know of the weights (K, N) behind the inputs, and how much each token counts."""

    sketch: Floats  # (K, R) the weights through a random projection of their outputs
    largest: Floats  # (K,) largest magnitude of each input's weights
    weights: Floats  # (K, N) all of them, or every n-th column; what `choose` alone needs

    def counts(self, sample: Floats) -> Floats:
        """(n,) weight of each token: the inverse of its own squared output, bounded by the median's."""
        return counts_of(sample @ self.sketch)


def counts_of(outputs: Floats) -> Floats:
    """(n,) the same of outputs (n, R)."""
    power = np.square(outputs).sum(axis=1)
    found: Floats = (1.0 / np.maximum(power + np.median(power), 1e-20)).astype(np.float32)
    return found


def smoothing(inputs: Inputs, largest: Floats, alpha: float) -> Floats:
    """s = max|x|^alpha / max|w|^(1 - alpha) for each channel, with geometric mean 1: (K,)."""
    top = np.maximum(np.maximum(np.abs(inputs.low), np.abs(inputs.high)), 1e-5)
    log = alpha * np.log(top) - (1 - alpha) * np.log(np.maximum(largest, 1e-5))
    factors: Floats = np.exp(log - log.mean()).astype(np.float32)
    return factors


def choose(inputs: Inputs, outputs: Outputs, *, free: bool, tails: bool, smoothed: bool = True) -> GroupRecipe:
    """The recipe with the smallest error.

    `free`: smoothing costs nothing at run time; `tails`: there is an operator that adds back what is beyond a narrow
    range, which counts more than the stock ones; `smoothed`: inputs may be smoothed. What an activation gives may not:
    a channel that answers to one topic looks quiet to calibration that did not meet it, smoothing would take that for
    its range, and a text about the topic would be clipped.
    """
    counts = np.sqrt(outputs.counts(inputs.sample))[:, None]
    best: tuple[float, GroupRecipe] | None = None
    for alpha in (None, *(ALPHAS if smoothed else ())):
        smooth = None if alpha is None else smoothing(inputs, outputs.largest, alpha)
        sketch = outputs.sketch if smooth is None else outputs.sketch * smooth[:, None]
        weights = outputs.weights if smooth is None else outputs.weights * smooth[:, None]
        of_inputs = sum(
            float(np.square(counts[part] * divided(inputs.sample[part], smooth)).sum()) for part in parts(inputs.sample)
        )
        rounding = ROUNDED_BETTER * _rounding_error(weights) * of_inputs
        del weights
        groups = _with_outliers(inputs.low, inputs.high, smooth, MARGIN_OF_MIXED if free else MARGIN)
        if tails:
            groups.append(with_tails(inputs, replace(groups[0], outliers=())))
        errors = [error + rounding for error in _errors(inputs.sample, sketch, counts, groups)]
        error, group = _few_enough(errors, groups[: len(groups) - tails], outputs)
        if tails:
            error = errors[-1] + STOCK_COUNTS * error
            group = replace(group, tails=groups[-1].tails)
        asked = error if alpha is None or free else error / WORTH_SMOOTHING
        if best is None or asked < best[0]:
            best = asked, group
    assert best is not None
    return best[1]


def own(inputs: Inputs, outputs: Outputs, group: GroupRecipe, share: float = TAILS) -> GroupRecipe | None:
    """A recipe with tails for which integers of its own are worth their space, if there is one.

    What lies beyond a narrow range is added back, so smoothing need not know the largest input of a channel, which
    one token in twenty may have: weights stay nearer to each other, and their integers are finer.
    """
    assert group.tails is not None
    counts = np.sqrt(outputs.counts(inputs.sample))[:, None]
    most = np.quantile(np.abs(inputs.sample), USUAL, axis=0)
    usual = replace(inputs, low=-most, high=most)

    def error(found: GroupRecipe) -> float:
        sketch = outputs.sketch if found.smooth is None else outputs.sketch * found.smooth[:, None]
        weights = outputs.weights if found.smooth is None else outputs.weights * found.smooth[:, None]
        of_inputs = sum(
            float(np.square(counts[part] * divided(inputs.sample[part], found.smooth)).sum())
            for part in parts(inputs.sample)
        )
        rounding = COHERENT * ROUNDED_BETTER * _rounding_error(weights) * of_inputs
        return _errors(inputs.sample, sketch, counts, [found])[0] + rounding

    tried = []
    for alpha in (None, *OWN_ALPHAS):
        smooth = None if alpha is None else smoothing(usual, outputs.largest, alpha)
        tried.append(with_tails(inputs, replace(group, smooth=smooth, outliers=(), tails=None), share))
    errors = [error(found) for found in tried]
    best = int(np.argmin(errors))
    return tried[best] if errors[best] < WORTH_OWN * error(group) else None


def spread(inputs: Inputs, group: GroupRecipe) -> float:
    """Variance of what the nearest integers leave of inputs, in shares of 1 / 12: that with a dither."""
    scale = group.scale if group.tails is None else group.tails.scale
    steps = divided(inputs.sample[::EVERY], group.smooth) * np.float32(1.0 / scale)
    return float(12.0 * np.square(steps - np.rint(steps)).mean())


def _errors(sample: Floats, sketch: Floats, counts: Floats, groups: Sequence[GroupRecipe]) -> list[float]:
    """Squared errors of the outputs with each recipe, all of the same smoothing."""
    found = np.zeros(len(groups))
    for part in parts(sample):
        inputs = divided(sample[part], groups[0].smooth)
        found += [float(np.square(counts[part] * (lost(inputs, group) @ sketch)).sum()) for group in groups]
    return [float(error) for error in found]


def with_tails(inputs: Inputs, group: GroupRecipe, share: float = TAILS) -> GroupRecipe:
    """The recipe with a narrow range beside the whole one: the narrowest that holds all but a share of the inputs."""
    ordered = np.sort(divided(inputs.sample[::EVERY], group.smooth), axis=None)
    outside = int(share * len(ordered))
    widths = ordered[len(ordered) - 1 - outside :] - ordered[: outside + 1]
    first = int(np.argmin(widths))
    low, high = float(ordered[first]), float(ordered[len(ordered) - 1 - outside + first])
    scale, _ = scale_of(low, high)
    # Rounded away from zero: the least output of an activation is that of many inputs, none of them a tail.
    return replace(group, tails=Tails(scale=scale, zero_point=min(math.ceil(-min(low, 0.0) / scale), 255)))


def scale_of(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 that reaches from `low` to `high`, and over 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255.0, 1e-8)))
    return scale, round(-low / scale)


def lost(sample: Floats, group: GroupRecipe) -> Floats:
    """What the graph makes of (smoothed) inputs, less these: rounded, clipped, what the clip took added back."""
    scale, zero = (
        (group.scale, group.zero_point) if group.tails is None else (group.tails.scale, group.tails.zero_point)
    )
    low, high = np.float32((0 - zero) * scale), np.float32((255 - zero) * scale)
    if group.tails is not None:
        sample = np.clip(sample, low, high)
    steps: Floats = sample * np.float32(1.0 / scale)
    np.rint(steps, out=steps)
    np.clip(steps, -zero, 255 - zero, out=steps)
    steps *= np.float32(scale)
    steps -= sample
    if group.tails is None and group.outliers:
        channels = list(group.outliers)
        steps[:, channels] += sample[:, channels] - np.clip(sample[:, channels], low, high)
    return steps


def _with_outliers(low: Floats, high: Floats, smooth: Floats | None, margin: float) -> list[GroupRecipe]:
    """Recipes for inputs between (K,) and (K,), each with more outlier channels than the one before it."""
    low, high = divided(np.stack([low, high]), smooth)
    channels = np.argsort(-np.maximum(np.abs(low), np.abs(high)), kind="stable")
    found = []
    for count in (number for number in OUTLIERS if number < len(channels)):
        rest = channels[count:]
        scale, zero = scale_of(float(low[rest].min()) * margin, float(high[rest].max()) * margin)
        outliers = tuple(sorted(int(k) for k in channels[:count]))
        found.append(GroupRecipe(scale=scale, zero_point=zero, smooth=smooth, outliers=outliers))
    return found


def _few_enough(errors: Sequence[float], groups: Sequence[GroupRecipe], outputs: Outputs) -> tuple[float, GroupRecipe]:
    """The recipe with the smallest error; more channels cost time, so they must be worth it against fewer."""
    inputs, columns = outputs.weights.shape
    worth = WORTH_OUTLIERS if columns * 2 <= inputs else WORTH_WIDE_OUTLIERS
    best = errors[0], groups[0]
    for error, group in zip(errors[1:], groups[1:], strict=False):
        if error < best[0] * worth:
            best = error, group
    return best


def _rounding_error(weights: Floats) -> float:
    """Sum over the columns of the variance of an error of rounding to the nearest of 255 integers."""
    steps = np.abs(weights).max(axis=0) / 127.0
    return float(np.square(steps).sum()) / 12.0
