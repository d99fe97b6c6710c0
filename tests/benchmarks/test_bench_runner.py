"""A whole run with fake contenders: order of the rounds, checks, failures, interrupts."""

from __future__ import annotations

import json
import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from fake_runs import CHECK_CALLS, Run

from benchmarks.compare import about, conditions, contenders, environments, measure, runner
from benchmarks.compare.parts import served
from benchmarks.errors import BenchmarkError
from benchmarks.report.records import REFERENCE


def test_rounds_are_interleaved_and_their_order_rotates(run: Run, tmp_path: Path) -> None:
    code, record = run({"a": {}, "b": {}}, "--rounds", "3")
    assert code == 0
    order = [(sample["round"], sample["contender"]) for sample in record["samples"]]
    expected = [REFERENCE, "a", "b", "a", "b", REFERENCE, "b", REFERENCE, "a"]
    assert order == list(zip([0, 0, 0, 1, 1, 1, 2, 2, 2], expected, strict=True))
    turns = served.TURNS
    firsts = [row["contender"] for row in record["latencies"] if row["position"] == 0]
    assert firsts == [(REFERENCE, "a", "b")[(number + turn) % 3] for number in range(3) for turn in range(turns)]
    assert all(len(row["seconds"]) == 200 // turns for row in record["latencies"])
    assert len(record["cold"]) == 3
    assert str(tmp_path) not in json.dumps(record)  # a record may travel
    assert record["workloads"]["smoke"]["tokens"] > 0
    # One process works at a time: in the journal of the rounds every contender's calls stand together.
    journal = [line.split()[0] for line in (tmp_path / "journal").read_text().splitlines()]
    rounds = journal[-3 * 3 * (2 + 200 + turns * measure.WARM_TEXTS) :]
    changes = sum(left != right for left, right in pairwise(rounds))
    assert changes == 3 * 3 * (1 + turns) - 1  # rounds x contenders x measurements


def test_what_fails_becomes_a_row_and_the_others_go_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first_round = str(CHECK_CALLS + 2)  # with warm-up
    code, record = run(
        {
            "crashes": {"behaviour": "crash", "good_calls": first_round},
            "wrong": {"behaviour": "wrong"},
            "cuts": {"behaviour": "cuts"},
            "broken": {"environment": "light-embed"},
            "absent": {"precision": "int8"},
            "fine": {},
        },
        "--rounds",
        "2",
        "--cold-rounds",
        "0",
    )
    assert code == 0
    rows = record["contenders"]
    assert {name: row["status"] for name, row in rows.items()} == {
        REFERENCE: "ok",
        "crashes": "failed",
        "wrong": "failed",
        "cuts": "failed",
        "broken": "failed",
        "absent": "not available",
        "fine": "ok",
    }
    assert "exit code 3" in rows["crashes"]["reason"]
    assert [sample["round"] for sample in record["samples"] if sample["contender"] == "crashes"] == [0]
    assert "mean cosine" in rows["wrong"]["reason"]
    assert rows["wrong"]["fidelity"]["smoke"]["cosine_mean"] == pytest.approx(-1)
    assert "24 of 24 texts" in rows["cuts"]["reason"]
    assert "no such package" in rows["broken"]["reason"]
    assert len([sample for sample in record["samples"] if sample["contender"] == "fine"]) == 2
    printed = capsys.readouterr().out
    assert "ABSENT: not available: the model directory has fp32" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    calls = 0

    def load() -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 4 + 3:  # two cold rounds; before round one, after it, before round two
            signal.raise_signal(number)
        return [0.0, 0.0, 0.0]

    monkeypatch.setattr(conditions, "load", load)
    code, record = run({"a": {}}, "--rounds", "3")
    assert code == 130
    assert record["interrupted"] is True
    assert [sample["round"] for sample in record["samples"]] == [0, 0]
    assert "(interrupted)" in capsys.readouterr().out


@pytest.mark.parametrize("before", [False, True])
def test_an_interrupt_before_anything_is_measured_writes_nothing(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: bool,
) -> None:
    quick = ("--parts", "throughput", "--rounds", "1")
    older = run({}, *quick)[1] if before else {}

    def install(_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "ensure", install)
    code, record = run({}, *quick, "--force")
    assert code == 130
    assert record == older
    assert "interrupted before anything was measured" in capsys.readouterr().err
    assert (tmp_path / "out").exists() is before


def test_without_its_reference_a_run_stops_with_the_reason(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, record = run({REFERENCE: {"behaviour": "raise"}, "a": {}}, "--cold-rounds", "0")
    assert code == 2
    assert record["samples"] == []
    assert "error: the reference failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "nowhere"], "the data folder nowhere does not exist; pass --data FOLDER or set FASTEMBED_RT_DATA"),
        (["--data", str(Path(__file__).parent)], "expected"),
        (["--workloads", "tiny"], "unknown workload tiny; there are short, mixed"),
        (["--workloads", ","], "unknown workload (none)"),
        (["--parts", "speed,latency"], "unknown part speed; there are cold, throughput"),
        (["--parts", ","], "unknown part (none)"),
        (["--out", __file__], "is a file; --out names the folder"),
        (["--checkpoint", "nowhere"], "nowhere is not a sentence-transformers checkpoint"),
    ],
)
def test_a_wrong_argument_is_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, _ = run({}, *words)
    assert code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert says in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rounds", "x"], "--rounds: 'x' is not a whole number of at least 1"),
        (["--rounds", "0"], "--rounds: '0' is not a whole number of at least 1"),
        (["--cold-rounds", "-1"], "--cold-rounds: '-1' is not a whole number of at least 0"),
        (["--patience", "-1"], "--patience: '-1' is not a number above 0"),
        (["--patience", "long"], "--patience: 'long' is not a number above 0"),
    ],
)
def test_a_number_that_cannot_be_is_named(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as ended:
        runner.main(["model", "--checkpoint", "checkpoint", *words])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_directory_without_a_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main([str(tmp_path), "--checkpoint", str(tmp_path), "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "manifest.json" in printed
    assert printed.count("\n") == 1


def test_a_record_is_overwritten_only_by_force(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--parts", "throughput", "--rounds", "1")
    code, first = run({}, *quick)
    assert code == 0
    code, second = run({}, *quick)
    assert code == 2
    assert "record.json exists; give another --out, or --force" in capsys.readouterr().err
    assert second == first
    assert run({}, *quick, "--force")[0] == 0


def test_the_folder_of_a_result_is_named_by_day_and_machine() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-[a-z-]+-\d+-cores", about.results_folder().name)
    names = ("Intel(R) Xeon(R) Platinum 8488C", "AMD EPYC", "AMD Ryzen 9 7950X 16-Core Processor", "Apple M2", "")
    assert [about.short_name(name) for name in names] == ["xeon", "epyc", "ryzen", "apple", "machine"]


def test_an_unknown_contender_is_one_line() -> None:
    with pytest.raises(BenchmarkError, match="unknown contender nobody; there are st-torch"):
        contenders.named(["rt-fp32", "nobody"])


def test_the_reference_always_runs() -> None:
    assert [row.name for row in contenders.named(["rt-fp32"])] == [REFERENCE, "rt-fp32"]


def test_every_row_has_an_environment_and_an_adapter() -> None:
    for row in contenders.TABLE:
        assert {row.environment, row.converter or row.environment} <= contenders.ENVIRONMENTS.keys()
        assert (Path(runner.__file__).parent / "adapters" / f"{row.adapter}.py").is_file()
