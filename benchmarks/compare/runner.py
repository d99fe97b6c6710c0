"""Compare sentence embedders on this machine: speed, faithfulness, quality, memory, start; the result is a folder.

python -m benchmarks.compare.runner MODEL_DIR --checkpoint DIR [--data DIR] [--parts a,b] [--contenders a,b]
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastembed_rt import FastembedRtError, manifest

from ..data import lengths, tasks, workloads
from ..data.workloads import REQUESTS, WORKLOADS, Workload
from ..errors import BenchmarkError
from ..report import tables
from ..report.records import REFERENCE
from . import about, other_tasks, parts, suite
from .contenders import CONTENDERS
from .measure import Patience, Result, Row
from .parts import PARTS, Settings

RECORD = "record.json"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare.runner", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("model_dir", metavar="MODEL_DIR", type=Path, help="fastembed-rt model directory")
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="the sentence-transformers directory it was exported from"
    )
    parser.add_argument(
        "--data", help=f"folder with texts/, and stsb/, sick/, sts/, retrieval/ (default: ${workloads.DATA_VARIABLE})"
    )
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)} (default: all that the model has)")
    parser.add_argument(
        "--contenders", default="", help=f"of {', '.join(CONTENDERS)} (default: all that take the model)"
    )
    parser.add_argument(
        "--workloads", default="", help=f"of {', '.join((*workloads.TIMED, *workloads.TIMED_REQUESTS))}"
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="of throughput and latency")
    parser.add_argument(
        "--other-rounds", type=_positive, default=1, help="of lengths, batches, concurrent callers and scaling"
    )
    parser.add_argument("--cold-rounds", type=_count, default=3, help="fresh processes for each contender; 0: none")
    parser.add_argument("--threads", type=_positive, default=2, help="for each contender")
    parser.add_argument("--quality-contenders", default="", help="to be scored beside the reference and this project")
    tasks.add_arguments(parser)
    parser.add_argument("--patience", type=_factor, default=1.0, help="factor on all time limits")
    parser.add_argument(
        "--out", type=Path, help=f"folder for {RECORD} (default: benchmarks/results/DATE-MACHINE of this project)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a record that is there")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run; 0 done, 2 wrong arguments or data, 130 interrupted (what was measured is kept)."""
    args = arguments(words)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(args)
    except (BenchmarkError, FastembedRtError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before anything was measured", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    """Check the arguments, then measure; on Ctrl-C the record says so and holds what there is.

    Raises:
        BenchmarkError, FastembedRtError: nothing can be measured.
    """
    model = manifest.read(args.model_dir)
    kind, pairs = other_tasks.kind(model), model.task == manifest.RERANKING
    if not pairs and not (args.checkpoint / "modules.json").is_file():
        raise BenchmarkError(f"{args.checkpoint} is not a sentence-transformers checkpoint: it has no modules.json")
    data = workloads.data_folder(args.data)
    args.parts = args.parts or ",".join(parts_of(kind))
    args.contenders = args.contenders or ",".join(row.name for row in other_tasks.TABLES[kind])
    args.workloads = args.workloads or ",".join(workloads_of(kind))
    wanted = parts.named(tasks.words_of(args.parts))
    if untold := [part.name for part in wanted if part.name not in parts_of(kind)]:
        there = ", ".join(parts_of(kind))
        raise BenchmarkError(f"parts for a model of kind {kind} are {there}, not {', '.join(untold)}")
    chosen = other_tasks.named(kind, tasks.words_of(args.contenders))
    scored = [row.name for row in other_tasks.named(kind, tasks.words_of(args.quality_contenders) or [REFERENCE])]
    asked = workloads.named(tasks.words_of(args.workloads), pairs=pairs)
    record = record_path(args.out, force=args.force)

    timed = [workload for workload in asked if (workload.length or 0) <= model.max_length]
    for workload in asked:
        if workload not in timed:
            print(f"{workload.name}: left out, the model cuts texts at {model.max_length} tokens", file=sys.stderr)
    texts = _texts(timed, data, args.model_dir, pairs=pairs)
    precisions = sorted({variant.precision for variant in model.variants})
    # Before anything is measured: a file that is no task must not end a run after an hour.
    languages, hub = tasks.words_of(args.languages), tasks.words_of(args.hub)
    found, skipped = tasks.find(data, languages, hub) if PARTS["quality"] in wanted else ([], [])
    result = Result(
        about=about.describe(args, model, wanted, timed, texts),
        rows={row.name: Row(name=row.name, title=row.title) for row in chosen},
    )
    for row in chosen:
        result.rows[row.name].facts |= {"precision": row.arithmetic, "ours": row.ours}
        if row.precision is not None and row.precision not in precisions:
            result.rows[row.name].fail(
                f"the model directory has {', '.join(precisions)}; export it with --precision {row.precision}",
                "not available",
            )
    interrupted = False
    try:
        suite.run(
            result,
            wanted,
            chosen,
            timed,
            texts,
            checkpoint=args.checkpoint,
            model_dir=args.model_dir,
            settings=Settings(
                rounds=args.rounds,
                cold_rounds=args.cold_rounds,
                other_rounds=args.other_rounds,
                quality_contenders=scored,
                tasks=found,
                skipped=skipped,
            ),
            patience=Patience().scaled(args.patience),
            save=lambda: result.write(record) if result.measured else None,
        )
    except KeyboardInterrupt:
        interrupted = result.about["interrupted"] = True
        if not result.measured:  # an older result, if there is one, is worth more
            raise
        print("interrupted; what was measured is kept", file=sys.stderr)
    finally:
        result.about["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        if result.measured or not interrupted:
            result.write(record)
    print(tables.render(result.record()))
    print(f"record: {record}", file=sys.stderr)
    return 130 if interrupted else 0


def record_path(out: Path | None, *, force: bool) -> Path:
    """Where the record goes.

    Raises:
        BenchmarkError: there is one already, and nobody said that it may go.
    """
    folder = out or about.results_folder()
    if folder.exists() and not folder.is_dir():
        raise BenchmarkError(f"{folder} is a file; --out names the folder of a result")
    if (folder / RECORD).exists() and not force:
        raise BenchmarkError(f"{folder / RECORD} exists; give another --out, or --force to overwrite it")
    return folder / RECORD


def parts_of(kind: str) -> Sequence[str]:
    """Parts in which a kind of model can be measured."""
    return tuple(PARTS) if kind == manifest.EMBEDDING else other_tasks.PARTS


def workloads_of(kind: str) -> Sequence[str]:
    """What is timed unless something else is asked for."""
    if kind == manifest.RERANKING:
        return workloads.TIMED_REQUESTS
    return [name for name in workloads.DEFAULT if kind == manifest.EMBEDDING or WORKLOADS[name].length is None]


def _texts(timed: Sequence[Workload], data: Path, model_dir: Path, *, pairs: bool) -> dict[str, list[Any]]:
    """The texts of what is timed, and of the workloads behind it; requests to rerankers."""
    if pairs:
        return {name: workloads.texts(row, data) for name, row in REQUESTS.items()}
    tokenizer = lengths.open_tokenizer(model_dir / "tokenizer.json") if any(row.length for row in timed) else None
    needed = [*timed, *(WORKLOADS[name] for name in workloads.UNTIMED)]
    return {
        row.name: workloads.texts(row, data) if row.length is None else lengths.texts(row, data, tokenizer)
        for row in needed
    }


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _positive(word: str) -> int:
    return _whole(word, 1)


def _count(word: str) -> int:
    return _whole(word, 0)


def _whole(word: str, least: int) -> int:
    if not word.isdecimal() or int(word) < least:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least {least}")
    return int(word)


def _factor(word: str) -> float:
    try:
        factor = float(word)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")
    return factor


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code) if code == 130 else sys.exit(code)
