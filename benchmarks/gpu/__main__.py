"""`python -m benchmarks.gpu`: everything that a card can say of this package, into one record.

The tests that need a card and the doctor first; then checkpoints made on the spot, vectors beside torch; then engines
alone and every kernel in them, bits alone beside bits in a batch, what a first load measures and captures, texts of
mixed lengths, callers side by side, waits and rates. A contender that fails in a part is a line of the report, and
the part is measured without it. The record is written after every part: `--minutes` ends a run in time, and the same
command with the same `--out` goes on with what is left. README.md has the order of commands for a card.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fastembed_rt.errors import first_line

from . import checks, engines, mixes, peaks, profiling, timing
from . import record as record_of
from .candidates import (
    BOUND,
    BOUNDS,
    BY_HAND,
    ON_CPU,
    ON_GPU,
    Contender,
    ContenderError,
    Encode,
    failing,
    torch_model,
)
from .prepared import exported, prepared, say, workplace
from .shapes import POSITIONS, SHAPES, Shape, texts
from .timing import Plan

FORMAT = 1
RESULTS = Path(__file__).parent / "results"
WRONG = 4  # exit code: vectors of this package are not those of torch
MIXED = ("tiny", "minilm")  # shapes that texts of mixed lengths are measured with
CHECKED = 64  # texts of all lengths whose vectors are compared


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--shapes", default="minilm,base,large", help="of tiny, minilm, base, large")
    parser.add_argument(
        "--contenders",
        default="rt-cuda-fp16,rt-cuda-plain-fp16,st-fp16,st-fp16-compiled,by-hand-fp16",
        help=f"of {', '.join(ON_GPU)}",
    )
    parser.add_argument("--lengths", default="16,64,128,256,512", help="tokens of a text")
    parser.add_argument("--batches", default="1,8,32,128", help="texts that go together")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=262144, help="tokens in one throughput sample")
    parser.add_argument("--calls", type=int, default=300, help="single texts of each length")
    parser.add_argument("--minutes", type=float, help="after which nothing more is begun (default: no end)")
    parser.add_argument("--real", type=Path, help="checkpoint for texts of mixed lengths, instead of random weights")
    parser.add_argument("--data", help="folder with texts/ for --real")
    parser.add_argument("--no-tests", action="store_true", help="leave pytest -m gpu out")
    parser.add_argument("--out", type=Path, help="folder of record.json and report.md (default: in benchmarks/gpu)")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps checkpoints and graphs for later runs (default: none is kept)"
    )
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="make what --work keeps, and end: takes minutes of CPUs and needs no card",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="the same code with a tiny shape on CPUs: does it run at all?"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny shape on the card: does everything run there?")
    args = parser.parse_args(arguments)
    if args.prepare and args.work is None:
        parser.error("--prepare makes what --work names")
    if args.quick:
        args.shapes, args.lengths, args.batches = "tiny", "16,64", "1,8"
        args.rounds, args.tokens, args.calls, args.no_tests = 1, 1024, 5, True
    if args.dry_run:
        args.shapes, args.contenders = "tiny", ",".join(ON_CPU)
        args.lengths, args.batches, args.rounds, args.tokens, args.calls = "8,32", "1,4", 2, 128, 12
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measure; 0, or WRONG when a contender failed or its vectors were out of bounds."""
    args = parse(arguments)
    device = "cpu" if args.dry_run else "cuda"
    rows = ON_CPU if args.dry_run else ON_GPU
    contenders = {name: rows[name] for name in args.contenders.split(",")}
    if args.prepare:
        for name in args.shapes.split(","):
            with workplace(args.work, name) as work:
                prepared(SHAPES[name], contenders, work)
        return 0
    lengths, batches = (tuple(map(int, text.split(","))) for text in (args.lengths, args.batches))
    if max(lengths) > POSITIONS or min(lengths) < 3:
        raise SystemExit(f"--lengths {args.lengths} is not possible; texts have 3 to {POSITIONS} tokens")
    ends = time.monotonic() + 60 * (args.minutes or 1e9)
    plan = Plan(lengths=lengths, batches=batches, rounds=args.rounds, tokens=args.tokens, calls=args.calls, ends=ends)
    machine, versions = record_of.describe(device), record_of.versions()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = args.out or RESULTS / f"{started[:10]}-{record_of.short(machine['device'])}"
    folder.mkdir(parents=True, exist_ok=True)
    record = record_of.begun(folder, machine, versions)
    if record is None:
        say(f"measuring what {device} can do")
    record = record or {
        "format": FORMAT,
        "started": started,
        "dry_run": args.dry_run,
        "commands": [],
        "machine": machine,
        "versions": versions,
        "contenders": {},
        "doctor": checks.doctor(),
        "tests": None if args.dry_run or args.no_tests else run_tests(),
        "peaks": peaks.measure(device),
        "shapes": {},
        "failures": [],
    }
    given = arguments if arguments is not None else sys.argv[1:]
    record["commands"].append(shlex.join(["python", "-m", "benchmarks.gpu", *given]))
    record["contenders"] |= {
        name: {"title": row.title, "ours": row.ours, "bytes_per_weight": row.bytes_per_weight}
        for name, row in contenders.items()
    }
    record["left"] = []
    for name in args.shapes.split(","):
        if plan.over():
            record["left"].append(name)
            continue
        with workplace(args.work, name) as work:
            one_shape(SHAPES[name], contenders, plan, device, work, record, folder)
    if args.real:
        with workplace(args.work, f"real-{args.real.name}") as work:
            real_texts(args, contenders, plan, work, record, folder)
    print("\n".join(record_of.write(record, folder)))
    return WRONG if record["failures"] else 0


def one_shape(
    shape: Shape,
    contenders: dict[str, Contender],
    plan: Plan,
    device: str,
    work: Path,
    record: dict[str, Any],
    folder: Path,
) -> None:
    """Checkpoint, model directory, vectors beside torch in float32, then times of those that are right."""
    found = record["shapes"].setdefault(shape.name, {})
    checkpoint, directory = prepared(shape, contenders, work)
    cases = texts(shape, timing.mixed_lengths(plan.lengths, CHECKED))
    expected = torch_model(checkpoint, device, "float32").encode(cases, batch_size=16, show_progress_bar=False)
    encoders: dict[str, Encode] = {}
    fidelity = found.setdefault("fidelity", {})
    for name, row in contenders.items():
        say(f"{shape.name}: {row.title}")
        record["failures"] = [line for line in record["failures"] if not line.startswith(f"{shape.name}, {name}: ")]
        try:
            encode = row.open(checkpoint, directory)
            fidelity[name] = timing.fidelity(encode(cases, 16, max(plan.lengths)), expected)
        except Exception as error:  # noqa: BLE001  one that does not run here must not keep the others from it
            failed(record, f"{shape.name}, {name}: {type(error).__name__}: {first_line(error)}")
            continue
        if not fidelity[name]["min"] >= BOUNDS.get(name, BOUND):
            failed(record, f"{shape.name}, {name}: cosine {fidelity[name]['min']:.6f} to torch fp32, so not timed")
            continue
        encoders[name] = failing(name)(encode)
    say(f"{shape.name}: timing {', '.join(encoders) or 'nobody'}")
    on_card, longest = device == "cuda", max(plan.lengths)
    alone, seconds = (checks.ALONE, checks.SECONDS) if on_card else (8, 0.2)
    parts: dict[str, Callable[[dict[str, Encode]], Any]] = {
        "engines": lambda them: engines.measure(shape, list(them), directory, checkpoint, plan.rounds),
        "kernels": lambda them: profiling.measure(shape, list(them), directory, checkpoint, device),
        "bits": lambda them: checks.bits(shape, them, plan, count=alone),
        "loads": lambda them: checks.loads(list(them), directory, longest),
        "callers": lambda them: checks.callers(shape, them, contenders, plan, seconds),
        "latency": lambda them: timing.latency(shape, them, contenders, plan),
    }
    if not on_card:  # its own operators are not torch's: nothing is seen of them there
        parts["kernels"] = lambda them: profiling.measure(
            *(shape, [name for name in them if name in BY_HAND], directory, checkpoint, device)
        )
    if shape.name in MIXED:
        work_of = mixes.made(shape, plan.tokens)
        parts["mixes"] = lambda them: mixes.measure(work_of, them, contenders, plan)
    for name, part in parts.items():
        if name in found:
            continue
        if plan.over():
            record["left"].append(f"{shape.name}: {name}")
            continue
        say(f"{shape.name}: {name}")
        found[name] = measured(part, encoders, f"{shape.name}, {name}", record)
        record_of.write(record, folder)
    rows = found.setdefault("throughput", [])
    done = {(row["length"], row["batch"]) for row in rows}
    first = [(length, count) for count, length in engines.BATCHES.get(shape.name, ())]
    for length, batch in timing.cells(plan, first):
        if (length, batch) in done:
            continue
        if plan.over():
            record["left"].append(f"{shape.name}: throughput")
            break
        say(f"{shape.name}: {batch} x {length} tokens")
        rows += measured(
            partial(timing.throughput, shape, plan=plan, length=length, batch=batch),
            *(encoders, f"{shape.name}, {batch} x {length}", record),
        )
        record_of.write(record, folder)


def measured(part: Callable[[dict[str, Encode]], Any], encoders: dict[str, Encode], name: str, record: Any) -> Any:
    """A part of those contenders that go through with it; each that does not is a failure of the record."""
    left = dict(encoders)
    while True:
        try:
            return part(left)
        except ContenderError as error:
            failed(record, f"{name}: {error}")
            if left.pop(error.who, None) is None:
                raise
            release_memory()


def failed(record: dict[str, Any], line: str) -> None:
    """Note a failure, which stays in the record of the runs that go on with it."""
    if line not in record["failures"]:
        record["failures"].append(line)


def release_memory() -> None:
    """Give back what torch keeps of the card's memory: one that had too little must not leave the others less."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def real_texts(
    args: argparse.Namespace,
    contenders: dict[str, Contender],
    plan: Plan,
    work: Path,
    record: dict[str, Any],
    folder: Path,
) -> None:
    """Rates on real texts with a real checkpoint."""
    from ..data.workloads import data_folder

    name = f"real: {args.real.name}"
    if name in record["shapes"] or plan.over():
        record["left"] += [name] * (name not in record["shapes"])
        return
    directory = exported(contenders, args.real, work)
    encoders = {}
    for who, row in contenders.items():
        try:
            encoders[who] = failing(who)(row.open(args.real, directory))
            encoders[who](["one"], 1, mixes.MOST)
        except Exception as error:  # noqa: BLE001  as above
            failed(record, f"{name}, {who}: {type(error).__name__}: {first_line(error)}")
            encoders.pop(who, None)
    given = mixes.real(data_folder(args.data), plan.tokens)
    record["shapes"][name] = {
        "mixes": measured(lambda them: mixes.measure(given, them, contenders, plan), encoders, name, record)
    }
    record_of.write(record, folder)


def run_tests() -> dict[str, Any]:
    """The tests that need a card."""
    say("running the tests that need a card")
    return checks.tests()


if __name__ == "__main__":
    sys.exit(main())
