"""Comparisons of results whose truth is known: noise alone, a slowdown, other texts, other machines."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_records import full

from benchmarks.errors import BenchmarkError
from benchmarks.report import changes, noise, records
from benchmarks.report.noise import Pair

Made = dict[str, Any]
TIMES = ("samples", "latencies", "cold", "batches", "scaling", "concurrent")


def again(record: Made, seed: int, spread: float = 0.01, host: float = 1.0) -> Made:
    """The same run once more: every time anew by chance, all of them longer where the host is slower."""
    draw = np.random.default_rng(seed)
    made = copy.deepcopy(record)
    for key in TIMES:
        for row in made[key]:
            stretch(row, host * float(np.exp(draw.normal(0, spread))))
    return made


def stretch(row: Made, factor: float) -> None:
    for key in ("seconds", "single", "wall"):
        if key in row:
            row[key] = [factor * second for second in row[key]] if isinstance(row[key], list) else factor * row[key]


def steady(record: Made, seed: int) -> Made:
    """All rounds alike but for chance, so that a series' median is what it was made to be."""
    for key in TIMES:
        first: dict[Any, Made] = {}
        for row in record[key]:
            which = tuple(row.get(name) for name in ("contender", "workload", "batch", "threads", "callers"))
            model = first.setdefault(which, row)
            row.update({name: copy.deepcopy(model[name]) for name in ("seconds", "single", "wall") if name in model})
    return again(record, seed)


def save(folder: Path, record: Made) -> str:
    folder.mkdir()
    (folder / records.FILE).write_text(json.dumps(record), encoding="utf-8")
    return str(folder)


def verdicts(found: changes.Comparison) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in found.rows:
        if row.change:
            counts[row.change.verdict] = counts.get(row.change.verdict, 0) + 1
    return counts


@pytest.fixture(scope="module")
def old() -> Made:
    return steady(full(), 1)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_noise_alone_is_no_change(old: Made, seed: int) -> None:
    found = changes.compare(old, again(old, seed))
    assert verdicts(found).keys() == {"no change beyond noise"}
    assert verdicts(found)["no change beyond noise"] > 200


def test_a_record_beside_itself_is_no_change(old: Made) -> None:
    found = changes.compare(old, old)
    assert verdicts(found).keys() == {"no change beyond noise"}
    assert not found.others
    assert "fidelity, task scores and memory: no change" in changes.render(found)


def slower(record: Made, seed: int, factor: float) -> Made:
    new = again(record, seed)
    for row in new["samples"]:
        if row["contender"] == "rt-int8":
            stretch(row, factor)
    return new


def test_a_tenth_slower_is_found_and_nothing_else(old: Made) -> None:
    found = changes.compare(old, slower(old, 21, 1 / 0.9))
    changed = [row for row in found.rows if row.change and row.change.verdict != "no change beyond noise"]
    assert {(row.contender, row.measure.group, row.change.verdict) for row in changed if row.change} == {
        ("rt-int8", "texts/s", "slower")
    }
    assert {"short", "mixed", "long"} <= {row.measure.what for row in changed}
    for row in changed:
        assert row.change
        assert row.change.low < 0.9 < row.change.high


def test_a_slow_host_is_not_a_slow_contender(old: Made) -> None:
    found = changes.compare(old, again(old, 31, host=1.3))
    assert verdicts(found).keys() == {"no change beyond noise"}
    assert any(note.startswith("st-torch itself ran at 0.7") for note in found.notes)


def test_a_faster_time_is_faster(old: Made) -> None:
    new = again(old, 41)
    for row in new["latencies"]:
        if row["contender"] == "rt-fp32":
            stretch(row, 0.8)
    found = changes.compare(old, new)
    assert {
        (row.contender, row.measure.group) for row in found.rows if row.change and row.change.verdict == "faster"
    } == {("rt-fp32", group) for group in ("p50", "p95", "p99")}


@pytest.mark.slow
def test_the_exit_code_says_whether_ours_got_slower(
    old: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = save(tmp_path / "old", old)
    now = save(tmp_path / "slow", slower(old, 21, 1 / 0.9))
    same = save(tmp_path / "same", again(old, 22))
    assert changes.main([was, now]) == 0
    assert changes.main([was, same, "--fail-slower", "5"]) == 0
    assert changes.main([was, now, "--fail-slower", "30"]) == 0
    capsys.readouterr()
    assert changes.main([was, now, "--fail-slower", "5"]) == 1
    printed = capsys.readouterr().out
    assert "slower by more than 5 %: rt-int8 texts/s" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| rt-int8")]
    assert rows
    assert all("slower" in row for row in rows)
    assert changes.main([was, same, "--all"]) == 0
    assert "no change beyond noise |" in capsys.readouterr().out


def test_a_peer_that_got_slower_does_not_fail(old: Made, tmp_path: Path) -> None:
    new = again(old, 51)
    for row in new["samples"]:
        if row["contender"] == "fastembed":
            stretch(row, 1.5)
    new["contenders"]["fastembed"]["load"]["versions"]["fastembed"] = "0.10.0"
    found = changes.compare(old, new)
    assert {row.contender for row in found.rows if row.change and row.change.verdict == "slower"} == {"fastembed"}
    assert "fastembed has other versions: fastembed 0.9.1 -> 0.10.0" in found.notes
    assert changes.too_slow(found, 5) == []


def test_other_texts_are_refused_and_the_rest_compared(old: Made) -> None:
    new = again(old, 61)
    new["workloads"]["short"]["sha256"] = "f" * 64
    found = changes.compare(old, new)
    assert any(note.startswith("short: the texts differ") and note.endswith("refused") for note in found.notes)
    assert "short" not in {row.measure.what for row in found.rows}
    assert "mixed" in {row.measure.what for row in found.rows}
    for workload in new["workloads"].values():
        workload["sha256"] = "f" * 64
    for key in ("latencies", "cold", "batches", "scaling", "concurrent"):
        new[key] = []
    with pytest.raises(BenchmarkError, match="share no measure on the same texts"):
        changes.compare(old, new)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("model", "source", "sha256"), "0" * 64, "different models"),
        (("settings", "threads"), 8, "threads 2 and 8"),
        (("settings", "max_length"), 128, "max_length 256 and 128"),
    ],
)
def test_another_model_or_setting_is_refused(
    old: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: tuple[str, ...], value: Any, says: str
) -> None:
    new = copy.deepcopy(old)
    inner = new
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert changes.main([save(tmp_path / "old", old), save(tmp_path / "new", new)]) == 2
    assert says in capsys.readouterr().err


def test_other_machines_are_named_and_fail_nothing(
    old: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = slower(old, 71, 2.0)
    new["machine"]["cpu"] = "Another CPU"
    found = changes.compare(old, new)
    assert any("cpu AMD EPYC, now Another CPU" in note for note in found.notes)
    assert "st-torch" in {row.contender for row in found.rows}  # nothing is held against it
    words = [save(tmp_path / "old", old), save(tmp_path / "new", new), "--fail-slower", "5"]
    assert changes.main(words) == 2
    assert "needs two results of the same kind of machine" in capsys.readouterr().err


def test_fidelity_scores_memory_and_failures_are_named(old: Made) -> None:
    new = again(old, 81)
    row = new["contenders"]["rt-int8"]
    row["fidelity"]["long"]["cosine_mean"] -= 0.001
    row["after_rounds"]["peak_rss"] *= 2
    new["quality"]["tasks"][0]["contenders"]["rt-int8"] -= 1
    new["contenders"]["light-embed"] |= {"status": "failed", "reason": "no wheel"}
    del new["contenders"]["st-openvino"]
    found = changes.compare(old, new)
    said = "\n".join(found.others)
    assert "fidelity worse: rt-int8, long, cosine mean: 0.998942 -> 0.997942" in said
    assert "quality worse: rt-int8, STS-B dev (en) spearman" in said
    assert "(-1.00 points)" in said
    assert "memory more: rt-int8, peak RSS: 311 -> 621 MB" in said
    assert len(found.others) == 3
    assert "light-embed was ok, is failed: no wheel" in found.notes
    assert "only in the old result: st-openvino" in found.notes


def test_a_single_round_is_not_judged(old: Made) -> None:
    one = {**old, "batches": [row for row in old["batches"] if row["round"] == 0]}
    found = changes.compare(one, again(one, 91))
    assert {row.change for row in found.rows if row.measure.group == "by batch"} == {None}
    assert "not judged" in changes.render(found, everything=True)


def normal(draw: np.random.Generator, spread: float, count: int, shift: float = 0.0) -> Any:
    return draw.normal(shift, spread, count)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """200 comparisons of 8 contenders that did not change: at one verdict each, 5 % are wrong at most by design."""
    draw = np.random.default_rng(0)
    wrong = 0
    for seed in range(200):
        pairs = {(f"c{k}", "x"): Pair(old=normal(draw, 0.02, 3), new=normal(draw, 0.02, 3)) for k in range(8)}
        found = noise.changes(pairs, [name for name, _ in pairs], 1, seed)
        wrong += sum(change.verdict != "no change beyond noise" for change in found.values())
    assert wrong / 1600 < 0.07


def test_what_unchanged_contenders_do_between_runs_widens_the_intervals() -> None:
    draw = np.random.default_rng(0)
    quiet = {(f"c{k}", "x"): Pair(old=normal(draw, 0.005, 3), new=normal(draw, 0.005, 3)) for k in range(8)}
    moved = {name: Pair(old=pair.old, new=pair.new + draw.normal(0, 0.05)) for name, pair in quiet.items()}
    width = [
        (found := noise.changes(pairs, [name for name, _ in pairs], 8)["c0", "x"]).high / found.low
        for pairs in (quiet, moved)
    ]
    assert width[1] > 1.1 > width[0]


def test_a_noisy_contender_has_a_wide_interval_of_its_own() -> None:
    draw = np.random.default_rng(0)
    pairs = {(f"c{k}", "x"): Pair(old=normal(draw, 0.005, 5), new=normal(draw, 0.005, 5)) for k in range(8)}
    pairs["wild", "x"] = Pair(old=normal(draw, 0.2, 5), new=normal(draw, 0.2, 5))
    found = noise.changes(pairs, [], 9)
    width = {name: math.log(change.high / change.low) for (name, _), change in found.items()}
    assert width["wild"] > 10 * width["c0"]
    assert found["wild", "x"].verdict == "no change beyond noise"
