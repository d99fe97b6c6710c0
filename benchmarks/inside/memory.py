"""Whether memory stays flat: texts of random length, encoded over and over, with the resident set after each round.

python -m benchmarks.inside.memory MODEL_DIR [--texts 10000] [--rounds 50]
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

WORDS = "river light machine the of running query seven ! under, clock paper winter green signal".split()


def resident_mb() -> float:
    """Resident set of this process in MB; Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def texts(count: int, seed: int) -> list[str]:
    """Texts of 1 to 400 words, most of them short, as real traffic is."""
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=min(int(source.expovariate(1 / 25)) + 1, 400))) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--precision")
    args = parser.parse_args()
    from fastembed_rt import EmbeddingModel

    model = EmbeddingModel(args.model, precision=args.precision)
    seen = []
    for turn in range(args.rounds):
        batch = texts(args.texts, seed=turn)
        start = time.perf_counter()
        model.encode(batch)
        seconds = time.perf_counter() - start
        seen.append(resident_mb())
        print(f"round {turn + 1:>3}: {len(batch) / seconds:7.0f} texts/s, resident {seen[-1]:6.0f} MB", flush=True)
    warm = seen[len(seen) // 5]
    print(f"after warm-up {warm:.0f} MB, at the end {seen[-1]:.0f} MB, most {max(seen):.0f} MB")


if __name__ == "__main__":
    main()
