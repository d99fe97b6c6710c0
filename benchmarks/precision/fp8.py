"""How near FP8 vectors stay to full precision, and what they are worth at tasks, as a card will compute them.

    python -m benchmarks.precision.fp8 [CHECKPOINT ...] [--data DIR] [--texts 1508] [--parts] [--record FILE]

No card is needed: the export measures FP8 in a graph of floats that rounds as the card does, and the same graph is
scored here, beside fp32, on real texts that took no part in calibration. Without checkpoints: all those in the folder
that FASTEMBED_RT_REAL names. `--parts`: what each part of the recipe brings, all groups of layers in FP8.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fastembed_rt.manifest import MANIFEST_FILE, record_file

from ..data import tasks
from ..data.fidelity import cosines
from ..data.workloads import data_folder
from ..errors import BenchmarkError, printed
from ..report.table import table
from . import int8
from .real_weights import add_arguments, task_of, there

GRAPH = "simulated.onnx"
FP32, FP8 = "fp32", "fp8"


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, texts=1508)
    parser.add_argument(
        "--parts", action="store_true", help="what each part of the recipe brings, instead of the tasks"
    )
    return printed(measured, parser.parse_args(words))


def measured(args: argparse.Namespace) -> str:
    """The table."""
    data = data_folder(args.data)
    checkpoints = args.checkpoints or [str(path) for path in there()]
    if not checkpoints:
        raise BenchmarkError("name a checkpoint, or a folder of them in FASTEMBED_RT_REAL")
    texts = unseen(int8.real_texts(data, args.texts))
    wanted = [] if args.parts else tasks.find(data, tasks.words_of(args.languages), [])[0]
    ways: Mapping[str, Callable[[], AbstractContextManager[Any]]] = parts() if args.parts else {"": nullcontext}
    found: dict[str, Any] = {}
    for checkpoint in checkpoints:
        for way, patched in ways.items():
            with tempfile.TemporaryDirectory() as work, patched():
                name = " ".join(filter(None, (Path(checkpoint).name, way)))
                found[name] = of_checkpoint(args, checkpoint, Path(work), texts, wanted)
            if args.record:
                kept = json.loads(args.record.read_text(encoding="utf-8")) if args.record.is_file() else {}
                text = json.dumps({**kept, **found}, indent=1, sort_keys=True)
                args.record.write_text(text + "\n", encoding="utf-8")
    return shown(found)


def unseen(texts: Sequence[str]) -> list[str]:
    """Without those that FP8 is calibrated on, or measured on by the export."""
    from fastembed_rt_export.gate.parity import parity_texts
    from fastembed_rt_export.quantize import calibration_texts

    known = {*calibration_texts(), *(case.text for case in parity_texts())}
    return [text for text in texts if text not in known]


def of_checkpoint(
    args: argparse.Namespace, checkpoint: str, work: Path, texts: list[str], wanted: Sequence[tasks.Task]
) -> dict[str, Any]:
    """One checkpoint's figures, as the record has them; those of the last attempt where FP8 is left out."""
    from fastembed_rt_export.pipeline import ExportOptions, export

    started = time.perf_counter()
    options = ExportOptions(
        output=work / "made",
        targets=("cpu", "cuda"),
        precisions=(FP32, FP8),
        task=args.task or task_of(checkpoint),
        verify=False,
    )
    with simulations(work) as kept:
        manifest = export(checkpoint, options).manifest
    if not kept:
        raise BenchmarkError(f"{checkpoint}: {'; '.join(refused.why for refused in manifest.refused)}")
    seconds = time.perf_counter() - started
    rows = {FP32: int8.encoder(work / "made", FP32, "cpu"), FP8: int8.encoder(as_fp32(work), FP32, "cpu")}
    exact, given = (encode(texts) for encode in rows.values())
    near = cosines(given, exact)
    scores = {
        f"{task.name}, {metric}": {name: score[metric] for name, score in by_precision.items()}
        for task in wanted
        for by_precision in [{name: task.scores(np.ascontiguousarray(e(task.texts))) for name, e in rows.items()}]
        for metric in list(by_precision[FP32])[:1]
    }
    return {
        **kept,
        "left_out": any(refused.precision == FP8 for refused in manifest.refused),
        "texts": len(texts),
        "mean": float(near.mean()),
        "p1": float(np.quantile(near, 0.01)),
        "min": float(near.min()),
        "scores": scores,
        "seconds": round(seconds, 1),
    }


@contextmanager
def simulations(work: Path) -> Iterator[dict[str, Any]]:
    """Exports inside leave the graph that they measured FP8 with in `work`, and in the dict what they said of it."""
    from fastembed_rt_export import quantize
    from fastembed_rt_export.graph.writer import write

    kept: dict[str, Any] = {}
    original = quantize.Fitting.passing

    def passing(self: Any, found: Any, make: Callable[[Any], Any], named: str) -> Any:
        def and_kept(found: Any, trial: Any) -> Any:
            recipe, fidelity = self.fall_back(found, trial)
            write(make(recipe), work, GRAPH, name=FP8, metadata={})
            kept.update(groups=len(found.errors), groups_in_fp8=len(recipe.groups), gate=fidelity.as_dict())
            return recipe, fidelity

        return original(replace(self, fall_back=and_kept), found, make, named)

    with mock.patch.object(quantize.Fitting, "passing", passing):
        yield kept


def as_fp32(work: Path) -> Path:
    """The exported directory once more, its graph for CPUs the one that FP8 was measured with."""
    directory = work / FP8
    shutil.copytree(work / "made", directory)
    described = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
    (variant,) = [variant for variant in described["variants"] if variant["target"] == "cpu"]
    shutil.move(work / GRAPH, directory / variant["graph"]["file"])
    variant |= {"graph": vars(record_file(directory, variant["graph"]["file"])), "weights": []}
    (directory / MANIFEST_FILE).write_text(json.dumps(described), encoding="utf-8")
    return directory


def parts() -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """By its name, a recipe with the parts so far; all groups of layers stay in FP8, whatever that costs."""
    from fastembed_rt_export.graph import fp8
    from fastembed_rt_export.quantize import fallback, rounding

    class Uncentered(fp8.Groups):
        """Groups of which none may have the means of channels taken off."""

        def __init__(self) -> None:
            super().__init__(activated=_Everything())

    @contextmanager
    def way(*, passes: int, centered: bool) -> Iterator[None]:
        with (
            mock.patch.object(fallback, "MOST_FLOAT", 0.0),
            mock.patch.object(rounding, "PASSES", passes),
            mock.patch.object(fp8, "Groups", fp8.Groups if centered else Uncentered),
        ):
            yield

    return {
        "nearest numbers": lambda: way(passes=0, centered=False),
        "weights rounded by what their inputs are": lambda: way(passes=rounding.PASSES, centered=False),
        "and the means of channels taken off": lambda: way(passes=rounding.PASSES, centered=True),
    }


class _Everything(set[str]):
    def __contains__(self, _: object) -> bool:
        return True


def shown(found: Mapping[str, Any]) -> str:
    """A row a checkpoint."""
    names = list(dict.fromkeys(name for entry in found.values() for name in entry["scores"]))
    head = ["cosine to fp32", "groups in FP8", "gate's texts: mean", "worst", "real texts", "mean", "p1", "worst"]
    body = []
    for name, entry in found.items():
        gate, scores = entry["gate"], entry["scores"]
        cells = [f"{entry['groups_in_fp8']} of {entry['groups']}{', left out' if entry['left_out'] else ''}"]
        cells += int8.texts_of([gate["mean_cosine"], gate["min_cosine"]])
        cells += [str(entry["texts"]), *int8.texts_of([entry["mean"], entry["p1"], entry["min"]])]
        cells += [f"{scores[task][FP32]:.2f} -> {scores[task][FP8]:.2f}" if task in scores else "" for task in names]
        body.append([name, *cells])
    return table([*head, *(f"{name}, fp32 -> FP8" for name in names)], body)


if __name__ == "__main__":
    sys.exit(main())
