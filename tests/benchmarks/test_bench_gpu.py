"""The GPU benchmark on CPUs: it runs from end to end, refuses to time wrong vectors, and its arithmetic is right."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import candidates, checks, engines, mixes, prepared, profiling, rates, timing
from benchmarks.gpu.shapes import SHAPES, make, texts


@pytest.fixture(scope="module", autouse=True)
def shorter_mixes() -> Iterator[None]:
    """A quarter of the tokens: as many texts, cells and rounds as ever, which take most of a dry run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            mixes, "LENGTHS", {name: (max(mean // 4, 6), spread) for name, (mean, spread) in mixes.LENGTHS.items()}
        )
        yield


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
    (profile,) = found["kernels"]
    assert (profile["contender"], profile["texts"], profile["length"]) == ("by-hand-fp32", 4, 8)
    assert profile["busy_seconds"] == pytest.approx(sum(kernel["seconds"] for kernel in profile["kernels"]))
    assert "aten::addmm" in {kernel["name"] for kernel in profile["kernels"]}
    assert [(row["contender"], row["load"], row["target"]) for row in found["loads"]] == [
        ("rt-cpu-fp32", load, found["engines"][0]["target"]) for load in ("first", "second")
    ]
    assert all(0 < row["loaded"] <= row["first_vector"] for row in found["loads"])
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
    assert first["left"] == [f"tiny: {part}" for part in ("bits", "loads", "callers", "latency", "mixes", "throughput")]
    assert "left for the next run with the same --out: tiny: mixes" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(timing.Plan, "over", lambda _: False)
    monkeypatch.setattr(command, "say", lambda line: parts.append(line.partition(": ")[2]))
    assert command.main(words) == 0
    second = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert second["left"] == []
    assert len(second["commands"]) == 2
    assert second["shapes"]["tiny"]["engines"] == first["shapes"]["tiny"]["engines"]
    assert not {"engines", "kernels"} & set(parts)
    assert {"bits", "loads", "callers", "latency", "mixes"} <= set(parts)
    spoilt = {**second, "machine": {**second["machine"], "device": "another"}}
    (tmp_path / "record.json").write_text(json.dumps(spoilt), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"of other machine \(device\); pass another --out"):
        command.main(words)


PARTS: dict[str, Callable[[dict[str, candidates.Encode], timing.Plan], Any]] = {
    "bits": lambda them, plan: checks.bits(SHAPES["tiny"], them, plan, count=4),
    "callers": lambda them, plan: checks.callers(SHAPES["tiny"], them, candidates.ON_CPU, plan, 0.5),
    "latency": lambda them, plan: timing.latency(SHAPES["tiny"], them, candidates.ON_CPU, plan),
    "mixes": lambda them, plan: mixes.measure({"short": ["w1"] * 8}, them, candidates.ON_CPU, plan),
    "throughput": lambda them, plan: timing.throughput(SHAPES["tiny"], them, plan, 8, 4),
}


@pytest.mark.parametrize("part", list(PARTS))
def test_a_contender_that_fails_in_a_part_keeps_the_others_from_nothing(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose memory does not do for a large batch: it is a line of the report, in threads too."""
    monkeypatch.setattr(timing, "SAMPLE", 0.01)
    calls: dict[str, list[int]] = {"rt-cpu-fp32": [], "st-fp32": []}

    def encode(given: list[str], batch: int, _: int) -> Any:
        calls["rt-cpu-fp32"].append(batch)
        time.sleep(1e-4)
        return np.zeros((len(given), 2), np.float32)

    def encode_or_fail(given: list[str], batch: int, _: int) -> Any:
        calls["st-fp32"].append(batch)
        if len(calls["st-fp32"]) > 1:
            raise MemoryError("CUDA out of memory\nand more")
        return np.zeros((len(given), 2), np.float32)

    plan = timing.Plan(lengths=(8,), batches=(4,), rounds=2, tokens=64, calls=2)
    record: dict[str, Any] = {"failures": []}
    encoders: dict[str, candidates.Encode] = {
        "rt-cpu-fp32": candidates.failing("rt-cpu-fp32")(encode),
        "st-fp32": candidates.failing("st-fp32")(encode_or_fail),
    }
    found = command.measured(lambda them: PARTS[part](them, plan), encoders, f"tiny, {part}", record)
    assert record["failures"] == [f"tiny, {part}: st-fp32: MemoryError: CUDA out of memory"]
    assert set(found if isinstance(found, dict) else (row["contender"] for row in found)) == {"rt-cpu-fp32"}
    if part in ("callers", "latency"):  # as it is loaded by default: a bound of one text would be no batch of several
        assert set(calls["rt-cpu-fp32"]) == {0}
    command.failed(record, record["failures"][0])
    assert len(record["failures"]) == 1


def test_a_sample_ends_however_slow_the_slowest_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one text each is 16,384 calls for the tokens of a sample: of sentence-transformers, a minute."""
    clock, texts_of = [0.0], dict[str, list[int]](fast=[], slow=[])
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def encoder(name: str, seconds: float) -> candidates.Encode:
        def encode(given: list[str], batch: int, _: int) -> Any:
            texts_of[name].append(len(given))
            clock[0] += seconds * len(given) / batch

        return encode

    plan = timing.Plan(lengths=(16,), batches=(1,), rounds=7, tokens=262144, calls=1)
    encoders = {"fast": encoder("fast", 2.0**-13), "slow": encoder("slow", 2.0**-8)}
    rows = timing.throughput(SHAPES["tiny"], encoders, plan, 16, 1)
    assert {name: found[2:] for name, found in texts_of.items()} == dict.fromkeys(("fast", "slow"), [256] * 8)
    assert [(row["texts"], len(row["seconds"])) for row in rows] == [(256, 7), (256, 7)]
    assert clock[0] < 2 * 8 * timing.SAMPLE
    rows = timing.throughput(SHAPES["tiny"], {"fast": encoder("fast", 10.0)}, plan, 16, 1)
    assert rows[0]["texts"] == 1, "one batch, whatever it takes"


def test_what_the_aims_are_about_is_measured_first() -> None:
    plan = timing.Plan(lengths=(16, 128, 512), batches=(1, 32, 128), rounds=1, tokens=1, calls=1)
    batches = {name: [(length, count) for count, length in engines.BATCHES[name]] for name in ("base", "large")}
    assert timing.cells(plan, batches["base"])[:2] == [(128, 128), (512, 32)]
    assert timing.cells(plan, batches["large"])[:2] == [(512, 32), (16, 1)]
    assert sorted(timing.cells(plan, batches["base"])) == sorted(timing.cells(plan))
    defaults = command.parse([])
    for name, length, *_ in rates.AIMS:  # those of a default run are in it
        count = {length: count for count, length in engines.BATCHES[name]}[length]
        assert str(length) in defaults.lengths.split(",")
        assert str(count) in defaults.batches.split(",")


def test_kernels_of_the_card_are_summed_up_by_name() -> None:
    def event(name: str, kind: str, microseconds: float) -> Any:
        elapsed = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(name=name, device_type=f"DeviceType.{kind}", time_range=elapsed, self_cpu_time_total=1.0)

    flash = "void (anonymous namespace)::flash_fwd<cutlass::half_t<2>, Traits<64, 128>>(Params)"
    events = [event(flash, "CUDA", 30.0), event("fastembed_rt_mean_float16", "CUDA", 6.0)] * profiling.RUNS
    events += [event("cudaLaunchKernel", "CPU", 9e9), event("Memcpy HtoD (Pinned -> Device)", "CUDA", 3.0)]
    found = profiling.by_name(events, "cuda")
    assert [(row["name"], row["calls"]) for row in found] == [
        ("flash_fwd", 1.0),
        ("fastembed_rt_mean_float16", 1.0),
        ("Memcpy HtoD", 1 / profiling.RUNS),
    ]
    assert [row["seconds"] for row in found] == pytest.approx([30e-6, 6e-6, 1e-6])
    row = {"batch_seconds": 74e-6, "busy_seconds": 37e-6, "kernels": found}
    assert profiling.table(row)[0] == ("`flash_fwd`", "40.5%", "1", "30.0")
    assert profiling.table(row)[-1] == ("no kernel", "50.0%", "", "")
    many = [{"name": f"k{number}", "seconds": 1e-6, "calls": 2.0} for number in range(profiling.MOST + 3)]
    assert profiling.table({**row, "kernels": many})[-2] == ("3 others", "4.1%", "6", "0.5")


def test_a_profiler_that_sees_nothing_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match="saw no kernel"):
        profiling.profiled(lambda: None, "cpu")


def test_what_is_prepared_is_taken_by_later_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs in FP8 take minutes of CPUs, which the card need not wait for."""
    options = ["--dry-run", "--work", str(tmp_path / "work")]
    assert command.main([*options, "--prepare"]) == 0
    made = sorted(path.name.partition("-")[0] for path in (tmp_path / "work" / "tiny").iterdir())
    assert made == ["checkpoint", "model"]

    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr(prepared, "make", nothing)
    monkeypatch.setattr("fastembed_rt_export.pipeline.export", nothing)
    monkeypatch.setattr(timing.Plan, "over", lambda _: False)
    with prepared.workplace(tmp_path / "work", "tiny") as work:
        _, directory = prepared.prepared(SHAPES["tiny"], candidates.ON_CPU, work)
        assert (directory / "manifest.json").is_file()
        monkeypatch.setenv("FASTEMBED_RT_CUDA_ATTENTION", "1")
        with pytest.raises(AssertionError, match="made again"):
            prepared.prepared(SHAPES["tiny"], candidates.ON_CPU, work)
    with pytest.raises(SystemExit):
        command.parse(["--prepare"])


def test_contenders_with_our_operators_are_those_or_none() -> None:
    """Without, the stock graph would run under their name."""
    asked = {name: options.get("target") for name, options in candidates.ENGINES.items() if "cuda" in name}
    assert asked == {
        **dict.fromkeys(("rt-cuda-fp16", "rt-cuda-bf16", "rt-cuda-fp8"), "cuda-native"),
        "rt-cuda-plain-fp16": "cuda",
    }


def test_tests_that_need_a_card_are_found_by_their_marker() -> None:
    files = checks.marked()
    assert {"tests/runtime/run/test_cuda.py", "tests/native/test_cuda_on_a_card.py"} <= set(files)
    assert len(files) < 20


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
    """Of what needs no compiler on the machine."""
    options = ["--quick", "--contenders", "rt-cuda-fp16,rt-cuda-plain-fp16,st-fp16", "--out", str(tmp_path)]
    assert command.main(options) == 0
