"""Linear layers of which the largest of each text is kept: that of the layer, however texts lie in its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from native_operators import FloatGroup, Group, run

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]

# Texts within a block of 48 or 96 rows, at its ends and over several, one of nothing first, between and last.
LENGTHS = ([1], [0], [5, 0, 3], [0, 47, 1, 0, 48], [96, 96], [95, 2, 200, 0], [1] * 100, [300, 7])


def made(kind: str, inputs: int, outputs: int) -> tuple[Any, dict[str, Any]]:
    random = np.random.default_rng(outputs)
    if kind == "Quant":
        group: Any = Group(random, inputs, (outputs,), outliers=2, smooth=True, dither=True)
        return group, group.attributes("linear")
    return FloatGroup(random, inputs, (outputs,)), {"linear_layers": 1}


@pytest.mark.parametrize("kind", ["Quant", "Fp32"])
@pytest.mark.parametrize("outputs", [3, 600])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_the_largest_of_each_text_is_that_of_its_rows(kind: str, outputs: int, lengths: list[int]) -> None:
    group, attributes = made(kind, 40, outputs)
    starts = np.cumsum([0, *lengths])
    x = np.random.default_rng(len(lengths)).normal(-1, 2, (starts[-1], 40)).astype(np.float32)
    expected = np.zeros((len(lengths), outputs), np.float32)
    if len(x):
        rows = run(f"{kind}Linear", {"x": x}, group.tensors(), **attributes)
        for text, length in enumerate(lengths):
            if length:
                expected[text] = rows[starts[text] : starts[text + 1]].max(axis=0)
    feeds: dict[str, Array] = {"x": x, "starts": starts.astype(np.int64)}
    for threads in (1, 2):
        found = run(f"{kind}Linear", feeds, group.tensors(), threads, largest=1, **attributes)
        np.testing.assert_array_equal(found, expected)


def test_an_activation_comes_before_the_largest() -> None:
    group, attributes = made("Quant", 16, 20)
    x = np.random.default_rng(0).normal(0, 2, (9, 16)).astype(np.float32)
    rows = run("QuantLinear", {"x": x}, group.tensors(), activation="tanh", **attributes)
    feeds: dict[str, Array] = {"x": x, "starts": np.array([0, 4, 9], np.int64)}
    found = run("QuantLinear", feeds, group.tensors(), activation="tanh", largest=1, **attributes)
    np.testing.assert_array_equal(found, [rows[:4].max(axis=0), rows[4:].max(axis=0)])


def test_what_makes_no_sense_is_refused() -> None:
    group, attributes = made("Quant", 16, 16)
    x = np.zeros((2, 16), np.float32)
    for starts in ([0, 3], [1, 2], [0, 2, 1], []):
        feeds: dict[str, Array] = {"x": x, "starts": np.array(starts, np.int64)}
        with pytest.raises(Exception, match=r"starts (go|fall|is)"):
            run("QuantLinear", feeds, group.tensors(), largest=1, **attributes)
    feeds = {"x": x, "starts": np.array([0, 2], np.int64)}
    with pytest.raises(Exception, match="attribute largest excludes residual and norm"):
        ones = np.ones(16, np.float32)
        run("QuantLinear", feeds, [*group.tensors(), ones], largest=1, norm=1, epsilon=1e-6, **attributes)
