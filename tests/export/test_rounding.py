"""Weights rounded by what becomes of outputs: no worse than the nearest integers, much better where inputs agree."""

from __future__ import annotations

import numpy as np
import pytest

from fastembed_rt_export.graph.weight import Floats
from fastembed_rt_export.quantize import rounding


def inputs(count: int, channels: int, alike: float) -> Floats:
    """Tokens whose channels move together to a degree."""
    random = np.random.default_rng(3)
    common = random.standard_normal((count, 4)) @ random.standard_normal((4, channels))
    return (alike * common + random.standard_normal((count, channels)) + 2.0).astype(np.float32)


def lost(x: Floats, weight: Floats, real: Floats) -> float:
    """Mean squared error of the outputs beside their mean, which the bias takes."""
    error = x @ (real - weight)
    return float(np.square(error - error.mean(axis=0)).mean())


@pytest.mark.parametrize(("alike", "share"), [(0.0, 1.15), (0.5, 0.8), (3.0, 0.3)])
@pytest.mark.parametrize("channels", [24, 200])
def test_outputs_lose_less_than_by_the_nearest_integers(channels: int, alike: float, share: float) -> None:
    x, other = np.split(inputs(2400, channels, alike), 2)
    weight = np.random.default_rng(4).standard_normal((channels, 40)).astype(np.float32)
    scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
    _, covariance = rounding.second_moments(x, np.ones(len(x), np.float32))
    found = rounding.rounded(weight, scale, covariance)
    nearest = np.rint(weight / scale) * scale
    assert found.dtype == np.int8
    assert np.abs(found.astype(int)).max() <= 127
    assert np.abs(found - weight / scale).max() <= 8, "far from the weight it stands for"
    for texts in (x, other):
        assert lost(texts, weight, found * scale) <= lost(texts, weight, nearest) * share


def test_tokens_count_by_their_weight() -> None:
    x = inputs(300, 16, 1.0)
    counts = np.where(np.arange(300) < 100, 1.0, 0.0).astype(np.float32)
    mean, covariance = rounding.second_moments(x, counts)
    np.testing.assert_allclose(mean, x[:100].mean(axis=0), rtol=1e-5)
    expected = np.cov(x[:100].T, bias=True)
    ridge = rounding.RIDGE * np.trace(expected) / 16
    np.testing.assert_allclose(covariance, expected + ridge * np.eye(16), rtol=1e-3, atol=1e-4)


def test_inputs_that_never_change_round_to_the_nearest() -> None:
    weight = np.random.default_rng(5).standard_normal((8, 3)).astype(np.float32)
    scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
    _, covariance = rounding.second_moments(np.ones((20, 8), np.float32), np.ones(20, np.float32))
    np.testing.assert_array_equal(rounding.rounded(weight, scale, covariance), np.rint(weight / scale))


def test_a_covariance_is_the_same_however_many_are_added_at_a_time() -> None:
    x = inputs(rounding.TOKENS + 200, rounding.COLUMNS + 40, 0.5)
    divisor = np.random.default_rng(6).uniform(0.5, 2.0, x.shape[1:]).astype(np.float32)
    counts = np.random.default_rng(7).uniform(0.1, 1.0, x.shape[:1]).astype(np.float32)
    mean, covariance = rounding.second_moments(x, counts, divisor)
    exact = x.astype(np.float64) / divisor
    np.testing.assert_allclose(mean, np.average(exact, axis=0, weights=counts), rtol=1e-4, atol=1e-5)
    expected = np.cov(exact.T, aweights=counts, bias=True)
    expected += rounding.RIDGE * np.trace(expected) / len(expected) * np.eye(len(expected))
    np.testing.assert_allclose(covariance, expected, rtol=1e-3, atol=1e-3)
    # To the bit but for blocks on the diagonal, where products of some processors add up in another order.
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-5)
    half = rounding.COLUMNS
    np.testing.assert_array_equal(covariance[:half, half:], covariance[half:, :half].T)


def test_integers_are_those_of_one_at_a_time() -> None:
    channels, outputs = rounding.BLOCK + 20, 6
    _, covariance = rounding.second_moments(inputs(900, channels, 1.0), np.ones(900, np.float32))
    weight = np.random.default_rng(8).standard_normal((channels, outputs)).astype(np.float32)
    scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
    exact, form = (weight / scale).astype(np.float64), covariance.astype(np.float64)
    values = np.rint(exact)
    for _ in range(rounding.PASSES):
        for k in range(channels):
            better = values[k] - form[k] @ (values - exact) / form[k, k]
            values[k] = np.clip(np.rint(better), -127, 127)
    found = rounding.rounded(weight, scale, covariance)
    assert (found == values).mean() > 0.995, "but for those halfway between two integers"
