"""What of a difference between two runs is more than noise: bootstrap intervals of ratios. Numbers only, no records.

A run has few rounds, and three values say little of how noise is distributed. Deviations from each series' mean, in
units of the contender's spread, are therefore pooled over all contenders of a measure, drawn from with replacement, and
scaled by the contender's own spread or the typical one, whichever is larger. What differs between two runs but not
between the rounds of one (a process's memory layout, the host) is seen in contenders that did not change, and widens
every interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

DRAWS = 4000
CONFIDENT = 0.05  # chance that any of all verdicts of a comparison is wrong, were nothing but noise
ENOUGH = 3  # unchanged contenders' ratios before a spread between runs is taken from them

Key = tuple[str, str]  # contender, and what was measured of it
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Speed of the new over the old, with its interval: above 1 is faster."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """faster, slower, or no change beyond noise."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no change beyond noise"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Logarithms of one series' speeds, old and new: one value a round, whichever number the round had."""

    old: Floats
    new: Floats

    @property
    def shift(self) -> float:
        """Logarithm of the ratio of medians."""
        return float(np.median(self.new) - np.median(self.old))


def changes(pairs: Mapping[Key, Pair], unchanged: Collection[str], verdicts: int, seed: int = 0) -> dict[Key, Change]:
    """Intervals for series of one kind, by (contender, what); `unchanged` contenders can differ by noise alone.

    verdicts: how many are made in the whole comparison; intervals widen so that all hold together.
    """
    random = np.random.default_rng(seed)
    tail = CONFIDENT / max(1, verdicts) / 2
    apart = {key: np.concatenate([_deviations(pair.old), _deviations(pair.new)]) for key, pair in pairs.items()}
    spreads = {key: _spread(values) for key, values in apart.items()}
    typical = float(np.median(list(spreads.values()))) if spreads else 0.0
    pool = np.concatenate([values / spreads[key] for key, values in apart.items() if spreads[key]] or [np.zeros(1)])
    drawn = {key: max(spreads[key], typical) * _draw(pair, pool, random) for key, pair in pairs.items()}
    within = {key: float(np.var(values)) for key, values in drawn.items()}
    shifts = {key: pair.shift for key, pair in pairs.items()}
    found = {}
    for key, shift in shifts.items():
        # A contender is no witness in its own case.
        others = [other for other in pairs if other[0] in unchanged and other[0] != key[0]]
        between = _between([shifts[other] for other in others], [within[other] for other in others])
        noise = drawn[key] + between * random.standard_normal(DRAWS)
        # Beyond what so few draws show, the tail is taken as normal.
        shown = float(np.quantile(np.abs(noise), min(0.99, 1 - 2 * tail)))
        reach = max(NormalDist().inv_cdf(1 - tail) * float(np.std(noise)), shown)
        found[key] = Change(ratio=math.exp(shift), low=math.exp(shift - reach), high=math.exp(shift + reach))
    return found


def _deviations(values: Floats) -> Floats:
    """From the mean, as wide as the spread they were drawn from: n values have n - 1 free deviations."""
    if len(values) < 2:
        return np.zeros(0)
    deviations: Floats = (values - values.mean()) * math.sqrt(len(values) / (len(values) - 1))
    return deviations


def _spread(deviations: Floats) -> float:
    return float(np.sqrt(np.mean(deviations**2))) if len(deviations) else 0.0


def _draw(pair: Pair, pool: Floats, random: np.random.Generator) -> Floats:
    """Shifts that noise alone would give, in units of the spread."""
    sides = [np.median(random.choice(pool, size=(DRAWS, len(values))), axis=1) for values in (pair.old, pair.new)]
    shifts: Floats = sides[1] - sides[0]
    return shifts


def _between(shifts: Sequence[float], within: Sequence[float]) -> float:
    """Spread of unchanged contenders' shifts that their rounds do not explain; wider where few of them say so."""
    count = len(shifts)
    if count < ENOUGH:
        return 0.0
    # The variance of Student's t with as many degrees of freedom.
    return math.sqrt(max(0.0, float(np.mean(np.square(shifts)) - np.mean(within))) * count / (count - 2))
