"""Checkpoints and graphs of the contenders: made for one run, or kept for the next ones."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .candidates import EXPORTS, Contender
from .shapes import Shape, make


def say(line: str) -> None:
    """Progress, beside the rates."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def workplace(kept: Path | None, name: str) -> Iterator[Path]:
    """Where the checkpoint and the graphs of a shape are made: in a folder that is kept, or for this run."""
    if kept is not None:
        (kept / name).mkdir(parents=True, exist_ok=True)
        yield kept / name
        return
    with tempfile.TemporaryDirectory() as work:
        yield Path(work)


def prepared(shape: Shape, contenders: dict[str, Contender], work: Path) -> tuple[Path, Path]:
    """The checkpoint, and the model directory with what the contenders need; made where they are not there."""
    checkpoint = work / "checkpoint"
    if not checkpoint.is_dir():
        say(f"{shape.name}: making a checkpoint")
        with tempfile.TemporaryDirectory(dir=work) as making:  # whole, or not at all
            make(shape, Path(making)).rename(checkpoint)
    return checkpoint, exported(contenders, checkpoint, work)


def exported(contenders: dict[str, Contender], checkpoint: Path, work: Path) -> Path:
    """The checkpoint as a model directory with what the contenders need; made where it is not there."""
    from fastembed_rt_export.pipeline import ExportOptions, export
    from fastembed_rt_export.variants.making import OWN_ATTENTION

    wanted = [EXPORTS[name] for name in contenders if name in EXPORTS]
    facts = [str(checkpoint.resolve()), *map(str, sorted(wanted)), os.environ.get(OWN_ATTENTION, "")]
    directory = work / f"model-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"
    if wanted and not directory.is_dir():
        say(f"{work.name}: making graphs of {', '.join(dict.fromkeys(' '.join(pair) for pair in wanted))}")
        targets, precisions = (tuple(dict.fromkeys(column)) for column in zip(*wanted, strict=True))
        options = ExportOptions(output=directory, targets=targets, precisions=precisions, verify=False)
        export(str(checkpoint), options)
    return directory
