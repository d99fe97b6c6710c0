"""`python -m benchmarks.gpu`: everything that a card can say of this package, into one record.

The tests that need a card and the doctor first; then checkpoints made on the spot, vectors beside torch, bits alone
beside bits in a batch; then engines alone, texts of mixed lengths, callers side by side, waits and rates. The record is
written after every part: `--minutes` ends a run in time, and the same command with the same `--out` goes on with what
is left. README.md has the order of commands for a card.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fastembed_rt.errors import first_line

from . import checks, engines, mixes, peaks, rates, timing
from .candidates import BOUND, BOUNDS, EXPORTS, ON_CPU, ON_GPU, Contender, Encode, torch_model
from .shapes import POSITIONS, SHAPES, Shape, make, texts
from .timing import Plan

FORMAT = 1
RESULTS = Path(__file__).parent / "results"
WRONG = 4  # exit code: vectors of this package are not those of torch
VERSIONS = ("fastembed-rt", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "sentence-transformers", "numpy")
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
        "--dry-run", action="store_true", help="the same code with a tiny shape on CPUs: does it run at all?"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny shape on the card: does everything run there?")
    args = parser.parse_args(arguments)
    if args.quick:
        args.shapes, args.lengths, args.batches = "tiny", "16,64", "1,8"
        args.rounds, args.tokens, args.calls, args.no_tests = 1, 1024, 5, True
    if args.dry_run:
        args.shapes, args.contenders = "tiny", ",".join(ON_CPU)
        args.lengths, args.batches, args.rounds, args.tokens, args.calls = "8,32", "1,4", 2, 128, 12
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measure; 0, or WRONG when a contender's vectors were out of bounds."""
    args = parse(arguments)
    device = "cpu" if args.dry_run else "cuda"
    rows = ON_CPU if args.dry_run else ON_GPU
    contenders = {name: rows[name] for name in args.contenders.split(",")}
    lengths, batches = (tuple(map(int, text.split(","))) for text in (args.lengths, args.batches))
    if max(lengths) > POSITIONS or min(lengths) < 3:
        raise SystemExit(f"--lengths {args.lengths} is not possible; texts have 3 to {POSITIONS} tokens")
    ends = time.monotonic() + 60 * (args.minutes or 1e9)
    plan = Plan(lengths=lengths, batches=batches, rounds=args.rounds, tokens=args.tokens, calls=args.calls, ends=ends)
    machine, versions = describe(device), {name: _version(name) for name in VERSIONS}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = args.out or RESULTS / f"{started[:10]}-{_short(machine['device'])}"
    folder.mkdir(parents=True, exist_ok=True)
    record = begun(folder, machine, versions)
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
    record["failures"], record["left"] = [], []
    for name in args.shapes.split(","):
        if plan.over():
            record["left"].append(name)
            continue
        with tempfile.TemporaryDirectory() as work:
            one_shape(SHAPES[name], contenders, plan, device, Path(work), record, folder)
    if args.real:
        with tempfile.TemporaryDirectory() as work:
            real_texts(args, contenders, plan, Path(work), record, folder)
    print("\n".join(write(record, folder)))
    return WRONG if record["failures"] else 0


def begun(folder: Path, machine: dict[str, Any], versions: dict[str, str | None]) -> dict[str, Any] | None:
    """The record of an earlier run in this folder that this one goes on with.

    Raises:
        SystemExit: it is of another machine, or of other versions.
    """
    file = folder / "record.json"
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for what, now in (("machine", machine), ("versions", versions)):
        different = [key for key in now if record[what].get(key) != now[key]]
        if different:
            raise SystemExit(f"{file} is of other {what} ({', '.join(different)}); pass another --out")
    return record


def write(record: dict[str, Any], folder: Path) -> list[str]:
    """Put the record and its page into the folder; the page's lines."""
    rates.summarize(record)
    file = folder / "record.json"
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    lines = list(rates.markdown(record))
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def exported(contenders: dict[str, Contender], checkpoint: Path, work: Path) -> Path:
    """The checkpoint as a model directory with what the contenders need."""
    from fastembed_rt_export.pipeline import ExportOptions, export

    wanted = [EXPORTS[name] for name in contenders if name in EXPORTS]
    if wanted:
        targets, precisions = (tuple(dict.fromkeys(column)) for column in zip(*wanted, strict=True))
        options = ExportOptions(output=work / "model", targets=targets, precisions=precisions, verify=False)
        export(str(checkpoint), options)
    return work / "model"


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
    say(f"{shape.name}: making a checkpoint and graphs")
    checkpoint = make(shape, work)
    directory = exported(contenders, checkpoint, work)
    cases = texts(shape, timing.mixed_lengths(plan.lengths, CHECKED))
    expected = torch_model(checkpoint, device, "float32").encode(cases, batch_size=16, show_progress_bar=False)
    encoders: dict[str, Encode] = {}
    fidelity = found.setdefault("fidelity", {})
    for name, row in contenders.items():
        say(f"{shape.name}: {row.title}")
        try:
            encode = row.open(checkpoint, directory)
            fidelity[name] = timing.fidelity(encode(cases, 16, max(plan.lengths)), expected)
        except Exception as error:  # noqa: BLE001  one that does not run here must not keep the others from it
            record["failures"].append(f"{shape.name}, {name}: {type(error).__name__}: {first_line(error)}")
            continue
        if not fidelity[name]["min"] >= BOUNDS.get(name, BOUND):
            record["failures"].append(
                f"{shape.name}, {name}: cosine {fidelity[name]['min']:.6f} to torch fp32, so not timed"
            )
            continue
        encoders[name] = encode
    say(f"{shape.name}: timing {', '.join(encoders) or 'nobody'}")
    parts: dict[str, Callable[[], Any]] = {
        "engines": lambda: engines.measure(shape, list(encoders), directory, checkpoint, plan.rounds),
        "bits": lambda: checks.bits(shape, encoders, plan, count=checks.ALONE if device == "cuda" else 8),
        "callers": lambda: checks.callers(shape, encoders, plan, seconds=checks.SECONDS if device == "cuda" else 0.2),
        "latency": lambda: timing.latency(shape, encoders, plan),
    }
    if shape.name in MIXED:
        work_of = mixes.made(shape, plan.tokens)
        parts["mixes"] = lambda: mixes.measure(work_of, encoders, contenders, plan.rounds)
    for name, part in parts.items():
        if name in found:
            continue
        if plan.over():
            record["left"].append(f"{shape.name}: {name}")
            continue
        say(f"{shape.name}: {name}")
        found[name] = part()
        write(record, folder)
    rows = found.setdefault("throughput", [])
    rows += timing.throughput(shape, encoders, plan, rows)
    done = {(row["length"], row["batch"]) for row in rows}
    if len(done) < len(plan.lengths) * len(plan.batches):
        record["left"].append(f"{shape.name}: throughput")
    write(record, folder)


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
    say(f"{name}: making graphs")
    directory = exported(contenders, args.real, work)
    encoders = {}
    for who, row in contenders.items():
        try:
            encoders[who] = row.open(args.real, directory)
            encoders[who](["one"], 1, mixes.MOST)
        except Exception as error:  # noqa: BLE001  as above
            record["failures"].append(f"{name}, {who}: {type(error).__name__}: {first_line(error)}")
            encoders.pop(who, None)
    given = mixes.real(data_folder(args.data), plan.tokens)
    record["shapes"][name] = {"mixes": mixes.measure(given, encoders, contenders, plan.rounds)}
    write(record, folder)


def run_tests() -> dict[str, Any]:
    """The tests that need a card."""
    say("running the tests that need a card")
    return checks.tests()


def describe(device: str) -> dict[str, Any]:
    """The machine, as far as it decides times."""
    import torch

    from fastembed_rt import machine

    facts = machine.describe()
    found: dict[str, Any] = {
        "device": facts.cpu.model,
        "cpu": facts.cpu.model,
        "cpus": facts.threads,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("torch sees no GPU; run fastembed-rt doctor, or pass --dry-run to try the code on CPUs")
        properties = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        try:
            listed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        except OSError:
            listed = ""
        found |= {
            "device": properties.name,
            "memory": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "torch_cuda": torch.version.cuda,
            "driver, clock, power": listed,
        }
    return found


def say(line: str) -> None:
    """Progress, beside the rates."""
    print(line, file=sys.stderr, flush=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _short(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower().replace("nvidia", "")).strip("-") or "device"


if __name__ == "__main__":
    sys.exit(main())
