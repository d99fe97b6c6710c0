"""Long jobs: rows/s of `embed --shards` beside `encode` and other ways, memory, and how soon a killed job goes on.

python -m benchmarks.bulk MODEL_DIR --checkpoint DIR [--rows 1000000] [--ways encode,bulk,...] [--out FILE]

Rows are questions with a number behind them, so that none comes twice. Ways other than this project's do --others-rows
of them: they would take hours for all. Each way runs in a fresh process, in an environment of its own, --rounds times
in turn; the table shows medians. CPU seconds are those of the way's own process, without those that it starts (Ray's
actors, fastembed's workers); other programs on the machine change them less than its seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastembed_rt import manifest

from ..compare import conditions, environments
from ..compare.adapters.plain_tokenizer import onnx_folder
from ..compare.adapters.server import Options
from ..compare.contenders import TORCH, Environment
from ..compare.environments import PROJECT
from ..data import workloads
from ..errors import BenchmarkError, ContenderError
from .ways import SAMPLED, WAYS, resident

OURS = ("encode", "bulk")
RESUMED = "resumed"  # of --ways: a job that is killed at 90 % and resumed
WARM = 0.1  # share of a run after which memory should not grow any more
KILLED_AT = 0.9  # share of the rows
ENVIRONMENTS = {
    "st-datasets": Environment(
        name="bulk-datasets", steps=(TORCH, (*TORCH, "sentence-transformers==6.2.0", "datasets", "pyarrow"))
    ),
    "ray-st": Environment(
        name="bulk-ray", steps=(TORCH, (*TORCH, "sentence-transformers==6.2.0", "ray[data]", "pyarrow"))
    ),
    "fastembed-parallel": Environment(name="bulk-fastembed", steps=(("fastembed==0.9.1", "pyarrow"),)),
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help="of fastembed-rt, with fp32 and int8")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the sentence-transformers directory it is of")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--others-rows", type=int, default=20_000)
    parser.add_argument("--ways", default=",".join([*WAYS, RESUMED]), help="of these (default: all)")
    parser.add_argument("--precision", default="int8", help="of this project's ways (default: int8)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--part-rows", type=int, default=16_384)
    parser.add_argument("--data", help=f"folder with texts/ (default: ${workloads.DATA_VARIABLE})")
    parser.add_argument("--out", type=Path, default=Path("build/bulk.json"), help="record (default: build/bulk.json)")
    parser.add_argument("--environments", type=Path, default=environments.ROOT, help="where they are, or are made")
    parser.add_argument("--python", action="append", default=[], metavar="WAY=PYTHON", help="use this; no installing")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, write the record, print the table."""
    args = arguments(words)
    try:
        record = measure(args)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(render(record))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All ways in turn, then a job that is killed and resumed.

    Raises:
        BenchmarkError: a way that is not known, or no texts.
    """
    ways = args.ways.split(",")
    if unknown := sorted(set(ways) - {*WAYS, RESUMED}):
        raise BenchmarkError(f"unknown way {', '.join(unknown)}; there are {', '.join([*WAYS, RESUMED])}")
    record: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": conditions.commit(PROJECT),
        "machine": conditions.describe(),
        "settings": {
            name: getattr(args, name) for name in ("rows", "others_rows", "precision", "threads", "rounds", "part_rows")
        },
        "samples": [],
        "failed": {},
        "loads": [],
    }
    pythons = dict(word.split("=", 1) for word in args.python)
    with tempfile.TemporaryDirectory(prefix="bulk-") as scratch:
        folder = Path(scratch)
        sources = {count: write_rows(folder, count, args.data) for count in {args.rows, args.others_rows}}
        for number in range(args.rounds):
            for name in ways[number % len(ways) :] + ways[: number % len(ways)]:
                if name in record["failed"] or name == RESUMED:
                    continue
                record["loads"].append(conditions.load())
                source = sources[args.rows if name in OURS else args.others_rows]
                try:
                    python = pythons.get(name) or _python(name, args.environments)
                    found = run(python, name, given(args, name, source, folder / f"{name}-{number}"))
                except ContenderError as error:
                    record["failed"][name] = str(error)
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
                    continue
                finally:
                    shutil.rmtree(folder / f"{name}-{number}", ignore_errors=True)
                print(f"{name}: {found['rows'] / found['seconds']:.0f} rows/s", file=sys.stderr, flush=True)
                record["samples"].append({"way": name, "round": number, **found})
        if RESUMED in ways:
            python = pythons.get("bulk", sys.executable)
            record["resumed"] = resume(python, given(args, "bulk", sources[args.rows], folder / "killed"), args.rows)
    return record


def write_rows(folder: Path, count: int, data: str | None) -> Path:
    """Questions, each with a number that makes it another text: a Parquet file with id and text."""
    import pyarrow
    import pyarrow.parquet

    file = workloads.data_folder(data) / "texts" / workloads.QUESTIONS[0]
    questions = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [f"{questions[k % len(questions)]} {k}" for k in range(count)]
    path = folder / f"rows-{count}.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": range(count), "text": texts}), path, row_group_size=50_000)
    return path


def given(args: argparse.Namespace, name: str, source: Path, target: Path) -> dict[str, Any]:
    """What a way is told."""
    made: dict[str, Any] = {
        "source": str(source),
        "target": str(target),
        "model": str(args.model_dir.resolve()),
        "checkpoint": str(args.checkpoint.resolve()),
        "precision": args.precision,
        "threads": args.threads,
        "words": ["--part-rows", str(args.part_rows)],
    }
    if name == "fastembed-parallel":
        described = manifest.read(args.model_dir)
        options = Options(
            checkpoint=made["checkpoint"],
            model_dir=made["model"],
            prepared=f"{target}-model",
            calibration="",
            max_length=described.max_length,
            threads=args.threads,
            cpus=(),
        )
        Path(options.prepared).mkdir()
        onnx_folder(options, Path(options.prepared))
        made |= {"prepared": options.prepared, "dim": described.dim}
    return made


def run(python: str, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """One way in a fresh process.

    Raises:
        ContenderError: it failed; the message ends with its last line.
    """
    command = [python, "-m", "benchmarks.bulk.ways", name, json.dumps(about)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise ContenderError(f"{name} ended with {done.returncode}: {lines[-1][:300]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def resume(python: str, about: dict[str, Any], rows: int) -> dict[str, Any]:
    """Kill a job when 90 % of its parts are there, and see how soon another process encodes its first text."""
    per_part = int(about["words"][1])
    enough = int(rows / per_part * KILLED_AT)
    command = [python, "-m", "benchmarks.bulk.ways", "bulk", json.dumps(about)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = Path(about["target"]) / "_embed" / "00000-of-00001"
    began, samples = time.perf_counter(), []
    while process.poll() is None and len(list(work.glob("part-*.json"))) < enough:
        time.sleep(SAMPLED)
        samples.append((round(time.perf_counter() - began, 2), resident(process.pid)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list(work.glob("part-*.json")))
    found = run(python, "bulk", {**about, "started": time.time()})
    told = {name: found[name] for name in ("to_first_text", "cpu_to_first_text", "rows", "resident_mb")}
    return {"parts_at_kill": there, **told, "resident_mb_until_kill": [each for each in samples if each[1]]}


def _python(name: str, root: Path) -> str:
    if name in OURS:
        return sys.executable
    environments.ensure(ENVIRONMENTS[name], root)
    return str(environments.python(ENVIRONMENTS[name], root))


def after_warm_up(samples: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The least and the most resident memory after warm-up, in MB."""
    after = [megabytes for _, megabytes in samples[int(len(samples) * WARM) :]] or [0.0]
    return min(after), max(after)


def render(record: dict[str, Any]) -> str:
    """The record as a table."""
    rows = [
        "| way | rows | rows/s | of encode | CPU ms a row | resident MB after warm-up: least | most |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rates: dict[str, float] = {}
    for name in dict.fromkeys(sample["way"] for sample in record["samples"]):
        of_way = [sample for sample in record["samples"] if sample["way"] == name]
        rates[name] = statistics.median(sample["rows"] / sample["seconds"] for sample in of_way)
        least, most = after_warm_up(of_way[-1]["resident_mb"])
        share = f"{rates[name] / rates['encode']:.1%}" if "encode" in rates else "-"
        worked = statistics.median(1000 * sample["cpu_seconds"] / sample["rows"] for sample in of_way)
        cells = (name, f"{of_way[0]['rows']:.0f}", f"{rates[name]:.0f}", share, f"{worked:.3f}")
        rows.append(f"| {' | '.join(cells)} | {least:.0f} | {most:.0f} |")
    rows += [f"| {name} | failed: {why} | | | | | |" for name, why in record["failed"].items()]
    if record.get("resumed"):
        resumed = record["resumed"]
        seconds = resumed["to_first_text"]
        said = "nothing was left to do"
        if seconds is not None:
            said = f"first text after {seconds:.1f} s, {resumed['cpu_to_first_text']:.2f} CPU seconds"
        least, most = after_warm_up(resumed["resident_mb_until_kill"])
        rows += [
            f"\n{resumed['rows']:.0f} rows, killed with {resumed['parts_at_kill']} parts, resumed: {said}",
            f"resident memory after warm-up until the kill: {least:.0f} to {most:.0f} MB",
        ]
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
