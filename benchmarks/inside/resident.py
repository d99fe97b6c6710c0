"""What a model keeps resident, beside the bytes of its weights: alone, and in processes that load the same directory.

    python -m benchmarks.inside.resident MODEL_DIR [--precision int8] [--threads N] [--processes 2] [--texts 200]

Linux only: /proc/PID/smaps_rollup. `resident` counts pages that others share too; `own` is what no other process has,
and goes when the process ends; `part` divides shared pages by those who share them, so that a column of it adds up.
"bare" is the same process before it loads a model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fastembed_rt import manifest

from ..errors import BenchmarkError, printed
from ..report.table import table
from .memory import texts

FIELDS = {"resident": ("Rss:",), "own": ("Private_Clean:", "Private_Dirty:"), "part": ("Pss:",)}
STEPS = ("bare", "loaded", "one text", "many texts")
SECONDS = 600  # that a step may take


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--texts", type=int, default=200, help="of 1 to 400 words, in the call of many")
    return printed(measured, parser.parse_args(words))


def measured(args: argparse.Namespace) -> str:
    """The table."""
    if not Path("/proc/self/smaps_rollup").is_file():
        raise BenchmarkError("this needs /proc/self/smaps_rollup, which Linux has")
    weights = weight_bytes(args.model, args.precision)
    given = texts(args.texts, seed=0)
    alone = _run(args, given, 1)
    rows = [[step, *(_mb(alone[step][0][name]) for name in FIELDS)] for step in STEPS]
    together = _run(args, given, args.processes)[STEPS[-1]]
    rows += [
        [f"{STEPS[-1]}, process {k + 1} of {args.processes}", *(_mb(found[name]) for name in FIELDS)]
        for k, found in enumerate(together)
    ]
    added = alone[STEPS[-1]][0]["resident"] - alone["bare"][0]["resident"]
    shown: str = table(["MB", *FIELDS], rows)
    return f"{shown}\n\nweights {_mb(weights)} MB; the model adds {_mb(added)} MB, {added / weights:.2f} times that"


def weight_bytes(model: Path, precision: str) -> int:
    """Of the files that a graph of this precision is read from: the smallest set, where there are several targets."""
    variants = manifest.read(model).variants
    found = [sum(record.size for record in row.files) for row in variants if row.precision == precision]
    if not found:
        raise BenchmarkError(f"{model} has no {precision}")
    return min(found)


def _run(args: argparse.Namespace, given: Sequence[str], count: int) -> dict[str, list[dict[str, int]]]:
    """Bytes after each step, by process; all take a step before any takes the next."""
    command = [sys.executable, "-c", CHILD, str(args.model), args.precision, str(args.threads or "")]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    found: dict[str, list[dict[str, int]]] = {}
    try:
        for child in children:
            _tell(child, repr(list(given)))
        for step in STEPS:
            for child in children:
                _tell(child, step)
                if child.stdout.readline() != "done\n":  # type: ignore[union-attr]
                    raise BenchmarkError(f"a process ended at: {step}")
            found[step] = [memory(child.pid) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait(SECONDS)
    return found


def _tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process under the names of FIELDS."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    numbers = {words[0]: int(words[1]) * 1024 for line in lines if len(words := line.split()) == 3}
    return {name: sum(numbers[field] for field in fields) for name, fields in FIELDS.items()}


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f}"


CHILD = """
import ast, sys
import fastembed_rt, numpy
path, precision, threads = sys.argv[1:]
texts = ast.literal_eval(sys.stdin.readline())
model = None
def loaded():
    global model
    model = fastembed_rt.EmbeddingModel(path, precision=precision, threads=int(threads) if threads else None)
steps = {
    "bare": lambda: None,
    "loaded": loaded,
    "one text": lambda: model.encode(texts[0]),
    "many texts": lambda: [model.encode(texts) for _ in range(2)],
}
for line in sys.stdin:
    steps[line.strip()]()
    print("done", flush=True)
"""


if __name__ == "__main__":
    sys.exit(main())
