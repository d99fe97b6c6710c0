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
    times = seconds(args.chunks, args.dim)
    p50, p95 = (1e3 * float(np.percentile(times, q)) for q in (50, 95))
    print(f"{args.chunks} chunks of {args.dim} int8 numbers: p50 {p50:.1f} ms, p95 {p95:.1f} ms, {ROUNDS} questions")
    return 0


def seconds(chunks: int, dim: int) -> list[float]:
    """Of each question."""
    made = np.random.default_rng(0)
    codes = made.integers(-127, 128, (chunks, dim), dtype=np.int8)
    scales = made.random(chunks, dtype=np.float32)
    questions = made.normal(size=(ROUNDS, dim)).astype(np.float32)
    best(scores(codes, scales, questions[0]), TOP)
    times = []
    for question in questions:
        start = time.perf_counter()
        best(scores(codes, scales, question), TOP)
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    raise SystemExit(main())
