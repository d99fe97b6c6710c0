"""`make bench-instructions`: machine instructions of one call in this package's Python, counted by callgrind.

    python -m benchmarks.inside.instructions [--update] [--case NAME]

Times on a shared machine move by more than a regression does; a count of instructions does not. Tokenizer and session
are stand-ins (python_path.py). Each case runs with n and with 2n calls, and the difference is n calls without the
start. Exits with 1 when a count exceeds the committed one by more than TOLERANCE, with 0 and a line when it cannot
count here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import BenchmarkError
from .python_path import CASES, write_model

BASELINE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03  # counts repeat to a part in a thousand; patch releases of the interpreter differ by more
CALLS = 200
ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds for one count, which takes about ten

Counts = dict[str, int]


def environment() -> str:
    """What a count depends on: interpreter and numpy, to the minor version."""
    python, numpy = (".".join(version.split(".")[:2]) for version in (platform.python_version(), np.__version__))
    return f"{platform.python_implementation()} {python}, numpy {numpy}, {platform.machine()}"


def collected(directory: Path, case: str, calls: int) -> int:
    """Instructions of a whole process that makes so many calls, with the packages in `directory`.

    Raises:
        BenchmarkError: valgrind or the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.inside.python_path", str(directory), case, str(calls)]
    # Nothing of the caller's environment: neither its size nor a tracer in it may count. Without the first variable
    # strings hash anew in every process; without the second, numpy's BLAS has threads that spin.
    clean = {"PATH": os.defpath, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(directory)}
    out = directory / "callgrind.out"
    try:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *command],
            env={**clean, "PATH": os.environ.get("PATH", os.defpath)},
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{case}: no count after {PATIENCE:.0f} s") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if not line.startswith("==")]  # the others are valgrind's
        raise BenchmarkError(f"{case}: exit code {done.returncode}: {said[-1] if said else 'no message'}")
    return total(out)


def total(out: Path) -> int:
    """The sum at the end of a file that callgrind wrote.

    Raises:
        BenchmarkError: no such line.
    """
    for line in out.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "totals" and value.strip().isdecimal():
            return int(value)
    raise BenchmarkError(f"{out} has no total; is this valgrind's callgrind?")


def count(case: str, run: Callable[[Path, str, int], int] = collected) -> int:
    """Instructions of one call."""
    with tempfile.TemporaryDirectory() as work:
        directory = write_model(Path(work))
        # A copy: what is edited between two runs would be compiled in one of them.
        shutil.copytree(ROOT / "fastembed_rt", directory / "fastembed_rt", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "benchmarks/inside").mkdir(parents=True)
        shutil.copy(ROOT / "benchmarks/inside/python_path.py", directory / "benchmarks/inside")
        run(directory, case, 1)  # compiles
        once, twice = (run(directory, case, calls) for calls in (CALLS, 2 * CALLS))
    return round((twice - once) / CALLS)


def judge(found: Counts, wanted: Mapping[str, int] | None) -> tuple[list[str], bool]:
    """Lines of a table, and whether no count grew beyond the tolerance."""
    lines, sound = [], True
    width = max(map(len, found))
    for case, instructions in found.items():
        before = (wanted or {}).get(case)
        if before is None:
            verdict = "no baseline"
        else:
            change = instructions / before - 1
            grew = change > TOLERANCE
            sound = sound and not grew
            shrank = ": --update makes it the baseline" if change < -TOLERANCE else ""
            verdict = f"baseline {before:,}, {change:+.1%}" + (": GREW" if grew else shrank)
        lines.append(f"{case:<{width}}  {instructions:>10,} instructions a call  ({verdict})")
    return lines, sound


def main() -> int:
    """Count, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help=f"write the counts into {BASELINE.name}")
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all; repeatable")
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (apt-get install valgrind); nothing was counted")
        return 0
    baselines: dict[str, Counts] = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    here = environment()
    try:
        found = {case: count(case) for case in args.case or CASES}
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(here)
    if args.update:
        baselines[here] = {**baselines.get(here, {}), **found}
        BASELINE.write_text(json.dumps(baselines, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    elif here not in baselines:
        print(f"no baseline for it in {BASELINE.name} ({'; '.join(baselines) or 'empty'}); --update writes one")
    lines, sound = judge(found, baselines.get(here))
    print("\n".join(lines))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
