"""Layers given back to float, where INT8 fails a text: those whose own error is largest on the texts that fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..gate.parity import Fidelity, distances
from ..graph.int8 import Recipe
from ..graph.weight import Floats
from .calibration import Calibrated
from .sample import Sample

MOST_FLOAT = 0.5  # of the groups of layers may go back to float before int8 is given up
WORST = 8  # texts that groups are tried on: what helps one that fails must not cost one that just passes
# Groups tried a round, by their own error; the one that helps most goes back. An error that later layers amplify may
# be small where it arises: where none of them brings the worst text this share of the way to the bound, all are tried.
TRIED, HELPS = 4, 0.25
# Other texts are a little worse than those measured on: one group more goes back where it alone brings the worst text
# this share of the way from the bound to fp32.
ROOM = 0.25

Measure = Callable[[Floats, Floats], Fidelity]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What recipes are tried on, and how."""

    held_out: Sample  # the texts measured on
    vectors: Callable[[Any, Sample], Floats]  # outputs of a graph made by a recipe, for texts
    fidelity: Measure  # of such outputs to the float ones
    bound: float  # least fidelity of the worst text
    say: Callable[[str], None]  # called with a line a round

    def measured(self, recipe: Any, exact: Floats) -> Fidelity:
        """A recipe's outputs beside the float ones."""
        held_out = self.held_out
        return _of(self.fidelity, held_out, _texts(held_out, self.vectors(recipe, held_out)), _texts(held_out, exact))


def passing(found: Calibrated, trial: Trial) -> tuple[Recipe, Fidelity]:
    """The recipe with as few float groups as it takes for every text to pass, or as many as are allowed."""
    recipe, measured = _passing(found, trial)
    held_out, vectors, fidelity, bound = trial.held_out, trial.vectors, trial.fidelity, trial.bound
    goal = bound + ROOM * (1.0 - bound)
    if not measured.passes(bound) or measured.passes(goal) or not _may_lose(found, recipe):
        return recipe, measured
    exact = _texts(held_out, found.exact)
    given = _texts(held_out, vectors(recipe, held_out))
    worst, failing = _worst_texts(given, exact, goal)
    few, wanted = held_out.only(worst), [exact[k] for k in worst]
    for key in _ordered(found.by_text, recipe.groups, failing)[:TRIED]:
        tried = _without(recipe, key)
        if _least(fidelity, few, _texts(few, vectors(tried, few)), wanted) < goal:
            continue
        whole = trial.measured(tried, found.exact)
        if whole.passes(goal):
            trial.say(f"{key} stays float, for texts that may be worse: {whole}")
            return tried, whole
    return recipe, measured


def _may_lose(found: Calibrated, recipe: Recipe) -> bool:
    return len(found.errors) - len(recipe.groups) < int(len(found.errors) * MOST_FLOAT)


def _passing(found: Calibrated, trial: Trial) -> tuple[Recipe, Fidelity]:
    """The same, without room for texts that were not measured."""
    held_out, vectors, fidelity, bound = trial.held_out, trial.vectors, trial.fidelity, trial.bound
    recipe, exact = found.recipe, _texts(held_out, found.exact)
    while True:
        given = _texts(held_out, vectors(recipe, held_out))
        measured = _of(fidelity, held_out, given, exact)
        trial.say(f"fidelity to fp32 on {len(exact)} texts: {measured}")
        if measured.passes(bound) or not recipe.groups:
            return recipe, measured
        worst, failing = _worst_texts(given, exact, bound)
        few, wanted = held_out.only(worst), [exact[k] for k in worst]
        least = _least(fidelity, few, [given[k] for k in worst], wanted)
        order, all_tried = _ordered(found.by_text, recipe.groups, failing), False
        while _may_lose(found, recipe):
            tried: dict[str, float] = {}
            for key in order:
                enough = all_tried or max(tried.values(), default=-1.0) - least >= HELPS * (bound - least)
                if len(tried) >= TRIED and enough:
                    break
                tried[key] = _least(fidelity, few, _texts(few, vectors(_without(recipe, key), few)), wanted)
            all_tried = all_tried or len(tried) == len(order)
            order = _next(order, tried, least)
            key = order.pop(0)
            recipe, least = _without(recipe, key), tried[key]
            trial.say(f"{key} stays float: {len(worst)} texts at {least:.5f} or more")
            if least >= bound:
                break
        else:
            return recipe, trial.measured(recipe, found.exact)


def _next(order: Sequence[str], tried: Mapping[str, float], before: float) -> list[str]:
    """The best one, what helped half as much or more, what was not tried, what did not help."""
    best = max(tried.values())
    enough = min(best, before + (best - before) / 2)  # the best may be none
    helped = sorted((key for key in order if tried.get(key, -2.0) >= enough), key=lambda key: -tried[key])
    rest = [key for key in order if key not in helped]
    return [*helped, *(key for key in rest if key not in tried), *(key for key in rest if key in tried)]


def _without(recipe: Recipe, key: str) -> Recipe:
    return replace(recipe, groups={k: group for k, group in recipe.groups.items() if k != key})


def _texts(sample: Sample, outputs: Floats) -> list[Floats]:
    """Outputs text by text, each (rows, dim)."""
    lengths = sample.lengths if sample.by_token else np.ones(len(sample.rows), dtype=np.int64)
    return np.split(outputs, np.cumsum(lengths)[:-1])


def _of(fidelity: Measure, sample: Sample, given: Sequence[Floats], exact: Sequence[Floats]) -> Fidelity:
    whole = np.concatenate(list(given)), np.concatenate(list(exact))
    return Fidelity.of_tokens(*whole, [len(piece) for piece in exact]) if sample.by_token else fidelity(*whole)


def _least(fidelity: Measure, sample: Sample, given: Sequence[Floats], exact: Sequence[Floats]) -> float:
    return float(np.nan_to_num(_of(fidelity, sample, given, exact).min_cosine, nan=-1.0))


def _worst_texts(given: Sequence[Floats], exact: Sequence[Floats], bound: float) -> tuple[list[int], list[int]]:
    """Numbers of the worst texts, and of those among them below the bound.

    All texts are both where outputs are only measured together.
    """
    near = {k: _near(given[k], exact[k]) for k in range(len(exact)) if exact[k].size > 1}
    worst = sorted(sorted(near, key=lambda k: near[k])[:WORST])
    failing = [k for k in worst if near[k] < bound]
    return (worst, failing) if failing else (list(range(len(exact))),) * 2


def _near(given: Floats, exact: Floats) -> float:
    (cosine,), _ = distances(given.reshape(1, -1), exact.reshape(1, -1))
    return float(np.nan_to_num(cosine, nan=-1.0))


def _ordered(by_text: Mapping[str, Floats], groups: Mapping[str, object], failing: list[int]) -> list[str]:
    """Groups that are still int8, the largest error on the failing texts first."""
    return sorted(groups, key=lambda key: -float(by_text[key][failing].sum()))
