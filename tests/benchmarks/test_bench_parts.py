"""What each part measures, over fake contenders: what is recorded, who is left out of what, and for which reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import CHECK_CALLS, Run, word_tokenizer

from benchmarks.compare.adapters import together
from benchmarks.compare.parts import fresh, peaks_and_operators, served
from benchmarks.compare.parts.peaks_and_operators import shares
from benchmarks.data import lengths, workloads
from benchmarks.errors import BenchmarkError
from benchmarks.inside import limits
from benchmarks.report import tables
from benchmarks.report.records import REFERENCE
from fastembed_rt import native

BATCH_CALLS = sum(1 + -(-256 // batch) for batch in served.BATCHES)  # with warm-up


@pytest.mark.slow
def test_texts_of_one_length_are_timed_by_that_length(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, record = run(
        {"miscounts": {"behaviour": "miscounts"}, "a": {}},
        "--parts",
        "throughput,lengths",
        "--workloads",
        "smoke,length-8,length-16,length-32",
        "--rounds",
        "1",
    )
    assert code == 0
    facts = record["workloads"]
    assert {name: (row["group"], row["length"]) for name, row in facts.items()} == {
        "smoke": ("texts", None),
        "length-8": ("length", 8),
        "length-16": ("length", 16),
    }
    assert "length-32: left out, the model cuts texts at 16 tokens" in capsys.readouterr().err
    assert facts["length-8"]["tokens"] == facts["length-16"]["tokens"] == workloads.LENGTH_TOKENS
    seen = [
        (row["contender"], row["workload"], row["texts"]) for row in record["samples"] if row["workload"] != "smoke"
    ]
    assert sorted(seen) == [
        (name, workload, texts)
        for name in ("a", REFERENCE)
        for workload, texts in (("length-16", 1024), ("length-8", 2048))
    ]
    row = record["contenders"]["miscounts"]
    assert row["status"] == "ok"
    assert "the first with 15 tokens instead of 16" in row["failed_parts"]["lengths"]
    assert "MISCOUNTS, lengths: it tokenizes differently" in tables.render(record)


def test_pieces_of_a_paragraph_have_exactly_so_many_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    word_tokenizer().save(str(file))
    tokenizer = lengths.open_tokenizer(file)
    paragraph = "one two three four five six seven eight nine"
    assert list(lengths.pieces(paragraph, 6, tokenizer)) == ["one two three four", "five six seven eight"]
    assert list(lengths.pieces(paragraph, 2, tokenizer)) == []
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(BenchmarkError, match="cannot be read as a tokenizer"):
        lengths.open_tokenizer(tmp_path / "other.json")


def test_long_texts_are_several_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    paragraphs = [" ".join(f"word{number}" for _ in range(60)) for number in range(1000)]
    for name in workloads.PARAGRAPHS:
        (tmp_path / "texts" / name).write_text("\n".join(map(json.dumps, paragraphs)))
    tokenizer = word_tokenizer()
    for length, texts in ((512, 32), (2048, 8), (8192, 2)):
        found = lengths.texts(workloads.WORKLOADS[f"length-{length}"], tmp_path, tokenizer)
        assert {len(tokenizer.encode(text).ids) for text in found} == {length}
        assert len(set(found)) == texts
        whole = [paragraph for paragraph in paragraphs if f"\n{paragraph}\n" in found[0]]
        assert len(whole) >= length // 60 - 2


def test_too_few_texts_of_a_length_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in workloads.PARAGRAPHS:
        (tmp_path / "texts" / name).write_text('"only a few words here"\n')
    with pytest.raises(BenchmarkError, match=r"length-8 needs 2048 texts of 8 tokens .* has 0"):
        lengths.texts(workloads.WORKLOADS["length-8"], tmp_path, word_tokenizer())


def test_texts_a_call_and_callers_at_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "CALLERS_SECONDS", 0.0)
    code, record = run({"a": {}, "one": {"behaviour": "one-caller"}}, "--parts", "batches,concurrent")
    assert code == 0
    seen = {(row["contender"], row["batch"]): row["texts"] for row in record["batches"]}
    texts = workloads.texts(workloads.WORKLOADS["mixed-small"], tmp_path / "data")
    assert {row["tokens"] for row in record["batches"]} == {sum(len(text.split()) + 2 for text in texts)}
    assert seen == {(name, batch): 256 for name in (REFERENCE, "a", "one") for batch in served.BATCHES}
    callers = [(row["contender"], row["callers"]) for row in record["concurrent"]]
    assert {count for name, count in callers if name == "a"} == set(served.CALLERS)
    # Who cannot take several callers is measured with one, and compared in everything else.
    assert [count for name, count in callers if name == "one"] == [1]
    row = record["contenders"]["one"]
    assert row["status"] == "ok"
    assert row["failed_parts"] == {
        "concurrent": "callers: NotThreadSafeError: with 2 callers: RuntimeError: already borrowed"
    }
    assert all(len(row["seconds"]) == 200 for row in record["concurrent"])


def test_a_contender_that_died_in_a_part_is_started_again_for_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CALLERS_SECONDS", 0.0)
    calls = str(CHECK_CALLS + BATCH_CALLS - 1)
    code, record = run({"dies": {"behaviour": "crash", "good_calls": calls}}, "--parts", "batches,concurrent")
    assert code == 0
    row = record["contenders"]["dies"]
    assert row["status"] == "ok"
    assert "exit code 3" in row["failed_parts"]["batches"]
    alone = [seen for seen in record["concurrent"] if (seen["contender"], seen["callers"]) == ("dies", 1)]
    assert len(alone) == 1


def test_each_budget_of_threads_has_a_process_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "budgets", lambda: [1, 3])
    code, record = run({"a": {}, "refuses": {"behaviour": "refuse"}}, "--parts", "scaling")
    assert code == 0
    seen = [(row["contender"], row["threads"], row["texts"], len(row["single"])) for row in record["scaling"]]
    assert seen == [(name, threads, 200, 50) for threads in (1, 3) for name in (REFERENCE, "a")]
    assert "no weights" in record["contenders"]["refuses"]["failed_parts"]["scaling"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
@pytest.mark.parametrize(("cpus", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_budgets_double_up_to_the_machine(monkeypatch: pytest.MonkeyPatch, cpus: int, expected: list[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert fresh.budgets() == expected


def test_neighbours_that_change_a_vector_are_recorded(run: Run) -> None:
    _, record = run({"a": {"behaviour": "neighbours"}}, "--parts", "latency", "--rounds", "1")
    assert record["contenders"][REFERENCE]["invariance"] == {"alone": 0, "order": 0}
    assert record["contenders"]["a"]["invariance"] == {"alone": pytest.approx(0.079, abs=1e-6), "order": 0}


def test_callers_that_get_another_texts_vector_are_found_out() -> None:
    texts = [f"text {k}" for k in range(32)]
    seen: list[str] = []

    def last_asked(asked: list[str]) -> Any:
        seen.append(asked[0])
        before = seen[-2] if len(seen) in range(2, 33) else asked[0]
        return np.eye(32, dtype=np.float32)[[texts.index(before)]]

    with pytest.raises(together.NotThreadSafeError, match=r"cosine 0\.000 to its text's own"):
        together.callers(last_asked, texts, 2, least=0)


def test_every_call_of_every_caller_is_timed_and_every_difference_seen() -> None:
    def encode(texts: list[str]) -> Any:
        return np.array([[len(text), len(texts) / 1000] for text in texts], dtype=np.float32)

    texts = ["x" * k for k in range(1, 21)]
    seen = together.callers(encode, texts, 4, least=0)
    assert len(seen["seconds"]) == 20
    assert all(0 < seconds <= seen["wall"] * 1.01 for seconds in seen["seconds"])
    longer = together.callers(encode, texts, 4, least=0.2)
    assert longer["wall"] >= 0.2
    assert len(longer["seconds"]) > 20
    found = together.invariance(encode, texts)
    assert found == {"alone": pytest.approx(0.019), "order": 0}


def test_an_interrupt_in_any_part_keeps_what_was_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fresh.scaling

    def interrupted(started: Any) -> None:
        monkeypatch.setattr(fresh, "budgets", lambda: [1, *_interrupts()])
        real(started)

    monkeypatch.setattr("benchmarks.compare.parts.PARTS", {**_parts(), "scaling": _parts(interrupted)["scaling"]})
    monkeypatch.setattr("benchmarks.compare.parts.TABLE", tuple(_parts(interrupted).values()))
    code, record = run({"a": {}}, "--parts", "batches,scaling")
    assert code == 130
    assert record["interrupted"] is True
    assert len(record["batches"]) == 2 * len(served.BATCHES)


def _parts(scaling: Any = None) -> dict[str, Any]:
    import dataclasses

    from benchmarks.compare.parts import TABLE

    return {
        row.name: dataclasses.replace(row, measure=scaling) if scaling and row.name == "scaling" else row
        for row in TABLE
    }


def _interrupts() -> list[int]:
    signal.raise_signal(signal.SIGINT)
    return []


def test_shares_are_of_the_peak_with_all_threads() -> None:
    samples = [{"contender": "rt-fp32", "workload": "short", "seconds": seconds} for seconds in (1.0, 2.0, 4.0)]
    found = shares(samples, {"short": {"tokens": 1000}, "long": {"tokens": 5}}, "rt-fp32", 10_000_000, 100.0)
    # 2 operations a multiply-add x 1e7 x 1000 tokens in 2 seconds.
    assert found == {"short": {"gops": pytest.approx(10), "share": pytest.approx(0.1)}}
    assert shares(samples, {"short": {"tokens": 1000}}, "rt-fp32", 1, None) == {}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights for the cpu target, cut at 16 tokens."""
    from checkpoints import save_sentence_transformers

    from fastembed_rt_export.pipeline import ExportOptions, export

    root = tmp_path_factory.mktemp("limits")
    checkpoint = save_sentence_transformers(root / "checkpoint", max_seq_length=16)
    export(str(checkpoint), ExportOptions(output=root / "model", verify=False))
    return root / "model"


def test_limits_of_a_real_graph(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "gemm_peak", lambda onnxruntime, precision, threads, rounds: 1e9 * threads)
    found = limits.measure(small, {"short": [5, 9, 300]}, threads=2)
    # 3 layers of query, key, value, output (24 x 24 each) and two of 24 x 56.
    assert found["multiply_adds"]["fp32"] == 3 * (4 * 24 * 24 + 2 * 24 * 56)
    assert sum(found["operators"]["fp32"]["short"].values()) == pytest.approx(1)
    assert found["peaks"]["fp32"] == {"peak_gops_one_thread": 1, "peak_gops_all_threads": 2}
    assert limits.main([str(small), "--precision", "fp32", "--threads", "2"]) == 0
    assert "1 GOP/s on one thread, 2 on 2" in capsys.readouterr().out
    assert limits.main([str(small / "nowhere"), "--json"]) == 2
    assert '"error"' in capsys.readouterr().out


def test_a_precision_that_has_no_operator_here_has_no_peak_and_its_row_a_reason(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "gemm_peak", lambda onnxruntime, precision, *rest: None if precision == "bf16" else 1e9)
    found = limits.measure(small, {"short": [5]}, threads=2)
    assert sorted(found["peaks"]) == ["fp32", "int8"]
    assert "bf16" not in limits.described(found, 2)
    answer = {"multiply_adds": {"bf16": 1}, "peaks": found["peaks"]}
    assert peaks_and_operators.unknown("bf16", answer) == "no peak of bf16 products was measured on this machine"


def test_the_limits_part_runs_in_a_process_of_its_own(
    run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks_and_operators, "OPTIONS", ("--rounds", "2"))
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    own = {"rt-fp32": {"precision": "fp32", "ours": "yes"}, "rt-other": {"ours": "yes"}}
    code, record = run(own, "--parts", "throughput,limits", "--rounds", "1")
    assert code == 0
    reason = "the model directory has no graph of None for this machine"
    assert record["contenders"]["rt-other"]["failed_parts"] == {"limits": reason}
    assert "failed" not in record["limits"], record["limits"]
    assert record["limits"]["shares"]["rt-fp32"]["smoke"]["share"] > 0
    assert sum(record["limits"]["operators"]["rt-fp32"]["smoke"].values()) == pytest.approx(1)
    for precision in ("int8", "bf16") if native.kernels() is not None else ("int8",):
        assert set(record["limits"][precision]) == {"peak_gops_one_thread", "peak_gops_all_threads"}
    assert "in percent of the machine's peak" in tables.render(record)


def test_limits_that_cannot_be_measured_say_so(run: Run) -> None:
    code, record = run({}, "--parts", "limits")
    assert code == 0
    assert "manifest.json" in record["limits"]["failed"]


def test_a_cold_start_that_fails_is_left_out_of_that_part(run: Run) -> None:
    code, record = run({"a": {"behaviour": "refuse"}}, "--parts", "cold")
    assert code == 0
    assert [row["contender"] for row in record["cold"]] == [REFERENCE]
    assert "cold" in record["contenders"]["a"]["failed_parts"]


def test_a_start_that_is_not_timed_says_why(run: Run) -> None:
    code, record = run({"a": {"no_cold_start": "asks a network"}}, "--parts", "cold")
    assert code == 0
    assert [row["contender"] for row in record["cold"]] == [REFERENCE]
    assert record["contenders"]["a"]["failed_parts"] == {"cold": "asks a network"}
    assert "A, cold: asks a network" in tables.render(record)
