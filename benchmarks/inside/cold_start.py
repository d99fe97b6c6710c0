"""`make cold`: what a process pays until it has a vector, each run in a fresh interpreter.

Prints medians and ranges in seconds: numpy, `import fastembed_rt` beyond numpy, loading the model, the first vector.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CHILD = """
import time; t = [time.perf_counter()]
import numpy; t.append(time.perf_counter())
import fastembed_rt; t.append(time.perf_counter())
from fastembed_rt import EmbeddingModel; t.append(time.perf_counter())
model = EmbeddingModel({path!r}); t.append(time.perf_counter())
model.encode("the first vector"); t.append(time.perf_counter())
print(*t)
"""
STEPS = ("numpy", "import fastembed_rt", "from fastembed_rt import EmbeddingModel", "load", "first vector")


def measure(path: str) -> dict[str, float]:
    """Seconds of each step in one fresh interpreter, and of the whole process as seen from outside."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD.format(path=path)], check=True, capture_output=True, text=True)
    whole = time.perf_counter() - start
    stamps = [float(stamp) for stamp in done.stdout.split()]
    steps = {step: stamps[k + 1] - stamps[k] for k, step in enumerate(STEPS)}
    return {**steps, "whole process": whole}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", nargs="?", default="all-MiniLM-L6-v2-onnx", help="model directory (make demo makes one)"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print all samples")
    args = parser.parse_args()
    measure(args.model)  # files into the page cache
    samples = [measure(args.model) for _ in range(args.rounds)]
    if args.json:
        print(json.dumps(samples))
        return
    for step in samples[0]:
        values = sorted(sample[step] for sample in samples)
        print(f"{step:<42} {statistics.median(values):.3f} s   ({values[0]:.3f} to {values[-1]:.3f})")


if __name__ == "__main__":
    main()
