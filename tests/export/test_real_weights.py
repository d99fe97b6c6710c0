"""INT8 of real checkpoints holds on texts that took no part in calibration; `make slow` runs it.

FASTEMBED_RT_REAL names the folder of checkpoints, a sentence-transformers directory each, SPLADE in one named so.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import pytest

from benchmarks.data import tasks
from benchmarks.data.workloads import data_folder
from benchmarks.precision import int8, real_weights
from fastembed_rt import native

CHECKPOINTS = real_weights.there()
TEXTS = int(os.environ.get("FASTEMBED_RT_REAL_TEXTS", "600"))
LEAST = {"mean": 0.9985, "p1": 0.996, "min": 0.99, "degenerate_min": 0.985}
# Its values are the widest. One text of one word over and over stays at 0.978: see "One word over and over" in
# docs/int8-recipe.md.
LEAST_OF = {"mpnet": {"mean": 0.998, "degenerate_min": 0.975}}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKPOINTS, reason="FASTEMBED_RT_REAL names no folder of checkpoints"),
    pytest.mark.skipif(native.kernels() is None, reason="no operators for this machine"),
]


@pytest.fixture(scope="module", params=CHECKPOINTS, ids=lambda path: path.name)
def figures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Exported at default gates and measured."""
    data = data_folder(None)
    args = argparse.Namespace(task=None, no_verify=True, keep_dynamic=False)
    texts, odd = int8.real_texts(data, TEXTS), int8.degenerate_texts(data)
    wanted, _ = tasks.find(data, ["en"], [])
    work = tmp_path_factory.mktemp("real")
    return real_weights.of_checkpoint(args, str(request.param), work, texts, odd, wanted)


def test_every_real_text_keeps_its_vector(figures: dict[str, Any]) -> None:
    found, least = figures["cosines"]["int8, native"], {**LEAST, **LEAST_OF.get(figures["model_type"], {})}
    assert {key: found[key] for key in least if found[key] < least[key]} == {}


def test_it_is_nearer_than_dynamic_quantization_in_every_figure(figures: dict[str, Any]) -> None:
    ours, theirs = (figures["cosines"][graph] for graph in ("int8, native", "dynamic"))
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] <= theirs[key]} == {}


def test_tasks_are_scored_as_by_full_precision(figures: dict[str, Any]) -> None:
    exact, ours = (figures["scores"][graph] for graph in ("fp32", "int8, native"))
    assert sum(ours.values()) / len(ours) >= sum(exact.values()) / len(exact) - 0.1, "percent, in the mean of tasks"


def test_the_file_is_a_quarter_of_full_precision(figures: dict[str, Any]) -> None:
    sizes, stays = figures["sizes"], figures["float_groups"]["cpu"]
    assert sizes["cpu int8"] < sizes["portable fp32"] * (0.262 + 0.02 * len(stays))
