"""`python -m benchmarks.inside.tokenizers FILE ...`: tokenizers in C beside the Rust library, for tokenizer.json files.

Prints of each what it takes to read it (seconds of processor time, megabytes that stay, without the file), and millions
of characters a second on one core: real texts where they are at hand (FASTEMBED_RT_DATA). Each run in a fresh
interpreter, in turn; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

DATA = Path(os.environ.get("FASTEMBED_RT_DATA", "../shared/data"))
CHILD = """
import json, sys, time
content, texts = open(sys.argv[2], "rb").read(), json.loads(sys.stdin.read())
import numpy
from fastembed_rt.text import bpe, tokenizer, unigram, wordpiece  # which of them it is, is part of the work
def resident(): return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
before, start = resident(), time.process_time()
if sys.argv[1] == "C":
    found = wordpiece.wordpiece(content) or bpe.bpe(content) or unigram.unigram(content)
    if not found: sys.exit("none")
    encode = lambda: sum(row is not None for row in found(texts, 512)[0])
else:
    from tokenizers import Tokenizer
    found = Tokenizer.from_buffer(content)
    found.no_padding(), found.enable_truncation(512)
    encode = lambda: len(found.encode_batch_fast(texts))
read, kept = time.process_time() - start, resident() - before
start = time.process_time(); done = encode()
print(json.dumps([read, kept, sum(map(len, texts)) / (time.process_time() - start) / 1e6, done]))
"""


def texts() -> list[str]:
    """Real texts where they are at hand, else made of English words."""
    file = DATA / "texts" / "paragraph_xquad_contexts.jsonl"
    if file.exists():
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [line if isinstance(line, str) else line["text"] for line in lines]
    from benchmarks.inside.apart import texts as made

    return made(2000)


def measure(how: str, file: str, given: str) -> list[float] | None:
    """Seconds, megabytes, millions of characters a second, texts that were done; None where C has not its kind."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, how, file],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "0"},
        check=False,
    )
    if "none" in done.stderr.splitlines()[-1:]:
        return None
    if done.returncode:
        sys.exit(done.stderr)
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="tokenizer.json")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    given = texts()
    for file in args.files:
        runs: dict[str, list[list[float]]] = {"C": [], "library": []}
        for _ in range(args.rounds):
            for how, found in runs.items():
                if (measured := measure(how, file, json.dumps(given))) is not None:
                    found.append(measured)
        print(file)
        for how, found in runs.items():
            if not found:
                print(f"  {how:<8} is not for it")
                continue
            read, kept, rate, done = (statistics.median(column) for column in zip(*found, strict=True))
            of = f"{done:.0f} of {len(given)} texts"
            print(f"  {how:<8} read in {read:.3f} s, {kept:4.0f} MB, {rate:5.1f} M characters/s, {of}")


if __name__ == "__main__":
    main()
