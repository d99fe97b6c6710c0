"""Committed results: their reports are made of their records, and no contender in them is held back by its batches."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from benchmark_records import COMMITTED

from benchmarks.compare.about import RESULTS
from benchmarks.load import load_tables
from benchmarks.report import __main__ as report
from benchmarks.report import figures, records, tables

COMPARISONS = sorted(
    path for path in RESULTS.glob("*/record.json") if '"format"' in path.read_text(encoding="utf-8")[:99]
)
LOADS = sorted(RESULTS.glob("*-load-*/record.json"))
# Measured before fastembed got its texts by length: 256 a batch as they come.
BEFORE_BATCHES_BY_LENGTH = {
    ("2026-11-25-epyc-2-cores", "fastembed"),
    ("2026-11-28-cascade-lake-2-cores", "fastembed"),
}
# fp32's peak was onnxruntime's alone, and bf16 had none.
BEFORE_OUR_OWN_PEAKS = {
    "2026-11-25-epyc-2-cores",
    "2026-11-28-cascade-lake-2-cores",
}


def named(path: Path) -> str:
    return path.parent.name


def test_there_are_results_to_look_at() -> None:
    assert len(COMPARISONS) >= 5
    assert LOADS


@pytest.mark.parametrize("path", COMPARISONS, ids=named)
def test_a_committed_report_is_what_its_record_makes(path: Path) -> None:
    wanted = report.in_markdown(records.read(path))
    found = path.with_name("report.md").read_text(encoding="utf-8")
    assert found == wanted, f"run python -m benchmarks.report {path.parent}"


def test_the_first_formats_report_is_what_its_record_makes() -> None:
    assert COMMITTED.with_suffix(".md").read_text(encoding="utf-8") == tables.render(records.read(COMMITTED))


@pytest.mark.parametrize("path", LOADS, ids=named)
def test_a_committed_load_report_has_every_server_of_its_record(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert load_tables.render(record) in path.with_name("report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", COMPARISONS, ids=named)
def test_all_texts_in_one_call_are_not_far_slower_than_the_best_size_of_call(path: Path) -> None:
    """Else the library is given larger batches than are good for it."""
    record = records.read(path)
    slower = {}
    for name in records.names(record):
        rates: dict[int, list[float]] = {}
        for row in record["batches"]:
            if row["contender"] == name:
                rates.setdefault(row["batch"], []).append(row["texts"] / row["seconds"])
        mixed = figures.speed(record, name, "mixed")
        if rates and mixed is not None:
            slower[name] = mixed / max(map(median, rates.values()))
    held_back = {(named(path), name) for name, share in slower.items() if share < 0.7}
    assert held_back <= BEFORE_BATCHES_BY_LENGTH, slower


@pytest.mark.parametrize("path", COMPARISONS, ids=named)
def test_every_row_of_ours_has_shares_of_the_peak_or_a_reason(path: Path) -> None:
    record = records.read(path)
    found = record["limits"]["shares"]
    if not found or named(path) in BEFORE_OUR_OWN_PEAKS:
        return
    for name in records.names(record, ours=True):
        shares = [row["share"] for row in found.get(name, {}).values()]
        assert shares or "limits" in record["contenders"][name].get("failed_parts", {}), name
        assert max(shares, default=0) < 1.02, name  # the peak is a measurement too


def test_a_record_of_the_first_format_has_the_cosines_of_its_worst_texts() -> None:
    record: dict[str, Any] = records.read(COMMITTED)
    for name in records.names(record):
        worst = min(row["cosine_min"] for row in record["contenders"][name]["fidelity"].values())
        assert (figures.least_cosines(record, name) or {})["min"] == worst
