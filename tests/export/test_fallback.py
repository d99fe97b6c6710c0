"""Layers go back to float by what they do for the texts that fail, with as few tries as that takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fastembed_rt_export.gate.parity import Fidelity
from fastembed_rt_export.graph.int8 import GroupRecipe, Recipe
from fastembed_rt_export.graph.weight import Floats
from fastembed_rt_export.quantize import Sample, fallback
from fastembed_rt_export.quantize.calibration import Calibrated

DIM = 8


class Model:
    """Vectors of texts, each one turned by angles that some int8 groups add."""

    def __init__(self, angles: dict[str, list[float]]) -> None:
        self.angles = {key: np.asarray(value) for key, value in angles.items()}
        self.texts = len(next(iter(self.angles.values())))
        self.asked: list[tuple[tuple[str, ...], int]] = []  # float groups, texts

    def vectors(self, recipe: Recipe, sample: Sample) -> Floats:
        """(n, DIM) of the sample's texts."""
        numbers = np.asarray([row[0] for row in sample.rows])
        self.asked.append((tuple(key for key in self.angles if key not in recipe.groups), len(numbers)))
        return turned(sum(self.angles[key][numbers] for key in recipe.groups) + np.zeros(len(numbers)))

    def calibrated(self, errors: dict[str, float]) -> Calibrated:
        """As if these were the groups' own errors, on every text alike."""
        groups = {key: GroupRecipe(scale=0.1, zero_point=0) for key in self.angles}
        by_text = {key: np.full(self.texts, errors[key], np.float32) for key in self.angles}
        exact = turned(np.zeros(self.texts))
        return Calibrated(Recipe(groups=groups, folds={}), errors, by_text, {}, exact)

    def passing(self, errors: dict[str, float], bound: float = 0.99) -> tuple[list[str], Fidelity, list[str]]:
        """Float groups, what is measured in the end, the lines said."""
        said: list[str] = []
        sample = Sample.of([np.asarray([k], np.int64) for k in range(self.texts)])
        trial = fallback.Trial(
            held_out=sample, vectors=self.vectors, fidelity=Fidelity.of, bound=bound, say=said.append
        )
        found, measured = fallback.passing(self.calibrated(errors), trial)
        return [key for key in self.angles if key not in found.groups], measured, said


def turned(angles: npt.ArrayLike) -> Floats:
    """(n,) radians -> (n, DIM) unit vectors."""
    out = np.zeros((len(np.asarray(angles)), DIM), np.float32)
    out[:, 0], out[:, 1] = np.cos(angles), np.sin(angles)
    return out


def keys(count: int) -> list[str]:
    return [f"layer.{k}" for k in range(count)]


def test_where_all_texts_pass_nothing_goes_back() -> None:
    model = Model({key: [0.001, 0.002] for key in keys(8)})
    stays, measured, _ = model.passing(dict.fromkeys(keys(8), 1.0))
    assert stays == []
    assert measured.min_cosine > 0.99
    assert len(model.asked) == 1


def test_the_guilty_one_among_those_of_the_largest_error_is_found_in_a_few_tries() -> None:
    angles = {key: [0.001] * 50 for key in keys(20)}
    angles["layer.7"][1] = 0.8
    errors = dict.fromkeys(keys(20), 0.1) | {"layer.7": 0.3, "layer.2": 0.4}
    model = Model(angles)
    assert model.passing(errors)[0] == ["layer.7"]
    tries = [texts for _, texts in model.asked if texts == fallback.WORST]
    assert len(tries) == fallback.TRIED, "on few texts"


def test_what_helps_the_failing_text_must_not_cost_another_one() -> None:
    angles = {key: [0.001] * 50 for key in keys(20)}
    angles["layer.7"][:2] = [0.11, -0.12]  # without it the second text is turned by the next one
    angles["layer.8"][1] = 0.2
    angles["layer.9"][0] = 0.11
    errors = dict.fromkeys(keys(20), 0.1) | {"layer.7": 0.4, "layer.9": 0.3}
    stays, measured, _ = Model(angles).passing(errors)
    assert stays == ["layer.9"]
    assert measured.min_cosine > 0.99


def test_a_small_error_that_later_layers_amplify_is_found_too() -> None:
    angles = {key: [0.001, 0.001] for key in keys(20)}
    angles["layer.7"][1] = 0.8
    errors = dict.fromkeys(keys(20), 0.1) | {"layer.7": 0.001}  # the last by its own error
    stays, measured, said = Model(angles).passing(errors)
    assert stays == ["layer.7"], "and none that was tried before it"
    assert measured.min_cosine >= 0.99
    assert "layer.7 stays float" in said[1]


def test_all_layers_are_tried_once_and_then_in_the_order_found() -> None:
    angles = {key: [0.0, 0.0] for key in keys(30)}
    for key in ("layer.21", "layer.22", "layer.23", "layer.24"):  # each a quarter: none is enough
        angles[key][0] = 0.25
    model = Model(angles)
    stays, measured, _ = model.passing(dict(zip(keys(30), np.linspace(1.0, 0.1, 30).tolist(), strict=True)), 0.96)
    assert set(stays) < {"layer.21", "layer.22", "layer.23", "layer.24"}
    assert len(stays) == 3, "what is left is within the bound"
    assert measured.min_cosine >= 0.96
    assert len([1 for _, texts in model.asked if texts == 1]) <= 30 + 2 * fallback.TRIED


def test_the_worst_texts_are_tried_first_and_the_others_after_them() -> None:
    texts = 3 * fallback.WORST
    angles = {key: [0.0] * texts for key in keys(12)}
    angles["layer.3"] = [0.5] * fallback.WORST + [0.0] * (texts - fallback.WORST)
    angles["layer.9"] = [0.0] * fallback.WORST + [0.3] * (texts - fallback.WORST)
    model = Model(angles)
    stays, measured, _ = model.passing(dict.fromkeys(keys(12), 1.0))
    assert stays == ["layer.3", "layer.9"]
    assert measured.min_cosine >= 0.99
    assert max(count for _, count in model.asked if count < texts) == fallback.WORST


def test_no_more_than_half_of_the_layers_go_back() -> None:
    model = Model({key: [0.3] for key in keys(10)})
    stays, measured, _ = model.passing(dict.fromkeys(keys(10), 1.0))
    assert len(stays) == 5
    assert not measured.passes(0.99)


def test_vectors_that_are_not_numbers_count_as_failed() -> None:
    class Broken(Model):
        def vectors(self, recipe: Recipe, sample: Sample) -> Floats:
            found = super().vectors(recipe, sample)
            if "layer.5" in recipe.groups:
                found[[row[0] == 1 for row in sample.rows]] = np.nan
            return found

    model = Broken({key: [0.0, 0.0, 0.0] for key in keys(8)})
    with np.errstate(invalid="ignore"):
        stays, measured, _ = model.passing(dict.fromkeys(keys(8), 1.0))
    assert stays == ["layer.5"]
    assert measured.min_cosine == pytest.approx(1.0)


def test_where_every_layer_makes_it_worse_half_of_them_still_go_back() -> None:
    """Errors may cancel: a layer less is a text farther away."""
    model = Model({key: [0.2 if k % 2 else -0.21] for k, key in enumerate(keys(10))})
    stays, measured, _ = model.passing(dict.fromkeys(keys(10), 1.0), 0.9999)
    assert 0 < len(stays) <= 5
    assert measured.min_cosine > -1


def test_one_group_more_goes_back_where_it_alone_makes_room_for_worse_texts() -> None:
    angles = {key: [0.0001] * 50 for key in keys(20)}
    angles["layer.7"][1] = 0.134  # a cosine of 0.991, and the goal is 0.9925
    model = Model(angles)
    stays, measured, said = model.passing(dict.fromkeys(keys(20), 0.1) | {"layer.7": 0.3})
    assert stays == ["layer.7"]
    assert measured.min_cosine > 0.999
    assert "layer.7 stays float, for texts that may be worse" in said[-1]


def test_none_goes_back_for_room_where_one_is_not_enough() -> None:
    model = Model({key: [0.0068, 0.0] for key in keys(20)})
    assert model.passing(dict.fromkeys(keys(20), 0.1))[0] == []
    assert len(model.asked) == 2 + fallback.TRIED
