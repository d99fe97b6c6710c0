"""How far a model is from the machine: time by operator, and its products against the GEMM peak.

    python -m benchmarks.inside.limits MODEL_DIR [--precision int8] [--threads 2] [--json]

The peak is what one large product of the same kind reaches, in the same process and minute, on one thread and on all,
by the fastest of onnxruntime's operators and ours. Only the linear layers count as work:
attention's own products depend on the lengths and are left out, so a share says how much of the time the machine's best
product would need for them.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt import EmbeddingModel, FastembedRtError, manifest, native
from fastembed_rt.cli.peak import OPERATORS, SIZE, gemm_peak, products
from fastembed_rt.manifest import Variant
from fastembed_rt.run import batching
from fastembed_rt.run.session import SLOWER_FUSIONS, load_onnxruntime, tune

SHAPES = {"short": [16] * 32, "long": [256] * 2}  # tokens of each text of a workload
ROUNDS = 40  # of the large product
PROFILED = 8  # of each batch under the profile
PEAKS = tuple(OPERATORS)  # precisions whose peak is measured
BATCH_TOKENS = 512  # about what the runtime hands to a graph at once
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a workload's tokens, by length of text: the batches that stand for it

Feeds = dict[str, Any]


def profiled(precision: str, prefix: Path) -> Any:
    """Session options as the runtime sets them for a graph of the cpu target, for one thread and with a profile."""
    ort = load_onnxruntime()
    made = ort.SessionOptions()
    made.intra_op_num_threads = 1
    tune(made, ort, integers=precision == "int8")
    if native.kernels() is not None:
        made.register_custom_ops_library(str(native.library()))
    made.enable_profiling = True
    made.profile_file_prefix = str(prefix)
    return made


def peaks(precision: str, threads: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Peaks in units of 1e9 operations (2 for a multiply and an add) a second, as a record holds them."""
    rates = {"one_thread": 1, "all_threads": threads}
    found = {name: gemm_peak(load_onnxruntime(), precision, count, rounds) for name, count in rates.items()}
    return {f"peak_gops_{name}": rate / 1e9 for name, rate in found.items() if rate is not None}


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
                str(path), profiled(precision, Path(work) / "p"), disabled_optimizers=SLOWER_FUSIONS
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
    model_dir: Path,
    lengths: Mapping[str, Sequence[int]],
    threads: int,
    precision: str | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Peaks by precision, and of each graph of the directory its work a token and its time by operator and workload."""
    found = {name: graph for name, graph in graphs(model_dir).items() if precision in (None, name)}
    most = manifest.read(model_dir).max_length
    return {
        "peaks": {
            name: rates  # none of a precision that only our operators have, where they do not run
            for name in PEAKS
            if precision in (None, name) and (rates := peaks(name, threads, rounds))
        },
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
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the large product (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line with everything")
    args = parser.parse_args(words)
    lengths = json.loads(args.lengths.read_text(encoding="utf-8")) if args.lengths else SHAPES
    try:
        found = measure(args.model, lengths, args.threads, args.precision, args.rounds)
    except FastembedRtError as error:
        print(json.dumps({"error": str(error)}) if args.json else f"error: {error}")
        return 2
    print(json.dumps(found) if args.json else described(found, args.threads), flush=True)
    return 0


def described(found: Mapping[str, Any], threads: int) -> str:
    """What was measured, for reading."""
    lines = [
        f"peak of one {precision} product of {SIZE}^3: {rates['peak_gops_one_thread']:.0f} GOP/s on one thread, "
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
