"""Search in an index: milliseconds a question at many chunks, and milliseconds until it is open.

    python -m benchmarks.inside.search [--chunks 100000] [--dim 384]

Times of a question are of the comparison with all chunks and the choice of the best ten, without encoding it. Times of
opening are of the file's settings and all its vectors, read out of the system's cache, without the model. Quality:
benchmarks/precision/index_quality.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.search import store
from fastembed_rt.search.codes import nearest

ROUNDS, TOP = 50, 10
OPENINGS = 10
TEXT = "The brown dog runs after the tram. " * 20  # of a chunk
CHUNKS_OF_A_FILE = 50


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    args = parser.parse_args()
    codes, scales = vectors(args.chunks, args.dim)
    wall, cpu = (1e3 * np.percentile(times, (50, 95)) for times in seconds(codes, scales))
    print(f"{args.chunks} chunks of {args.dim} int8 numbers, {ROUNDS} questions")
    print(f"p50 {wall[0]:.1f} ms, p95 {wall[1]:.1f} ms; of CPU time {cpu[0]:.1f} and {cpu[1]:.1f} ms")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / store.NAME
        written(path, codes, scales)
        opened = 1e3 * np.percentile(openings(path), (50, 95))
        size = path.stat().st_size / 1e6
    print(f"opened {OPENINGS} times, {size:.0f} MB: p50 {opened[0]:.0f} ms, p95 {opened[1]:.0f} ms")
    return 0


def vectors(chunks: int, dim: int) -> tuple[Any, Any]:
    """Codes (chunks, dim) int8 and scales (chunks,) float32."""
    made = np.random.default_rng(0)
    return made.integers(-127, 128, (chunks, dim), dtype=np.int8), made.random(chunks, dtype=np.float32)


def written(path: Path, codes: Any, scales: Any) -> None:
    """Write an index of these vectors, with a text each."""
    pa = store.pyarrow()
    chunks, dim = codes.shape
    settings = store.Settings(
        model="model",
        checkpoint="checkpoint",
        precision="int8",
        documents="documents",
        questions="questions",
        chunk_tokens=256,
        dim=dim,
        similarity="cosine",
    )
    tables = []
    for start in range(0, chunks, CHUNKS_OF_A_FILE):
        stop = min(start + CHUNKS_OF_A_FILE, chunks)
        places = [(k * len(TEXT), (k + 1) * len(TEXT), "line 1", f"{k} {TEXT}") for k in range(stop - start)]
        tables.append(store.rows(f"{start}.txt", places, codes[start:stop], scales[start:stop]))
    files = {f"{start}.txt": f"{start:064x}" for start in range(0, chunks, CHUNKS_OF_A_FILE)}
    store.write(path, store.Contents(settings, files, pa.concat_tables(tables)))


def openings(path: Path) -> list[float]:
    """Seconds of each opening, the first left out: pyarrow is imported by then."""
    times = []
    for _ in range(OPENINGS + 1):
        start = time.perf_counter()
        stored = store.Stored(path)
        stored.vectors()
        times.append(time.perf_counter() - start)
        stored.close()
    return times[1:]


def seconds(codes: Any, scales: Any) -> tuple[list[float], list[float]]:
    """Wall and CPU time of each question; they are far apart on a machine that does other things too."""
    questions = np.random.default_rng(1).normal(size=(ROUNDS, codes.shape[1])).astype(np.float32)
    nearest(codes, scales, questions[0], TOP)
    wall, cpu = [], []
    for question in questions:
        start, used = time.perf_counter(), time.process_time()
        nearest(codes, scales, question, TOP)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return wall, cpu


if __name__ == "__main__":
    raise SystemExit(main())
