"""A record with every part filled in: the committed one's real values, and made-up ones where it has none.

For tests of reports and comparisons only; nothing here was measured.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from benchmarks.report import records
from benchmarks.report.figures import speed

COMMITTED = Path(__file__).parents[1] / "benchmarks" / "results" / "2026-11-23-minilm-2-cores.json"
LENGTHS = (8, 16, 32, 64, 128, 256)


def full(path: Path = COMMITTED, seed: int = 0) -> dict[str, Any]:
    """Twelve contenders, two of them failed, in format 2."""
    draw = random.Random(seed)
    record = records.read(path)
    record["format"] = 2
    _add_contenders(record)
    for length in LENGTHS:
        record["workloads"][f"length-{length}"] = {
            "title": f"texts of {length} tokens",
            "texts": 128,
            "tokens": 128 * length,
            "sha256": f"{length:064d}",
            "group": "length",
            "length": length,
        }
    for name in records.names(record):
        short, long = speed(record, name, "short"), speed(record, name, "long")
        assert short is not None
        assert long is not None
        record["contenders"][name]["invariance"] = {"alone": 1e-7, "order": 2e-8}
        for number in range(3):
            _fill(record, draw, name, number, (short, long))
    ours = records.names(record, ours=True)
    record["quality"] = {
        "tasks": [
            {
                "name": task,
                "metric": metric,
                "contenders": {n: base + draw.gauss(0, 0.2) * (n == "rt-int8") for n in ("st-torch", *ours)},
            }
            for task, metric, base in (
                ("STS-B dev (en)", "spearman", 86.72),
                ("SICK test", "spearman", 77.58),
                ("xquad-en", "ndcg@10", 94.33),
                ("xquad-en", "recall@10", 98.1),
                ("scifact", "ndcg@10", 64.5),
            )
        ],
        "skipped": [{"name": "nfcorpus", "reason": "no folder of that name"}],
    }
    operators = ("MatMulIntegerToFloat", "Attention", "LayerNormalization", "Gelu", "Gather", "QuantizeLinear", "Add")
    more = ("Softmax", "Transpose", "Reshape", "TopK", "ScatterND")
    weights = [2.0**-k for k in range(len(operators) + len(more))]
    record["limits"] = {
        "fp32": {"peak_gops_one_thread": 118.0, "peak_gops_all_threads": 230.0},
        "int8": {"peak_gops_one_thread": 402.0, "peak_gops_all_threads": 770.0},
        "shares": {
            n: {w: {"gops": 0.5 * p, "share": 0.5 - 0.05 * k} for k, w in enumerate(("short", "mixed", "long"))}
            for n, p in zip(ours, (118.0, 402.0), strict=True)
        },
        "operators": {
            n: {
                w: {o: x / sum(weights) for o, x in zip(operators + more, weights, strict=True)}
                for w in ("short", "long")
            }
            for n in ours
        },
    }
    return record


def _add_contenders(record: dict[str, Any]) -> None:
    """A third fp32 runtime on the plain graph, and two that failed."""
    rows = record["contenders"]
    extra = json.loads(json.dumps(rows["fastembed"])) | {"title": "light-embed, same fp32 ONNX"}
    ours = {name: rows.pop(name) for name in ("rt-fp32", "rt-int8")}
    rows["light-embed"] = extra
    bad = {"environment": {"name": "embed-anything", "steps": []}, "ours": False, "precision": "fp32"}
    rows["st-onnx"] = bad | {
        "title": "sentence-transformers, ONNX fp32",
        "status": "failed",
        "reason": "encode: ended with exit code 3 <&>",
    }
    rows["embed-anything"] = bad | {
        "title": "embed-anything, candle",
        "status": "failed",
        "reason": "installing embed-anything: ERROR: No matching distribution found for embed_anything==0.7.1",
    }
    rows |= ours
    for key in ("samples", "latencies", "cold"):
        same = [row for row in record[key] if row["contender"] == "fastembed"]
        record[key] += [row | {"contender": "light-embed"} for row in same]


def _fill(record: dict[str, Any], draw: random.Random, name: str, number: int, speeds: tuple[float, float]) -> None:
    """One round of every list that the second format adds, around the contender's measured speeds."""

    def noisy() -> float:
        return math.exp(draw.gauss(0, 0.02))

    short, long = speeds
    where = {"contender": name, "round": number, "position": 0}
    quiet = {"wall": 1.0, "own_cpu": 1.0, "other_cpu": 0.0}
    for length in LENGTHS:
        share = math.log(length / 8) / math.log(32)
        texts = short ** (1 - share) * long**share
        row = {"workload": f"length-{length}", "texts": 128, "seconds": 128 / texts * noisy()}
        record["samples"].append(where | row | quiet)
    single = [row["seconds"] for row in record["latencies"] if row["contender"] == name][number]
    for batch in (1, 4, 16, 64, 256):
        seconds = 256 / (short * batch / (batch + 8)) * noisy()
        record["batches"].append(
            where | {"workload": "mixed-small", "batch": batch, "texts": 256, "tokens": 13_000, "seconds": seconds}
        )
    for threads in (1, 2):
        gain = threads**0.8 / 2**0.8
        row = {"workload": "scaling", "threads": threads, "texts": 500, "seconds": 500 / (short * gain) * noisy()}
        record["scaling"].append(where | row | {"single": [second / gain for second in single[:50]]})
    for callers in (1, 2, 4, 8, 16):
        waited = [second * max(1, callers / 2) ** 0.9 * noisy() for second in single]
        record["concurrent"].append(
            {"contender": name, "callers": callers, "round": number, "wall": sum(waited) / callers, "seconds": waited}
        )
