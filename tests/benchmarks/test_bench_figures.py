"""From raw samples to tables, on records small enough to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.data import fidelity
from benchmarks.report import figures, tables


def record() -> dict[str, Any]:
    speeds = {"st-torch": (10, 5, 10), "rt-fp32": (40, 10, 30), "fastembed": (20, 20, 20)}
    rows: dict[str, dict[str, Any]] = {
        name: {
            "title": name.upper(),
            "status": "ok",
            "reason": "",
            "ours": name.startswith("rt-"),
            "after_rounds": {"peak_rss": 2e8},
        }
        for name in speeds
    }
    rows["rt-int8"] = {"title": "INT8", "status": "not available", "reason": "export it", "ours": True}
    rows["st-torch"] |= {"model_bytes": 90e6, "package_bytes": 900e6}
    rows["rt-fp32"]["fidelity"] = {
        "short": {"cosine_mean": 1.0, "cosine_p1": 1.0, "cosine_min": 1.0},
        "long": {"cosine_mean": 0.99987, "cosine_p1": 0.99, "cosine_min": 0.98},
    }
    quiet = {"wall": 1.0, "other_cpu": 0.0}
    return {
        "machine": {"cpu": "A CPU", "cpus": 2},
        "settings": {"threads": 2, "rounds": 3, "max_length": 256},
        "started": "today",
        "workloads": {"short": {"title": "100 texts", "texts": 100, "tokens": 1500}},
        "contenders": rows,
        "samples": [
            {"contender": name, "workload": "short", "round": k, "texts": 100, "seconds": 100 / speed, **quiet}
            for name, found in speeds.items()
            for k, speed in enumerate(found)
        ],
        "latencies": [
            {"contender": name, "round": 0, "seconds": [k / 1000 for k in range(1, 101)], **quiet} for name in speeds
        ],
        "cold": [{"contender": name, "round": 0, "seconds": 0.5} for name in speeds],
    }


def test_a_ratio_pairs_passes_of_the_same_round() -> None:
    # Medians alone would give 30 / 10; the slow second round slowed both.
    assert figures.ratio(record(), "rt-fp32", "st-torch", "short") == (3.0, 2.0, 4.0)
    assert figures.speed(record(), "rt-fp32", "short") == 30
    assert figures.ratio(record(), "rt-int8", "st-torch", "short") is None


def test_latencies_of_a_rounds_turns_stand_together_and_ratios_pair_rounds() -> None:
    # The second round was slow for both.
    turns = {"a": [(0, [1.0, 1.0]), (0, [3.0]), (1, [8.0])], "b": [(0, [2.0, 2.0, 2.0]), (1, [16.0])]}
    seen = [{"contender": name, "round": k, "seconds": took} for name, rows in turns.items() for k, took in rows]
    found = {"latencies": seen}
    assert figures.latencies(found, "a") == {0: [1.0, 1.0, 3.0], 1: [8.0]}
    assert figures.latency(found, "a", 0.5) == 4.5
    assert figures.latency_ratio(found, "b", "a", 0.5) == (2.0, 2.0, 2.0)
    assert figures.latency_ratio(found, "b", "c", 0.5) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4), (0.01, 1)])
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert figures.percentile([4, 1, 3, 2], share) == expected


def test_the_worst_text_is_the_worst_of_all_workloads_whichever_has_the_least_mean() -> None:
    one = record()
    one["contenders"]["rt-fp32"]["fidelity"]["short"] |= {"cosine_p1": 0.995, "cosine_min": 0.97}
    assert figures.least_cosines(one, "rt-fp32") == {"mean": 0.99987, "p1": 0.99, "min": 0.97}
    assert "0.9999 / 0.9900 / 0.9700" in tables.render(one)
    assert figures.least_cosines(one, "rt-int8") is None


def test_disturbed_samples_are_counted_and_named() -> None:
    noisy = record()
    noisy["samples"][0]["other_cpu"] = 0.5
    assert figures.disturbed(noisy) == (1, 12)
    assert "- 1 of 12 samples was disturbed by other work: read ratios only\n" in tables.render(noisy)
    assert "disturbed" not in tables.render(record())
    noisy["latencies"] = noisy["latencies"] * 20  # the one among many, which moves no median
    assert figures.disturbance(noisy).endswith(" samples was disturbed by other work")


def test_the_tables_show_what_there_is_and_what_is_missing() -> None:
    text = tables.render(record())
    lines = text.splitlines()
    ours = next(line for line in lines if line.startswith("| RT-FP32 "))
    assert [cell.strip() for cell in ours.strip("|").split("|")] == [
        "RT-FP32",
        "30",
        "50.00",
        "95.00",
        "99.00",
        "0.50",
        "200",
        "-",
        "0.9999 / 0.9900 / 0.9800",
    ]
    assert "| RT-FP32 over ST-TORCH" in text
    assert "3.00x (2.00 to 4.00), wanted 3.1x" in text
    assert "| INT8 over ST-TORCH" in text
    assert "not measured" in text
    assert "RT-FP32, one text, p50" in text
    assert "1.00x of FASTEMBED's, the fastest other" in text
    assert "- INT8: not available: export it" in text
    assert "900 + 90" in text
    assert "short: 100 texts, 15 tokens on average" in text


def test_each_of_our_rows_is_beside_the_fastest_of_the_others_and_none_of_ours() -> None:
    one = record()
    one["contenders"]["rt-bf16"] = {**one["contenders"]["rt-fp32"], "title": "RT-BF16"}
    one["latencies"].append(one["latencies"][0] | {"contender": "rt-bf16", "seconds": [0.001] * 100})
    lines = tables.single_table(one).splitlines()
    assert any(line.startswith("| RT-BF16, one text, p50") and "0.02x of" in line for line in lines)
    assert not any("x of RT-" in line for line in lines)


def test_table_columns_are_aligned() -> None:
    text = tables.table(["a", "long head"], [["a | b", "c"]])
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "a \\| b" in text


def test_fidelity_sees_direction_and_not_length() -> None:
    reference = np.eye(3, dtype=np.float32)
    found = fidelity.summary(2 * reference, reference)
    assert found["cosine_min"] == pytest.approx(1)
    assert found["max_abs_diff"] == pytest.approx(1)
    assert fidelity.objection(found) is None


def test_fidelity_objects_to_other_vectors_and_to_none() -> None:
    reference = np.eye(3, dtype=np.float32)
    assert "mean cosine" in str(fidelity.objection(fidelity.summary(np.roll(reference, 1, axis=0), reference)))
    assert fidelity.objection(fidelity.summary(np.full((3, 3), np.nan, dtype=np.float32), reference)) is not None
    with pytest.raises(ValueError, match="shape"):
        fidelity.summary(reference[:2], reference)


def test_token_counts_must_be_equal() -> None:
    assert fidelity.token_objection([5, 256], [5, 256]) is None
    assert "1 of 2 texts, the first with 128 tokens instead of 256" in str(fidelity.token_objection([5, 128], [5, 256]))
    assert "2 texts instead of 3" in str(fidelity.token_objection([1, 1], [1, 1, 1]))
