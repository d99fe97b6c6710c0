"""`fastembed-rt bench`: what it measures adds up, its graphs are those it says, and bad input is one line."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from fastembed_rt import EmbeddingModel, cli, native
from fastembed_rt.cli import bench, bench_worker, peak
from fastembed_rt.run.session import load_onnxruntime


@pytest.fixture(scope="module")
def two_precisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights in fp32 and INT8."""
    from checkpoints import save_sentence_transformers

    from fastembed_rt_export.pipeline import ExportOptions, export

    root = tmp_path_factory.mktemp("bench")
    checkpoint = save_sentence_transformers(root / "checkpoint", hidden_size=48)
    options = ExportOptions(output=root / "model", precisions=("fp32", "int8"), min_cosine=-1.0, verify=False)
    export(str(checkpoint), options)
    return root / "model"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line on standard error."""
    code = cli.main(["bench", *arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fastembed-rt: error: ")
    return code, err


# The command


def test_every_precision_and_length_is_measured(
    two_precisions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a cat"] * 3 + ["the dog runs " * 8] * 2
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    options = ["--texts", str(tmp_path / "texts.jsonl"), "--column", "body", "--seconds", "0.4", "--threads", "2"]
    assert cli.main(["bench", str(two_precisions), *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [result["precision"] for result in report["results"]] == ["fp32", "int8"]
    with EmbeddingModel(two_precisions) as model:
        short, long = (model.count_tokens(text) for text in (texts[0], texts[-1]))
    for result in report["results"]:
        target = "native" if native.kernels() else "cpu"
        assert (result["threads"], result["provider"], result["target"]) == (2, "cpu", target)
        assert result["load_seconds"] > 0
        assert result["peak_memory_bytes"] > 20e6  # an interpreter with numpy and onnxruntime
        assert list(result["lengths"]) == ["1-16", "17-64"]
        for name, count, tokens in (("1-16", 3, short), ("17-64", 2, long)):
            row = result["lengths"][name]
            assert (row["texts"], row["mean_tokens"]) == (count, tokens)
            assert row["tokens_per_second"] == pytest.approx(row["texts_per_second"] * tokens)
            work = 2 * result["multiply_adds_per_token"] * row["tokens_per_second"]
            assert row["peak_share"] == pytest.approx(work / result["gemm_peak_ops"])


def test_people_get_a_table(two_precisions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(two_precisions), "--precision", "int8", "--seconds", "0.3", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    own = native.kernels()
    graph, kernels = ("native", own) if own else ("cpu", "uint8")
    assert f"int8: model.{graph}.int8.onnx, provider cpu, kernels {kernels}" in text
    assert "1 thread\n" in text
    header = lines.index(next(line for line in lines if line.startswith("precision ")))
    rows = [line.split() for line in lines[header + 1 :] if line.startswith("int8")]
    assert [row[1] for row in rows] == ["1-16", "17-64"]  # the model has 48 positions: built-in texts are cut there
    assert "fp32" not in text


def test_texts_that_are_not_there_are_refused_before_a_model_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "bad.jsonl").write_text("{")
    cases = {
        "missing.txt": "missing.txt does not exist",
        "empty.txt": "holds no text to measure with",
        "bad.jsonl": "bad.jsonl, line 1: not JSON",
    }
    for name, message in cases.items():
        code, line = refused(capsys, "nowhere", "--texts", str(tmp_path / name))
        assert code == 2
        assert message in line


def test_a_model_that_cannot_be_measured_is_one_line(
    two_precisions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refused(capsys, str(tmp_path))
    assert code == 3
    assert "manifest.json" in line
    code, line = refused(capsys, str(two_precisions), "--precision", "fp16")
    assert code == 2
    assert "precision 'fp16' does not run with provider 'cpu', for which there are fp32, bf16 and int8" in line
    code, line = refused(capsys, str(two_precisions), "--provider", "gpu")
    assert code == 2
    assert "provider 'gpu' is not known" in line


def test_what_a_worker_refuses_has_its_message_and_exit_code(
    two_precisions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(two_precisions, tmp_path / "damaged")
    graph = damaged / "model.cpu.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    code, line = refused(capsys, str(damaged), "--precision", "int8", "--seconds", "0.1")
    assert code == 3
    assert "model.cpu.int8.onnx has" in line


@pytest.mark.parametrize(("returncode", "ended"), [(-9, "signal 9"), (1, "exit code 1")])
def test_a_worker_that_dies_is_said_to_have_died(
    two_precisions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    returncode: int,
    ended: str,
) -> None:
    dead = subprocess.CompletedProcess([], returncode, stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: dead)
    code, line = refused(capsys, str(two_precisions))
    assert code == 1
    assert f"measuring fp32 ended with {ended}" in line


@pytest.mark.parametrize(
    "options", [["--seconds", "0"], ["--seconds", "soon"], ["--seconds", "nan"], ["--threads", "0"]]
)
def test_wrong_options_are_usage_errors(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "MODEL", *options]) == 2
    assert "error:" in capsys.readouterr().err


def test_precisions_for_another_provider_are_left_out(two_precisions: Path) -> None:
    from fastembed_rt import manifest

    described = manifest.read(two_precisions)
    assert bench.precisions(described, "cpu", None) == ["fp32", "int8"]
    assert bench.precisions(described, "cuda", None) == ["fp32"]  # int8 is there for the cpu target only
    assert bench.precisions(described, "cpu", "int8") == ["int8"]


# What is measured


def test_the_worker_measures_in_this_process_too(
    two_precisions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker runs in a process of its own, which these calls repeat where a debugger and coverage see it."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    job = {
        "task": "embedding",
        "directory": str(two_precisions),
        "provider": "cpu",
        "threads": 2,
        "seconds": 0.2,
        "texts": None,
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**job, "precision": "fp32"})))
    assert bench_worker.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kernels"] == (native.kernels() or "float")
    assert sum(row["texts"] for row in found["lengths"].values()) == len(bench_worker.built_in_texts())
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**job, "precision": "fp16"})))
    assert bench_worker.main() == 0
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_buckets_hold_every_text_once_by_its_length() -> None:
    counts = [300, 1, 16, 17, 64, 65, 256, 257]
    found = bench_worker.buckets([str(count) for count in counts], counts)
    assert list(found) == ["1-16", "17-64", "65-256", "257+"]
    assert [[count for _, count in part] for part in found.values()] == [[1, 16], [17, 64], [65, 256], [257, 300]]
    assert all(text == str(count) for part in found.values() for text, count in part)
    assert list(bench_worker.buckets(["a"], [65])) == ["65-256"]


@pytest.mark.parametrize("share", [50, 95, 99])
@pytest.mark.parametrize("size", [100, 137, 2000])
def test_percentiles_are_nearest_ranks(share: int, size: int) -> None:
    values = np.random.default_rng(size).permutation(size).astype(float).tolist()
    assert bench_worker.percentile(values, share) == np.percentile(values, share, method="inverted_cdf")


def test_a_percentile_beyond_the_samples_is_none() -> None:
    assert bench_worker.percentile([1.0] * 99, 99) is None
    assert bench_worker.percentile([1.0] * 19, 95) is None
    assert bench_worker.percentile([1.0], 50) is None


@pytest.mark.parametrize(
    ("precision", "overflows", "wanted"),
    [("fp32", False, "float"), ("int8", False, "uint8 x int8"), ("int8", True, "uint8 x uint8")],
)
def test_kernels_are_named(precision: str, overflows: bool, wanted: str) -> None:
    assert bench_worker.kernels("cpu", precision, SimpleNamespace(), lambda _: overflows).startswith(wanted)


# The peak


def probe(operator: str) -> onnx.GraphProto:
    """The graph of a probe."""
    constants, fills = [], []

    def full(name: str, kind: type, *shape: int) -> None:
        value = numpy_helper.from_array(np.ones(1, kind))
        constants.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}s"))
        fills.append(helper.make_node("ConstantOfShape", [f"{name}s"], [name], value=value))

    if operator == "Bf16Linear":
        full("f", np.float32, peak.SIZE, peak.SIZE)
        fills.append(helper.make_node("Cast", ["f"], ["w"], to=TensorProto.BFLOAT16))
    else:
        full("w", np.float32 if operator in ("MatMul", "Fp32Linear") else np.int8, peak.SIZE, peak.SIZE)
    if operator == "MatMul":
        node = helper.make_node(operator, ["x", "w"], ["y"])
    elif operator == "MatMulIntegerToFloat":
        constants.append(numpy_helper.from_array(np.float32(1), "a"))
        node = helper.make_node(operator, ["x", "w", "a", "a"], ["y"], domain="com.microsoft")
    elif operator in ("Fp32Linear", "Bf16Linear"):
        full("b", np.float32, peak.SIZE)
        node = helper.make_node(operator, ["x", "w", "b"], ["y"], domain=native.DOMAIN, linear_layers=1)
    else:
        full("a", np.float32, peak.SIZE)
        rounding = {"linear_scale": 1.0, "linear_zero": 128, "linear_layers": 1}
        node = helper.make_node(operator, ["x", "w", "a", "a"], ["y"], domain=native.DOMAIN, **rounding)
    given = TensorProto.UINT8 if operator == "MatMulIntegerToFloat" else TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", given, [peak.SIZE] * 2)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [peak.SIZE] * 2)
    return helper.make_graph([*fills, node], "peak", [x], [y], constants)


@pytest.mark.parametrize("operator", sorted(peak.PROBES))
def test_the_probes_are_the_graphs_that_their_comment_says(operator: str) -> None:
    found = ModelProto.FromString(zlib.decompress(base64.b85decode(peak.PROBES[operator])))
    checker.check_model(found)
    assert found.graph == probe(operator)


def test_what_was_measured_is_printed_when_another_precision_fails(
    two_precisions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true = bench.measured

    def measured(job: dict[str, object]) -> dict[str, object]:
        if job["precision"] == "int8":
            raise KeyboardInterrupt
        return true(job)

    monkeypatch.setattr(bench, "measured", measured)
    assert cli.main(["bench", str(two_precisions), "--seconds", "0.2", "--json"]) == cli.INTERRUPTED
    printed = capsys.readouterr()
    assert [result["precision"] for result in json.loads(printed.out)["results"]] == ["fp32"]
    assert "interrupted" in printed.err


@pytest.mark.skipif(native.kernels() is None, reason="our own operators do not run here")
@pytest.mark.parametrize("precision", sorted(peak.OPERATORS))
def test_a_peak_is_the_faster_of_onnxruntimes_operator_and_ours(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(operator in peak.OWN for operator in peak.OPERATORS[precision])
    for operator in peak.OPERATORS[precision]:
        monkeypatch.setattr(peak, "_seconds", lambda ort, asked, *rest, fast=operator: 1 if asked == fast else 2)
        assert peak.gemm_peak(None, precision, 1) == 2 * peak.SIZE**3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_peak_is_beyond_what_plain_numpy_loops_reach(precision: str) -> None:
    found = peak.gemm_peak(load_onnxruntime(), precision, 1)
    assert found is not None
    assert 1e9 < found < 1e15  # a billion a second is one scalar product every other cycle


def test_no_peak_where_there_is_no_probe() -> None:
    assert peak.gemm_peak(load_onnxruntime(), "fp16", 1) is None


@pytest.mark.parametrize("file", ["model.onnx", "model.cpu.fp32.onnx", "model.cpu.int8.onnx"])
def test_products_are_counted_as_onnx_reads_the_graph(two_precisions: Path, file: str) -> None:
    model = onnx.load(str(two_precisions / file), load_external_data=False)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    wanted = sum(sizes.get(node.input[1], 0) for node in model.graph.node if node.op_type.encode() in peak.PRODUCTS)
    assert wanted >= 3 * (4 * 48 * 48 + 2 * 48 * 56)  # attention and feed-forward of three layers
    assert peak.products(two_precisions / file) == wanted


@pytest.mark.skipif(native.kernels() is None, reason="our own operators do not run here")
def test_our_own_operators_ask_for_the_same_products(two_precisions: Path) -> None:
    files = [two_precisions / f"model.{target}.int8.onnx" for target in ("native", "cpu")]
    assert peak.products(files[0]) == peak.products(files[1])


def test_dims_are_read_packed_or_not(tmp_path: Path) -> None:
    packed = bytes([0x0A, 0x03, 0x80, 0x08, 0x02, 0x42, 0x01, ord("w")])  # dims 1024 and 2 in one field, name w
    single = bytes([0x08, 0x80, 0x08, 0x08, 0x02, 0x42, 0x01, ord("w")])  # and in two
    node = bytes([0x0A, 1, ord("x"), 0x0A, 1, ord("w"), 0x22, 6]) + b"MatMul"
    for tensor in (packed, single):
        graph = bytes([0x0A, len(node)]) + node + bytes([0x2A, len(tensor)]) + tensor
        file = tmp_path / "model.onnx"
        file.write_bytes(bytes([0x3A, len(graph)]) + graph + bytes([0x0D, 0, 0, 0, 0]))  # and a 32-bit field
        assert peak.products(file) == 2048


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_while_a_worker_starts_is_one_line(two_precisions: Path, tmp_path: Path, terminal_signals: None) -> None:
    """The terminal sends it to all of a group; Python prints a traceback of what it was importing."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys, time\n"
        "if 'fastembed_rt.cli.bench_worker' in sys.orig_argv:\n"
        f"    pathlib.Path({str(tmp_path / 'starts')!r}).touch()\n"
        "    time.sleep(60)\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "fastembed_rt", "bench", str(two_precisions), "--seconds", "0.2"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "starts").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (cli.INTERRUPTED, b"fastembed-rt: error: interrupted\n")
