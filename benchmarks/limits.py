"""How far a model is from the machine: time by operator, and its products against the GEMM peak.

    python -m benchmarks.limits MODEL_DIR [--precision int8] [--threads 2] [--json]

The peak is what onnxruntime itself reaches on one large product of the same kind, in the same process and minute, on
one thread and on all; for int8, the better of its own operator and of ours. Only the linear layers count as work:
attention's own products depend on the lengths and are left out, so a share says how much of the time the machine's best
product would need for them.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastembed_rt import EmbeddingModel, FastembedRtError, batching, manifest, native
from fastembed_rt.manifest import Variant
from fastembed_rt.session import SLOWER_FUSIONS, load_onnxruntime, tune

SHAPES = {"short": [16] * 32, "long": [256] * 2}  # tokens of each text of a workload
ROUNDS = 40  # of the large product
PROFILED = 8  # of each batch under the profile
PEAK = 1024  # rows, and channels in and out, of the large product
PEAKS = ("fp32", "int8")  # precisions whose peak is measured
BATCH_TOKENS = 512  # about what the runtime hands to a graph at once
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a workload's tokens, by length of text: the batches that stand for it
KINDS = ("Gemm", "MatMul", "MatMulIntegerToFloat")  # operators that hold a linear layer's weights, as input 1
OWN_KINDS = ("QuantLinear", "QuantFeedForward", "QuantAttention")  # those that hold several, all that is int8

Feeds = dict[str, Any]


def options(precision: str, threads: int, *, profile: Path | None = None) -> Any:
    """Session options as the runtime sets them for a graph of the cpu target."""
    ort = load_onnxruntime()
    made = ort.SessionOptions()
    made.intra_op_num_threads = threads
    tune(made, ort, precision)
    if native.kernels() is not None:
        made.register_custom_ops_library(str(native.library()))
    if profile is not None:
        made.enable_profiling = True
        made.profile_file_prefix = str(profile)
    return made


def seconds(session: Any, feeds: Feeds, rounds: int = ROUNDS) -> float:
    """Least time of a run: what the machine can do when nothing disturbs it."""
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(None, feeds)
        samples.append(time.perf_counter() - start)
    return min(samples)


def peak(precision: str, threads: int = 1, size: int = PEAK) -> float:
    """Operations (2 per multiply-add) a second of one large product, by the fastest operator."""
    own = precision == "int8" and native.kernels() is not None
    return max(stock_peak(precision, threads, size), own_peak(threads, size) if own else 0.0)


def own_peak(threads: int, size: int) -> float:
    """The same by our own INT8 layer, which rounds its input too."""
    random = np.random.default_rng(0)
    shape = (size, size)
    weights = [
        numpy_helper.from_array(random.integers(-127, 128, shape, np.int8), "w"),
        numpy_helper.from_array(np.full(size, 0.01, np.float32), "s"),
        numpy_helper.from_array(np.zeros(size, np.float32), "b"),
    ]
    node = helper.make_node(
        "QuantLinear",
        ["x", "w", "s", "b"],
        ["y"],
        domain=native.DOMAIN,
        linear_scale=0.02,
        linear_zero=128,
        linear_layers=1,
    )
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([node], "peak", [given], [out], weights)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid(native.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    session = load_onnxruntime().InferenceSession(model.SerializeToString(), options("int8", threads))
    return 2 * size**3 / seconds(session, {"x": random.standard_normal(shape, np.float32)})


def stock_peak(precision: str, threads: int, size: int) -> float:
    """The same by onnxruntime's operator."""
    random = np.random.default_rng(0)
    shape = (size, size)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    if precision == "int8":
        weights = [
            numpy_helper.from_array(random.integers(-127, 128, shape, np.int8), "w"),
            numpy_helper.from_array(np.float32(0.01), "a"),
            numpy_helper.from_array(np.full(size, 0.01, np.float32), "b"),
            numpy_helper.from_array(np.uint8(128), "z"),
        ]
        given = helper.make_tensor_value_info("x", TensorProto.UINT8, shape)
        node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "a", "b", "z"], ["y"], domain="com.microsoft")
        feeds: Feeds = {"x": random.integers(0, 256, shape, np.uint8)}
    else:
        weights = [numpy_helper.from_array(random.standard_normal(shape, np.float32), "w")]
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        feeds = {"x": random.standard_normal(shape, np.float32)}
    graph = helper.make_graph([node], "peak", [given], [out], weights)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    session = load_onnxruntime().InferenceSession(model.SerializeToString(), options(precision, threads))
    return 2 * size**3 / seconds(session, feeds)


def peaks(precision: str, threads: int) -> dict[str, float]:
    """Peaks in units of 1e9 operations a second, as a record holds them."""
    return {
        "peak_gops_one_thread": peak(precision) / 1e9,
        "peak_gops_all_threads": peak(precision, threads) / 1e9,
    }


def products(path: Path) -> int:
    """Multiply-adds of the linear layers for one token: the sizes of their weights."""
    model = onnx.load(str(path), load_external_data=False)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    whole: int = sum(sizes.get(node.input[1], 0) for node in model.graph.node if node.op_type in KINDS)
    integers = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    own = [name for node in model.graph.node if node.op_type in OWN_KINDS for name in node.input if name in integers]
    return whole + sum(int(sizes[name]) for name in own)


def batches(lengths: Sequence[int], inputs: Sequence[str]) -> list[Feeds]:
    """Batches that stand for a workload, whose texts have these lengths: equal shares of its tokens, short to long.

    The ids are any that every vocabulary has: what a token costs does not depend on which it is.
    """
    random = np.random.default_rng(0)
    ordered = np.sort(np.asarray(lengths))
    places = np.searchsorted(np.cumsum(ordered), np.asarray(QUANTILES) * ordered.sum())
    made = []
    for length in ordered[places].tolist():
        rows = [random.integers(100, 200, length) for _ in range(max(1, BATCH_TOKENS // length))]
        made.append(dict(batching.feeds(rows, inputs, 0, np.zeros(len(rows), np.int64))))
    return made


def by_operator(path: Path, precision: str, runs: Sequence[Feeds], rounds: int = PROFILED) -> dict[str, float]:
    """Share of each operator in the time of these runs on one thread, by onnxruntime's profile; largest first."""
    totals: collections.Counter[str] = collections.Counter()
    for feeds in runs:
        with tempfile.TemporaryDirectory() as work:
            session = load_onnxruntime().InferenceSession(
                str(path), options(precision, 1, profile=Path(work) / "p"), disabled_optimizers=SLOWER_FUSIONS
            )
            for _ in range(rounds):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        nodes: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                nodes[event["args"]["op_name"], event["name"]].append(event["dur"])
        for (operator, _), samples in nodes.items():
            totals[operator] += int(1000 * statistics.median(samples))
    whole = sum(totals.values()) or 1
    return {operator: value / whole for operator, value in totals.most_common()}


def graphs(model_dir: Path) -> dict[str, tuple[Path, Variant]]:
    """The graph that the runtime takes on this machine, by precision."""
    with EmbeddingModel(model_dir) as first:
        precisions = list(dict.fromkeys(variant.precision for variant in first.manifest.variants))
    found = {}
    for precision in precisions:
        with EmbeddingModel(model_dir, precision=precision) as model:
            found[precision] = (model.path / model.variant.graph.file, model.variant)
    return found


def measure(
    model_dir: Path, lengths: Mapping[str, Sequence[int]], threads: int, precision: str | None = None
) -> dict[str, Any]:
    """Peaks by precision, and of each graph of the directory its work a token and its time by operator and workload."""
    found = {name: graph for name, graph in graphs(model_dir).items() if precision in (None, name)}
    most = manifest.read(model_dir).max_length
    return {
        "peaks": {name: peaks(name, threads) for name in PEAKS if precision in (None, name)},
        "multiply_adds": {name: products(path) for name, (path, _) in found.items()},
        "operators": {
            name: {
                workload: by_operator(path, name, batches([min(count, most) for count in counts], variant.inputs))
                for workload, counts in lengths.items()
            }
            for name, (path, variant) in found.items()
        },
    }


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when the model cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory")
    parser.add_argument("--precision", help="only this one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="all threads are so many")
    parser.add_argument("--lengths", type=Path, help="JSON: tokens of each text by workload (default: two simple ones)")
    parser.add_argument("--json", action="store_true", help="one line with everything")
    args = parser.parse_args(words)
    lengths = json.loads(args.lengths.read_text(encoding="utf-8")) if args.lengths else SHAPES
    try:
        found = measure(args.model, lengths, args.threads, args.precision)
    except FastembedRtError as error:
        print(json.dumps({"error": str(error)}) if args.json else f"error: {error}")
        return 2
    print(json.dumps(found) if args.json else described(found, args.threads), flush=True)
    return 0


def described(found: Mapping[str, Any], threads: int) -> str:
    """What was measured, for reading."""
    lines = [
        f"peak of one {precision} product of {PEAK}^3: {rates['peak_gops_one_thread']:.0f} GOP/s on one thread, "
        f"{rates['peak_gops_all_threads']:.0f} on {threads}"
        for precision, rates in found["peaks"].items()
    ]
    for precision, workloads in found["operators"].items():
        lines.append(
            f"\n{precision}: {found['multiply_adds'][precision] / 1e6:.2f} M multiply-adds a token in linear layers"
        )
        for workload, shares in workloads.items():
            lines.append(
                f"  {workload}: " + ", ".join(f"{name} {share:.1%}" for name, share in list(shares.items())[:8])
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
