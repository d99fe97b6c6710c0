"""`python -m benchmarks.gpu`: everything that a card can say of this package, into one record.

The tests that need a card and the doctor first; then checkpoints made on the spot, vectors beside torch, bits alone
beside bits in a batch; then engines alone, rates, waits and callers side by side.
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
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fastembed_rt.errors import FastembedRtError

from . import checks, engines, peaks, rates, timing
from .candidates import BOUND, BOUNDS, EXPORTS, ON_CPU, ON_GPU, Contender, Encode, torch_model
from .shapes import POSITIONS, SHAPES, Shape, make, texts
from .timing import Plan

FORMAT = 1
RESULTS = Path(__file__).parent / "results"
WRONG = 4  # exit code: vectors of this package are not those of torch
VERSIONS = ("fastembed-rt", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "sentence-transformers", "numpy")
CHECKED = 64  # texts of all lengths whose vectors are compared


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--shapes", default="minilm,base,large", help="of tiny, minilm, base, large")
    parser.add_argument(
        "--contenders",
        default="rt-cuda-fp16,rt-cuda-plain-fp16,st-fp16,st-fp16-compiled",
        help=f"of {', '.join(ON_GPU)}",
    )
    parser.add_argument("--lengths", default="16,64,128,256,512", help="tokens of a text")
    parser.add_argument("--batches", default="1,8,32,128", help="texts that go together")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=262144, help="tokens in one throughput sample")
    parser.add_argument("--calls", type=int, default=300, help="single texts of each length")
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
    plan = Plan(lengths=lengths, batches=batches, rounds=args.rounds, tokens=args.tokens, calls=args.calls)
    say(f"measuring what {device} can do")
    record: dict[str, Any] = {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "dry_run": args.dry_run,
        "command": shlex.join(
            ["python", "-m", "benchmarks.gpu", *(arguments if arguments is not None else sys.argv[1:])]
        ),
        "machine": describe(device),
        "versions": {name: _version(name) for name in VERSIONS},
        "contenders": {
            name: {"title": row.title, "ours": row.ours, "bytes_per_weight": row.bytes_per_weight}
            for name, row in contenders.items()
        },
        "doctor": checks.doctor(),
        "tests": None if args.dry_run or args.no_tests else run_tests(),
        "peaks": peaks.measure(device),
        "shapes": {},
        "failures": [],
    }
    for name in args.shapes.split(","):
        with tempfile.TemporaryDirectory() as work:
            record["shapes"][name] = one_shape(SHAPES[name], contenders, plan, device, Path(work), record["failures"])
    rates.summarize(record)
    folder = args.out or RESULTS / f"{record['started'][:10]}-{_short(record['machine']['device'])}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page = "\n".join(rates.markdown(record))
    (folder / "report.md").write_text(page + "\n", encoding="utf-8")
    print(page)
    return WRONG if record["failures"] else 0


def one_shape(
    shape: Shape, contenders: dict[str, Contender], plan: Plan, device: str, work: Path, failures: list[str]
) -> dict[str, Any]:
    """Checkpoint, model directory, vectors beside torch in float32, then times of those that are right."""
    from fastembed_rt_export.pipeline import ExportOptions, export

    say(f"{shape.name}: making a checkpoint and graphs")
    checkpoint = make(shape, work)
    wanted = [EXPORTS[name] for name in contenders if name in EXPORTS]
    targets, precisions = (tuple(dict.fromkeys(column)) for column in zip(*wanted, strict=True))
    options = ExportOptions(output=work / "model", targets=targets, precisions=precisions, verify=False)
    export(str(checkpoint), options)
    cases = texts(shape, timing.mixed_lengths(plan.lengths, CHECKED))
    expected = torch_model(checkpoint, device, "float32").encode(cases, batch_size=16, show_progress_bar=False)
    encoders: dict[str, Encode] = {}
    fidelity: dict[str, dict[str, float]] = {}
    for name, row in contenders.items():
        say(f"{shape.name}: {row.title}")
        try:
            encode = row.open(checkpoint, work / "model")
            fidelity[name] = timing.fidelity(encode(cases, 16, max(plan.lengths)), expected)
        except FastembedRtError as error:
            failures.append(f"{shape.name}, {name}: {error}")
            continue
        if not fidelity[name]["min"] >= BOUNDS.get(name, BOUND):
            failures.append(f"{shape.name}, {name}: cosine {fidelity[name]['min']:.6f} to torch fp32, so not timed")
            continue
        encoders[name] = encode
    say(f"{shape.name}: timing {', '.join(encoders) or 'nobody'}")
    return {
        "fidelity": fidelity,
        "bits": checks.bits(shape, encoders, plan, count=checks.ALONE if device == "cuda" else 8),
        "engines": engines.measure(shape, list(encoders), work / "model", plan.rounds),
        "callers": checks.callers(shape, encoders, plan, seconds=checks.SECONDS if device == "cuda" else 0.2),
        "throughput": timing.throughput(shape, encoders, plan),
        "latency": timing.latency(shape, encoders, plan),
    }


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
