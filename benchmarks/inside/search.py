"""Search in an index: milliseconds a question at many chunks.

    python -m benchmarks.inside.search [--chunks 100000] [--dim 384]

Times are of the comparison with all chunks and the choice of the best ten, without encoding the question. Quality:
benchmarks/precision/index_quality.py.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from fastembed_rt.search.codes import best, scores

ROUNDS, TOP = 50, 10


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    args = parser.parse_args()
    wall, cpu = (1e3 * np.percentile(times, (50, 95)) for times in seconds(args.chunks, args.dim))
    print(f"{args.chunks} chunks of {args.dim} int8 numbers, {ROUNDS} questions")
    print(f"p50 {wall[0]:.1f} ms, p95 {wall[1]:.1f} ms; of CPU time {cpu[0]:.1f} and {cpu[1]:.1f} ms")
    return 0


def seconds(chunks: int, dim: int) -> tuple[list[float], list[float]]:
    """Wall and CPU time of each question; they are far apart on a machine that does other things too."""
    made = np.random.default_rng(0)
    codes = made.integers(-127, 128, (chunks, dim), dtype=np.int8)
    scales = made.random(chunks, dtype=np.float32)
    questions = made.normal(size=(ROUNDS, dim)).astype(np.float32)
    best(scores(codes, scales, questions[0]), TOP)
    wall, cpu = [], []
    for question in questions:
        start, used = time.perf_counter(), time.process_time()
        best(scores(codes, scales, question), TOP)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return wall, cpu


if __name__ == "__main__":
    raise SystemExit(main())
