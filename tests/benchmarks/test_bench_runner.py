"""A whole run with fake contenders: order of the rounds, checks, failures, interrupts."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import conditions, contenders, environments, measure, processes, runner
from benchmarks.contenders import REFERENCE, Contender
from benchmarks.errors import BenchmarkError, ContenderError
from benchmarks.preparation import Preparation
from benchmarks.processes import Process

FAKE = Path(__file__).parent / "fake_contender.py"
Run = Callable[..., tuple[int, dict[str, Any]]]


@dataclass
class Source:
    checkpoint: str = "fake"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """main() over fake contenders, named with their behaviour; returns exit code and record."""
    data = tmp_path / "data" / "texts"
    data.mkdir(parents=True)
    names = ("short_queries_squad_dev", "medium_stsb_dev_sentences", "paragraph_xquad_contexts", "paragraph_wikitext2")
    for name in names:
        lines = [json.dumps(f"{name} text {k}" + " long" * (k % 2) * 400) for k in range(4000)]
        (data / f"{name}.jsonl").write_text("\n".join(lines))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "modules.json").write_text("[]")
    model = SimpleNamespace(max_length=16, variants=[SimpleNamespace(precision="fp32")], source=Source())
    monkeypatch.setattr("benchmarks.runner.manifest.read", lambda path: model)

    def start(self: Preparation, contender: Contender, mode: str, folder: Path | None = None) -> Process:
        options = {
            **dict.fromkeys(("checkpoint", "model_dir", "prepared", "calibration"), ""),
            "max_length": 16,
            "threads": 1,
            "cpus": [],
            "own": {"name": contender.name, "journal": str(tmp_path / "journal"), **contender.options},
        }
        command = [sys.executable, str(FAKE), mode, json.dumps(options)]
        return Process(command, log=self.logs / "log", cwd=tmp_path, environment=os.environ)

    def ensure(environment: Any) -> list[str]:
        if environment.name == "light-embed":
            raise ContenderError("installing light-embed: ERROR: no such package")
        return ["numpy==0"]

    monkeypatch.setattr(Preparation, "start", start)
    monkeypatch.setattr(Preparation, "prepare", lambda self, contender: None)
    monkeypatch.setattr(environments, "ensure", ensure)
    monkeypatch.setattr(environments, "size", lambda environment: 1_000_000)

    def go(behaviours: dict[str, dict[str, str]], *words: str) -> tuple[int, dict[str, Any]]:
        described: dict[str, dict[str, str]] = {REFERENCE: {}, **behaviours}
        rows = [
            Contender(
                name=name,
                title=name.upper(),
                environment=own.pop("environment", "fastembed"),
                adapter="fake",
                options=own,
                precision=own.pop("precision", None),
            )
            for name, own in described.items()
        ]
        monkeypatch.setattr(contenders, "named", lambda names: rows)
        monkeypatch.setattr(runner, "CONTENDERS", {row.name: row for row in rows})
        out = tmp_path / "out" / "result.json"
        given = [str(tmp_path), "--checkpoint", str(checkpoint), "--data", str(data.parent), "--workloads", "smoke"]
        code = runner.main([*given, "--out", str(out), "--cold-rounds", "1", *words])
        assert not processes.LIVING
        return code, json.loads(out.read_text()) if out.exists() else {}

    return go


def test_rounds_are_interleaved_and_their_order_rotates(run: Run, tmp_path: Path) -> None:
    code, record = run({"a": {}, "b": {}}, "--rounds", "3")
    assert code == 0
    order = [(sample["round"], sample["contender"]) for sample in record["samples"]]
    expected = [REFERENCE, "a", "b", "a", "b", REFERENCE, "b", REFERENCE, "a"]
    assert order == list(zip([0, 0, 0, 1, 1, 1, 2, 2, 2], expected, strict=True))
    assert [row["contender"] for row in record["latencies"]] == expected
    assert all(len(row["seconds"]) == 200 for row in record["latencies"])
    assert len(record["cold"]) == 3
    assert str(tmp_path) not in json.dumps(record)  # a record may travel
    assert record["workloads"]["smoke"]["tokens"] > 0
    # One process works at a time: in the journal of the rounds every contender's calls stand together.
    journal = [line.split()[0] for line in (tmp_path / "journal").read_text().splitlines()]
    rounds = journal[-3 * 3 * (2 + 200 + measure.WARM_TEXTS) :]
    changes = sum(left != right for left, right in pairwise(rounds))
    assert changes == 3 * 3 * 2 - 1  # rounds x contenders x measurements


def test_what_fails_becomes_a_row_and_the_others_go_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # One call for the check, two for warm-up and pass of the first round, then its single texts.
    first_round = str(1 + 2 + measure.WARM_TEXTS + 200)
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
        if calls == 3:  # before round one, after it, before round two
            signal.raise_signal(number)
        return [0.0, 0.0, 0.0]

    monkeypatch.setattr(conditions, "load", load)
    code, record = run({"a": {}}, "--rounds", "3")
    assert code == 130
    assert record["interrupted"] is True
    assert [sample["round"] for sample in record["samples"]] == [0, 0]
    assert "(interrupted)" in capsys.readouterr().out


def test_without_its_reference_a_run_stops_with_the_reason(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, record = run({REFERENCE: {"behaviour": "raise"}, "a": {}}, "--cold-rounds", "0")
    assert code == 2
    assert record["samples"] == []
    assert "error: the reference failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "nowhere"], "no texts in nowhere"),
        (["--workloads", "tiny"], "unknown workload tiny"),
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


def test_an_unknown_contender_is_one_line() -> None:
    with pytest.raises(BenchmarkError, match="unknown contender nobody; there are st-torch"):
        contenders.named(["rt-fp32", "nobody"])


def test_the_reference_always_runs() -> None:
    assert [row.name for row in contenders.named(["rt-fp32"])] == [REFERENCE, "rt-fp32"]


def test_every_row_has_an_environment_and_an_adapter() -> None:
    for row in contenders.TABLE:
        assert {row.environment, row.converter or row.environment} <= contenders.ENVIRONMENTS.keys()
        assert (Path(runner.__file__).parent / "adapters" / f"{row.adapter}.py").is_file()
