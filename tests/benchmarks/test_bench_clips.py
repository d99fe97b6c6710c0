"""Ranges that clip, for comparison: each rule on values whose answer is known."""

import numpy as np
import pytest

pytest.importorskip("fastembed_rt_export")

from benchmarks.precision import clips
from fastembed_rt_export.quantize import ranges
from fastembed_rt_export.quantize.ranges import Inputs, Outputs

RANDOM = np.random.default_rng(0)


def test_percentile_leaves_out_its_share_at_both_ends() -> None:
    values = np.arange(10_001, dtype=np.float32) - 5_000
    assert clips.percentile(0.9)(values) == (-4_500, 4_500)


def test_squared_error_and_divergence_clip_a_rare_value_and_keep_an_even_range() -> None:
    even = RANDOM.uniform(-1, 1, 100_000).astype(np.float32)
    assert clips.least_squares(even)[1] > 0.95
    assert clips.least_divergence(even)[1] > 0.95
    far = np.append(RANDOM.normal(0, 1, 100_000), [40.0]).astype(np.float32)
    assert clips.least_squares(far)[1] < 36
    assert clips.least_divergence(far)[1] < 20


def test_the_range_alone_changes_while_a_rule_holds() -> None:
    sample = RANDOM.normal(0, 1, (512, 64)).astype(np.float32)
    weights = RANDOM.normal(0, 1, (64, 64)).astype(np.float32)
    inputs = Inputs(sample, sample.min(axis=0), sample.max(axis=0))
    outputs = Outputs(weights, np.abs(weights).max(axis=1), weights)
    before = ranges.choose(inputs, outputs, free=False, tails=False)
    with clips.clipped(clips.percentile(0.5)):
        found = ranges.choose(inputs, outputs, free=False, tails=False)
    assert found.scale < before.scale / 2
    assert found.outliers == before.outliers
    assert (found.smooth is None) == (before.smooth is None)
    assert ranges.choose(inputs, outputs, free=False, tails=False).scale == before.scale
