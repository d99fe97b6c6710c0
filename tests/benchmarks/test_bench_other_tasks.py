"""Runs over models of other tasks: what a text is there, and how answers are held against the reference's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_runs import Run

from benchmarks.compare import other_tasks
from benchmarks.compare.adapters import requests_of_pairs
from benchmarks.compare.contenders import ENVIRONMENTS
from benchmarks.compare.preparation import sources
from benchmarks.errors import BenchmarkError
from benchmarks.report import tables
from benchmarks.report.records import REFERENCE, complete

QUICK = ("--parts", "throughput,latency", "--rounds", "1")


def test_rerankers_are_asked_for_requests_and_compared_by_the_order_of_their_scores(run: Run) -> None:
    code, record = run({"a": {}, "wrong": {"behaviour": "wrong"}}, *QUICK, "--workloads", "sentences", task="reranking")
    assert code == 0
    assert (record["kind"], record["unit"]) == ("reranking", "pairs")
    assert {sample["texts"] for sample in record["samples"]} == {60 * 20}
    assert record["workloads"]["sentences"]["texts"] == 60 * 20
    rows = record["contenders"]
    assert rows["a"]["fidelity"]["sentences"]["cosine_min"] == pytest.approx(1)
    assert rows["wrong"]["fidelity"]["sentences"]["cosine_mean"] == pytest.approx(-1)
    assert rows["wrong"]["status"] == "failed"
    assert sum(len(row["seconds"]) for row in record["latencies"] if row["contender"] == "a") == 100
    printed = tables.render(complete(record))
    assert "sentences, pairs/s" in printed
    assert "one text" not in printed


def test_texts_with_a_vector_for_each_token_are_compared_token_by_token(run: Run) -> None:
    code, record = run({"a": {}, "cuts": {"behaviour": "cuts"}}, *QUICK, task="late_interaction")
    assert code == 0
    rows = record["contenders"]
    assert rows["a"]["fidelity"]["smoke"]["cosine_min"] == pytest.approx(1)
    assert rows["a"]["invariance"] == {"alone": 0.0, "order": 0.0}
    assert "24 of 24 texts" in rows["cuts"]["reason"]


def test_parts_that_a_kind_has_no_texts_for_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run({}, "--parts", "quality", task="sparse")
    assert code == 2
    assert "parts for a model of kind sparse are cold, throughput, latency, not quality" in capsys.readouterr().err


def test_a_table_of_words_is_a_kind_of_its_own() -> None:
    def described(task: str, model_type: str) -> Any:
        return SimpleNamespace(task=task, source=SimpleNamespace(model_type=model_type))

    assert other_tasks.kind(described("embedding", "static")) == "static"
    assert other_tasks.kind(described("embedding", "bert")) == "embedding"
    assert other_tasks.kind(described("sparse", "bert")) == "sparse"


@pytest.mark.parametrize("kind", other_tasks.TABLES)
def test_every_kind_has_the_reference_and_adapters_that_are_there(kind: str) -> None:
    table = other_tasks.TABLES[kind]
    assert [row.name for row in other_tasks.named(kind, ["rt-int8"])] == [REFERENCE, "rt-int8"]
    assert any(not row.ours for row in table[1:])
    for row in table:
        assert row.environment in ENVIRONMENTS
        assert all(path.is_file() for path in sources(row.adapter))
    with pytest.raises(BenchmarkError, match="unknown contender nobody"):
        other_tasks.named(kind, ["nobody"])


def test_scores_are_parted_by_request_and_centred() -> None:
    requests = [["where?", ["here", "there"]], ["who?", ["she"]]]
    assert requests_of_pairs.flat(requests) == [("where?", "here"), ("where?", "there"), ("who?", "she")]
    parted = requests_of_pairs.by_request([1.0, 3.0, 5.0], requests)
    assert parted == [[1.0, 3.0], [5.0]]
    assert [row.tolist() for row in requests_of_pairs.rows(parted)] == [[-1.0, 1.0], [0.0]]
    assert requests_of_pairs.count(requests) == 3
