"""Compare sentence embedders on this machine: speed, faithfulness, memory, start; a JSON record and a Markdown table.

python -m benchmarks.runner MODEL_DIR --checkpoint DIR [--data DIR] [--contenders a,b] [--workloads short,mixed]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastembed_rt import FastembedRtError, manifest

from . import conditions, contenders, environments, measure, tables, workloads
from .contenders import CONTENDERS, ENVIRONMENTS, REFERENCE, Contender
from .errors import BenchmarkError, ContenderError
from .measure import Limits, Result, Row, Work
from .preparation import Preparation
from .processes import CAN_STOP, Process, kill_all

FORMAT = 1


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="fastembed-rt model directory")
    parser.add_argument("--checkpoint", required=True, help="the sentence-transformers directory it was exported from")
    parser.add_argument("--data", help=f"folder with texts/ (default: ${workloads.DATA_VARIABLE})")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--workloads", default=",".join(workloads.DEFAULT), help=f"of {', '.join(workloads.TIMED)}")
    parser.add_argument("--rounds", type=_positive, default=3)
    parser.add_argument("--cold-rounds", type=_count, default=5, help="fresh processes for each contender; 0: none")
    parser.add_argument("--threads", type=_positive, default=2, help="for each contender")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on all time limits")
    parser.add_argument("--out", type=Path, help="JSON record; the table goes beside it as .md")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run; 0 done, 2 wrong arguments or data, 130 interrupted (what was measured is kept)."""
    args = arguments(words)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result, interrupted = run(args)
    except (BenchmarkError, FastembedRtError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before anything was measured", file=sys.stderr)
        return 130
    print(tables.render(result.record()))
    return 130 if interrupted else 0


def run(args: argparse.Namespace) -> tuple[Result, bool]:
    """Check the arguments, then measure; on Ctrl-C the result says so and holds what there is.

    Raises:
        BenchmarkError, FastembedRtError: nothing can be measured.
    """
    model = manifest.read(Path(args.model_dir))
    if not Path(args.checkpoint, "modules.json").is_file():
        raise BenchmarkError(f"{args.checkpoint} is not a sentence-transformers checkpoint: it has no modules.json")
    data = workloads.data_folder(args.data)
    chosen = contenders.named(name for name in args.contenders.split(",") if name)
    timed = workloads.named(name for name in args.workloads.split(",") if name)
    texts = {row.name: workloads.texts(row, data) for row in (*timed, *_untimed())}
    precisions = {variant.precision for variant in model.variants}

    about: dict[str, Any] = {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "interrupted": False,
        "command": _command(args),
        "commit": conditions.commit(environments.PROJECT),
        "machine": conditions.describe(),
        "settings": {
            "threads": args.threads,
            "cpus": conditions.choose_cpus(args.threads),
            "rounds": args.rounds,
            "cold_rounds": args.cold_rounds,
            "max_length": model.max_length,
            "idle_processes": "stopped" if CAN_STOP else "left running",
        },
        "model": {"source": asdict(model.source), "precisions": sorted(precisions)},
        "workloads": {
            row.name: {
                "title": row.title,
                "texts": len(texts[row.name]),
                "sha256": workloads.fingerprint(texts[row.name]),
            }
            for row in timed
        },
        "loads": [],
    }
    result = Result(about=about, rows={row.name: Row(name=row.name, title=row.title) for row in chosen})
    for row in chosen:
        if row.precision is not None and row.precision not in precisions:
            result.rows[row.name].fail(
                f"the model directory has {', '.join(sorted(precisions))}; export it with --precision {row.precision}",
                "not available",
            )
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        try:
            _measure(args, result, chosen, texts, Path(scratch))
        except KeyboardInterrupt:
            interrupted = result.about["interrupted"] = True
            print("interrupted; what was measured is kept", file=sys.stderr)
        finally:
            kill_all()
            result.about["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
            _save(args, result)
    if not interrupted and result.rows[REFERENCE].status != "ok":
        raise BenchmarkError(f"the reference failed, nothing can be held against it: {result.rows[REFERENCE].reason}")
    return result, interrupted


def _measure(
    args: argparse.Namespace, result: Result, chosen: list[Contender], texts: dict[str, list[str]], scratch: Path
) -> None:
    files = {name: scratch / f"{name}.json" for name in texts}
    for name, file in files.items():
        file.write_text(json.dumps(texts[name]), encoding="utf-8")
    limits = Limits().scaled(args.patience)
    preparation = Preparation(
        checkpoint=Path(args.checkpoint).resolve(),
        model_dir=Path(args.model_dir).resolve(),
        calibration=files["calibration"],
        max_length=result.about["settings"]["max_length"],
        threads=args.threads,
        cpus=result.about["settings"]["cpus"],
        logs=scratch,
        timeout=limits.prepare,
    )
    for row in chosen:
        _make_ready(result.rows[row.name], row, preparation)

    def start(mode: str, name: str) -> Process:
        return preparation.start(CONTENDERS[name], mode)

    if result.rows[REFERENCE].status != "ok":
        return
    starting = [row.name for row in chosen if row.cold_start]
    measure.cold_rounds(result, starting, lambda name: start("cold", name), args.cold_rounds, limits)
    _save(args, result)
    work = Work(
        files={name: files[name] for name in result.about["workloads"]}, single=files["single"], scratch=scratch
    )
    reference = measure.Reference()
    processes: dict[str, Process] = {}
    for name in sorted(result.rows, key=lambda name: name != REFERENCE):
        if result.rows[name].status == "ok":
            print(f"loading and checking {name}", file=sys.stderr, flush=True)
            processes[name] = start("serve", name)
            measure.check(result.rows[name], processes[name], work, reference, limits)
        if result.rows[REFERENCE].status != "ok":
            return
    for name, counts in reference.counts.items():
        result.about["workloads"][name]["tokens"] = sum(counts)
    _save(args, result)
    measure.rounds(result, processes, work, args.rounds, limits, lambda: _save(args, result))


def _make_ready(row: Row, contender: Contender, preparation: Preparation) -> None:
    if row.status != "ok":
        return
    environment = ENVIRONMENTS[contender.environment]
    try:
        row.facts["environment"] = {"name": environment.name, "steps": environment.steps}
        row.facts["environment"]["freeze"] = environments.ensure(environment)
        row.facts["package_bytes"] = environments.size(environment)
        preparation.prepare(contender)
    except ContenderError as error:
        row.fail(str(error))


def _command(args: argparse.Namespace) -> str:
    """The command that made a result, paths by their last name: a record may travel, whose disk it was need not."""
    words = [Path(args.model_dir).resolve().name, "--checkpoint", Path(args.checkpoint).resolve().name]
    for name in ("contenders", "workloads", "rounds", "cold_rounds", "threads"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return shlex.join(["python", "-m", "benchmarks.runner", *words])


def _untimed() -> list[workloads.Workload]:
    return [workloads.WORKLOADS[name] for name in ("single", "calibration")]


def _save(args: argparse.Namespace, result: Result) -> None:
    if args.out is not None:
        result.write(args.out)
        args.out.with_suffix(".md").write_text(tables.render(result.record()), encoding="utf-8")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is not at least 1")
    return number


def _count(word: str) -> int:
    number = int(word)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{word} is negative")
    return number


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code) if code == 130 else sys.exit(code)
