"""How far a model is from the machine: time by operator, and its products against the GEMM peak, one thread each.

    python -m benchmarks.limits MODEL_DIR [--precision int8]

The peak is what onnxruntime itself reaches on one large product of the same kind, in the same process and minute.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastembed_rt import EmbeddingModel, batching
from fastembed_rt.session import SLOWER_FUSIONS, load_onnxruntime, tune

SHAPES = {"short": (16, 32), "long": (256, 2)}  # tokens of a text, texts of a batch
ROUNDS = 40
PEAK = 1024  # rows, and channels in and out, of the large product


def options(*, profile: Path | None = None) -> Any:
    ort = load_onnxruntime()
    made = ort.SessionOptions()
    made.intra_op_num_threads = 1
    tune(made, ort, "int8")
    if profile is not None:
        made.enable_profiling = True
        made.profile_file_prefix = str(profile)
    return made


def seconds(session: Any, feeds: dict[str, Any], rounds: int = ROUNDS) -> float:
    """Median time of a run."""
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(None, feeds)
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def peak(precision: str) -> float:
    """Operations (2 per multiply-add) a second of one large product on one thread."""
    random = np.random.default_rng(0)
    size = (PEAK, PEAK)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, size)
    if precision == "int8":
        weights = [
            numpy_helper.from_array(random.integers(-127, 128, size, np.int8), "w"),
            numpy_helper.from_array(np.float32(0.01), "a"),
            numpy_helper.from_array(np.full(PEAK, 0.01, np.float32), "b"),
            numpy_helper.from_array(np.uint8(128), "z"),
        ]
        given = helper.make_tensor_value_info("x", TensorProto.UINT8, size)
        node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "a", "b", "z"], ["y"], domain="com.microsoft")
        feeds: dict[str, Any] = {"x": random.integers(0, 256, size, np.uint8)}
    else:
        weights = [numpy_helper.from_array(random.standard_normal(size, np.float32), "w")]
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, size)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        feeds = {"x": random.standard_normal(size, np.float32)}
    graph = helper.make_graph([node], "peak", [given], [out], weights)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    session = load_onnxruntime().InferenceSession(model.SerializeToString(), options())
    return 2 * PEAK**3 / seconds(session, feeds)


def products(path: Path) -> int:
    """Multiply-adds of the linear layers for one token: the sizes of their weights."""
    model = onnx.load(str(path), load_external_data=False)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    kinds = ("Gemm", "MatMul", "MatMulIntegerToFloat")
    return sum(sizes.get(node.input[1], 0) for node in model.graph.node if node.op_type in kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--precision")
    args = parser.parse_args()
    with EmbeddingModel(args.model, precision=args.precision) as model:
        path, precision = model.path / model.variant.graph.file, model.variant.precision
    ort = load_onnxruntime()
    random = np.random.default_rng(0)
    per_token = products(path)
    best = peak(precision)
    print(f"{path.name}: {per_token / 1e6:.2f} M multiply-adds a token in linear layers")
    print(f"peak of one {precision} product of {PEAK}^3: {best / 1e9:.0f} GOP/s on one thread")
    for name, (length, count) in SHAPES.items():
        feeds = dict(batching.packed([random.integers(1000, 2000, length) for _ in range(count)]))
        session = ort.InferenceSession(str(path), options(), disabled_optimizers=SLOWER_FUSIONS)
        whole = seconds(session, feeds)
        rate = 2 * per_token * length * count / whole
        print(f"\n{name}: {count} texts of {length} tokens in {whole * 1e3:.2f} ms")
        print(f"linear layers at the peak would take {rate / best:.0%} of that: how near the whole is to the peak")
        for operator, share in by_operator(path, feeds):
            print(f"  {operator:<24} {share:6.1%}")


def by_operator(path: Path, feeds: dict[str, Any]) -> list[tuple[str, float]]:
    """Share of each operator in a run, by onnxruntime's profile."""
    with tempfile.TemporaryDirectory() as work:
        session = load_onnxruntime().InferenceSession(
            str(path), options(profile=Path(work) / "p"), disabled_optimizers=SLOWER_FUSIONS
        )
        for _ in range(ROUNDS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"])
    totals: collections.Counter[str] = collections.Counter()
    for (operator, _), samples in nodes.items():
        totals[operator] += int(1000 * statistics.median(samples))
    whole = sum(totals.values())
    return [(operator, value / whole) for operator, value in totals.most_common(10)]


if __name__ == "__main__":
    main()
