"""The GPU benchmark on CPUs: it runs from end to end, refuses to time wrong vectors, and its arithmetic is right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import candidates, rates, timing
from benchmarks.gpu.shapes import SHAPES, make, texts


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu")
    assert command.main(["--dry-run", "--out", str(folder)]) == 0
    assert "A dry run on CPUs" in (folder / "report.md").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return record


def test_a_dry_run_goes_all_the_way_and_says_that_it_is_one(dry: dict[str, Any]) -> None:
    assert dry["dry_run"] is True
    assert dry["failures"] == []
    assert dry["versions"]["torch"] == torch.__version__
    assert set(dry["contenders"]) == {"rt-cpu-fp32", "st-fp32", "by-hand-fp32"}
    assert dry["left"] == []
    found = dry["shapes"]["tiny"]
    assert {(row["length"], row["batch"]) for row in found["throughput"]} == {(8, 1), (8, 4), (32, 1), (32, 4)}
    assert all(len(row["seconds"]) == 2 for row in found["throughput"])
    assert all(len(row["seconds"]) == 12 and row["p50"] <= row["p99"] for row in found["latency"])
    assert found["fidelity"]["rt-cpu-fp32"]["centred_min"] > 0.999
    assert found["fidelity"]["rt-cpu-fp32"]["between_texts"] < 0.999  # the check can tell texts apart
    assert [(row["contender"], row["texts"], row["length"]) for row in found["engines"]] == [
        ("rt-cpu-fp32", 4, 8),
        ("by-hand-fp32", 4, 8),
    ]
    assert set(found["bits"]) == set(found["callers"]) == set(dry["contenders"])
    assert {(row["contender"], row["mix"], row["batch"]) for row in found["mixes"]} == {
        *(("rt-cpu-fp32", mix, 0) for mix in ("short", "mixed", "long")),
        *(
            (who, mix, n)
            for who in ("st-fp32", "by-hand-fp32")
            for mix in ("short", "mixed", "long")
            for n in (32, 256)
        ),
    }
    assert found["fidelity"]["by-hand-fp32"]["centred_min"] > 0.99
    assert all(0 <= entry["equal"] <= entry["of"] == 8 for entry in found["bits"].values())
    assert min(found["callers"].values()) > 0
    assert dry["tests"] is None
    assert all({"level", "check", "what"} <= set(entry) for entry in dry["doctor"])


def test_wrong_vectors_are_not_timed_and_end_with_their_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = candidates.ON_CPU["rt-cpu-fp32"]

    def spoiled(checkpoint: Path, directory: Path) -> candidates.Encode:
        encode = row.open(checkpoint, directory)
        return lambda *arguments: np.roll(encode(*arguments), 1, axis=1)

    monkeypatch.setitem(candidates.ON_CPU, "rt-cpu-fp32", dataclasses.replace(row, open=spoiled))
    assert command.main(["--dry-run", "--out", str(tmp_path)]) == command.WRONG
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert "to torch fp32, so not timed" in record["failures"][0]
    assert "rt-cpu-fp32" not in {entry["contender"] for entry in record["shapes"]["tiny"]["throughput"]}


def test_a_run_that_ends_in_time_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured stays as it is; what is left is named; another machine's record is not gone on with."""
    words = ["--dry-run", "--out", str(tmp_path)]
    parts: list[str] = []
    over = iter([False] * 3 + [True] * 100)  # the shape, its first two parts, and no more
    monkeypatch.setattr(timing.Plan, "over", lambda _: next(over))
    assert command.main(words) == 0
    first = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert first["left"] == [f"tiny: {part}" for part in ("callers", "latency", "mixes", "throughput")]
    assert "left for the next run with the same --out: tiny: mixes" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(timing.Plan, "over", lambda _: False)
    monkeypatch.setattr(command, "say", lambda line: parts.append(line.partition(": ")[2]))
    assert command.main(words) == 0
    second = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert second["left"] == []
    assert len(second["commands"]) == 2
    assert second["shapes"]["tiny"]["engines"] == first["shapes"]["tiny"]["engines"]
    assert "engines" not in parts
    assert {"callers", "latency", "mixes"} <= set(parts)
    spoilt = {**second, "machine": {**second["machine"], "device": "another"}}
    (tmp_path / "record.json").write_text(json.dumps(spoilt), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"of other machine \(device\); pass another --out"):
        command.main(words)


def test_texts_have_exactly_as_many_tokens_as_asked(tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(make(SHAPES["tiny"], tmp_path))
    lengths = [2, 3, 17, 512]
    assert [len(tokenizer(text)["input_ids"]) for text in texts(SHAPES["tiny"], lengths)] == lengths


@pytest.mark.parametrize("tokens", [7, 64])
def test_operations_are_those_that_torch_counts(tmp_path: Path, tokens: int) -> None:
    make(SHAPES["tiny"], tmp_path)
    model = transformers.BertModel.from_pretrained(tmp_path / "transformers", attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encoder(model.embeddings(torch.zeros(1, tokens, dtype=torch.long)))
    assert SHAPES["tiny"].operations(tokens) == counter.get_total_flops()


def test_shares_and_aims_follow_from_the_samples() -> None:
    shape = SHAPES["base"]
    rows = [("rt-cuda-fp16", 100, 0.5), ("st-fp16", 100, 1.0)]
    record: dict[str, Any] = {
        "peaks": {
            "matrix": {"float16": {"operations_per_second": 200 * shape.operations(128) / 0.5}},
            "copy": {"bytes_per_second": 1e12},
        },
        "contenders": {
            name: {"ours": name.startswith("rt"), "bytes_per_weight": 2} for name in ("rt-cuda-fp16", "st-fp16")
        },
        "shapes": {
            "base": {
                "engines": [
                    {
                        "contender": "rt-cuda-fp16",
                        "length": 128,
                        "operations_per_second": 0.7 * 200 * shape.operations(128) / 0.5,
                    }
                ],
                "throughput": [
                    {"contender": name, "length": 128, "batch": 8, "texts": count, "seconds": [seconds]}
                    for name, count, seconds in rows
                ],
                "latency": [
                    {"contender": "rt-cuda-fp16", "length": 128, "seconds": [1e-3, 1e-3, 1e-3]},
                    {"contender": "st-fp16", "length": 128, "seconds": [2e-3, 2e-3, 2e-3]},
                ],
            }
        },
    }
    rates.summarize(record)
    assert record["shapes"]["base"]["throughput"][0]["matrix_share"] == pytest.approx(0.5)
    assert record["shapes"]["base"]["latency"][0]["bandwidth_share"] == pytest.approx(2 * shape.weights / 1e-3 / 1e12)
    assert [(aim["what"].split(",")[0], aim["value"], aim["met"]) for aim in record["aims"]] == [
        ("texts/s to sentence-transformers fp16", pytest.approx(2.0), False),
        ("one text", pytest.approx(0.5), False),
        ("share of the matrix peak", pytest.approx(0.7), True),  # of the engine alone
    ]


def test_aims_of_the_parts_are_told_where_they_were_measured() -> None:
    def row(who: str, **found: Any) -> dict[str, Any]:
        return {"contender": who, "seconds": [1.0], **found}

    mixes = [row("rt", mix="short", batch=0, texts=90), row("st-fp16", mix="short", batch=32, texts=5)]
    mixes.append(row("st-fp16", mix="short", batch=256, texts=10))
    latency = [{"contender": "rt", "length": 16, "seconds": [3e-4] * 99 + [7e-4]}]
    engines = [row("rt-cuda-fp8", length=128, operations_per_second=82.0)]
    record: dict[str, Any] = {
        "peaks": {"matrix": {"float16": {"operations_per_second": 100.0}}, "copy": {"bytes_per_second": 1e12}},
        "contenders": {
            name: {"ours": name != "st-fp16", "bytes_per_weight": 2} for name in ("rt", "rt-cuda-fp8", "st-fp16")
        },
        "shapes": {
            "minilm": {"mixes": mixes, "latency": latency, "callers": {"rt": 19_000.0, "st-fp16": 50_000.0}},
            "base": {"engines": engines},
            "real: one": {"mixes": mixes},
        },
    }
    rates.summarize(record)
    assert [(aim["shape"], aim["length"], aim["value"], aim["met"]) for aim in record["aims"]] == [
        ("base", 128, pytest.approx(0.82), True),
        ("minilm", "short", pytest.approx(9.0), True),
        ("real: one", "short", pytest.approx(9.0), True),
        ("minilm", 16, pytest.approx(0.3), True),
        ("minilm", 16, pytest.approx(0.304, abs=0.01), True),
        ("minilm", 16, 19_000.0, False),
    ]


def test_centring_takes_away_what_all_vectors_share() -> None:
    random = np.random.default_rng(0)
    expected = (10 + random.standard_normal((50, 8))).astype(np.float32)
    found = timing.fidelity((10 + random.standard_normal((50, 8))).astype(np.float32), expected)
    assert found["mean"] > 0.95
    assert found["centred_min"] < 0.5


@pytest.mark.gpu
def test_the_smallest_real_run(tmp_path: Path) -> None:
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
