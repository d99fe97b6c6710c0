"""INT8 on real weights: checkpoints exported, then held against full precision and dynamic quantization.

    python -m benchmarks.precision.real_weights CHECKPOINT ... [--texts 4670] [--languages en,de] [--record FILE]

Each checkpoint is a sentence-transformers directory or a hub id, dense or SPLADE (told by its name, since nothing in a
plain directory says so, or by `--task sparse`); without any, those in the folder FASTEMBED_RT_REAL. It is exported at
default gates, so that the manifest has its distance from sentence-transformers on torch (`--no-verify` leaves that
out). Printed: cosine of each INT8 graph to the directory's fp32 on real texts and on degenerate ones, and the scores of
the tasks in the data folder (benchmarks/data/tasks.py). With `--record` they are kept with sizes and times, a
checkpoint's new figures in place of its old ones; docs/models.md is made from benchmarks/precision/real_weights.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.manifest import SPARSE, Manifest

from ..data import tasks
from ..data.scores import Vectors
from ..data.workloads import data_folder
from ..errors import BenchmarkError, printed
from ..report.table import table
from . import int8

FOLDER = "FASTEMBED_RT_REAL"
RECORD = Path(__file__).parent / "real_weights.json"
DYNAMIC = "dynamic"
COSINES = ("mean", "p1", "min", "degenerate_mean", "degenerate_min")


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables; 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, texts=4670)
    parser.add_argument(
        "--keep-dynamic",
        action="store_true",
        help="take dynamic quantization's figures from the record: nothing here changes them, and they take longest",
    )
    parser.add_argument("--no-verify", action="store_true", help="do not compare the export with torch")
    return printed(measured, parser.parse_args(words))


def add_arguments(parser: argparse.ArgumentParser, *, texts: int) -> None:
    """What benchmarks of real checkpoints take."""
    parser.add_argument("checkpoints", nargs="*", help="directories or hub ids")
    parser.add_argument("--data", help="folder with texts/, unicode/, stsb/ and retrieval/")
    parser.add_argument("--texts", type=int, default=texts, help="real texts for the cosines")
    parser.add_argument("--languages", default="en", help="of STS-B, separated by commas")
    parser.add_argument("--task", help="of the checkpoints: embedding, sparse; auto: as they say")
    parser.add_argument("--record", type=Path, help="JSON file that gets the figures")


def measured(args: argparse.Namespace) -> str:
    """Both tables."""
    data = data_folder(args.data)
    wanted, _ = tasks.find(data, tasks.words_of(args.languages), [])
    if not wanted:
        raise BenchmarkError(f"{data} has no task to score: neither stsb/ nor retrieval/")
    texts, odd = int8.real_texts(data, args.texts), int8.degenerate_texts(data)
    found = {}
    checkpoints = args.checkpoints or [str(path) for path in there()]
    if not checkpoints:
        raise BenchmarkError(f"name a checkpoint, or a folder of them in {FOLDER}")
    for checkpoint in checkpoints:
        with tempfile.TemporaryDirectory() as work:
            one = of_checkpoint(args, checkpoint, Path(work), texts, odd, wanted)
        name = Path(checkpoint).name
        found[name] = one
        if args.record:
            kept = json.loads(args.record.read_text(encoding="utf-8")) if args.record.is_file() else {}
            if args.keep_dynamic:
                for figures in ("cosines", "scores"):
                    before = kept.get(name, {}).get(figures, {})
                    one[figures] |= {DYNAMIC: before[DYNAMIC]} if DYNAMIC in before else {}
            args.record.write_text(json.dumps({**kept, **found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return "\n\n".join((cosine_table(found), score_table(found)))


def there() -> list[Path]:
    """The checkpoints in the folder that the environment names."""
    return sorted(path for path in Path(os.environ.get(FOLDER, "/nonexistent")).glob("*/") if _is_one(path))


def _is_one(path: Path) -> bool:
    return (path / "config.json").is_file() or (path / "modules.json").is_file()


def task_of(checkpoint: str) -> str:
    """What to export it as, where no one says it."""
    return SPARSE if "splade" in Path(checkpoint).name.lower() else "auto"


def of_checkpoint(
    args: argparse.Namespace, checkpoint: str, work: Path, texts: list[str], odd: list[str], wanted: list[tasks.Task]
) -> dict[str, Any]:
    """One checkpoint's figures, as the record has them."""
    from fastembed_rt_export.pipeline import ExportOptions, export

    started = time.perf_counter()
    options = ExportOptions(
        output=work / "made",
        precisions=("fp32", "int8"),
        task=args.task or task_of(checkpoint),
        verify=not args.no_verify,
    )
    manifest = export(checkpoint, options).manifest
    seconds = time.perf_counter() - started
    rows = {
        "fp32": int8.encoder(work / "made", "fp32"),
        **int8.quantized(work / "made", None if args.keep_dynamic else work),
    }
    both, exact = [*texts, *odd], rows["fp32"]([*texts, *odd])
    cosines, scores = {}, {}
    for name, encode in rows.items():
        if name != "fp32":
            cosines[name] = dict(zip(COSINES, int8.figures(encode(both), exact, len(texts)), strict=True))
        scores[name] = _scores(encode, wanted)
    return {
        "task": manifest.task,
        "model_type": manifest.source.model_type,
        "texts": len(texts),
        "degenerate": len(odd),
        "export_seconds": round(seconds, 1),
        "parity": _parity(manifest),
        "sizes": {f"{v.target} {v.precision}": v.graph.size for v in manifest.variants},
        "float_groups": {v.target: v.notes["float_groups"] for v in manifest.variants if v.precision == "int8"},
        "cosines": cosines,
        "scores": scores,
    }


def _scores(encode: int8.Encode, wanted: Sequence[tasks.Task]) -> dict[str, float]:
    found = {}
    for task in wanted:
        vectors: Vectors = np.ascontiguousarray(encode(task.texts))
        metric, value = next(iter(task.scores(vectors).items()))
        found[f"{task.name}, {metric}"] = round(value, 3)
    return found


def _parity(manifest: Manifest) -> dict[str, Any]:
    """Distances from the reference that the export measured, where it did."""
    variants = manifest.parity.get("variants", {})
    return {
        f"{v.target} {v.precision}": {key: variants[v.graph.file][key] for key in ("mean_cosine", "min_cosine")}
        for v in manifest.variants
        if v.graph.file in variants
    }


def cosine_table(found: Mapping[str, Any]) -> str:
    """A row a checkpoint and graph."""
    head = ["cosine to fp32", "", "texts: mean", "p1", "min", "degenerate: mean", "min", "layers in float"]
    body = []
    for name, entry in found.items():
        for graph, cosine in entry["cosines"].items():
            stays = entry["float_groups"].get(graph.removeprefix("int8, "))
            cells = int8.texts_of([cosine[key] for key in COSINES])
            body.append([name, graph, *cells, "" if stays is None else str(len(stays))])
    return table(head, body)


def score_table(found: Mapping[str, Any]) -> str:
    """A row a checkpoint and task, a column a graph."""
    columns = list(dict.fromkeys(name for entry in found.values() for name in entry["scores"]))
    body = []
    for name, entry in found.items():
        for task in entry["scores"]["fp32"]:
            values = [entry["scores"].get(column, {}).get(task) for column in columns]
            body.append([name, task, *("" if value is None else f"{value:.2f}" for value in values)])
    return table(["percent", "", *columns], body)


if __name__ == "__main__":
    sys.exit(main())
