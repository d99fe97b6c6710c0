"""The one place where the runtime calls the export stage, which is imported when there is something to export."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInputError, MissingDependencyError, UnsupportedCheckpointError
from ..hub.resolve import Located
from ..manifest import CLASSES, EMBEDDING, Manifest
from .wanted import Hub, Wanted

if TYPE_CHECKING:
    from fastembed_rt_export.pipeline import ExportOptions

EXTRA = "pip install 'fastembed-rt[export]'"


def require(name: str | os.PathLike[str]) -> None:
    """Raise MissingDependencyError where checkpoints cannot be exported: asked before one is downloaded."""
    try:
        import fastembed_rt_export.pipeline  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{os.fspath(name)} is a checkpoint that was not exported here yet, and {error.name} is not installed, "
            f"which that needs: {EXTRA}; or export it elsewhere with fastembed-rt export, and give that directory"
        ) from error


def export(
    located: Located,
    output: Path,
    wanted: Wanted,
    task: str | None,
    say: Callable[[str], None],
    *,
    show_progress: bool,
    hub: Hub,
) -> Manifest:
    """Export a checkpoint on this disk; the new directory's manifest.

    Args:
        located: the checkpoint.
        output: directory to make.
        wanted: how.
        task: of the class that will open it; None takes what the checkpoint is for.
        say: called with one line at each step.
        show_progress: bars while int8 is calibrated and the reference computes.
        hub: how to ask it, for what a checkpoint refers to.

    Raises:
        InvalidInputError: a checkpoint for another task; options that are not possible.
        CheckpointError, UnsupportedCheckpointError, ParityError: see fastembed_rt_export.pipeline.export.
    """
    from fastembed_rt_export import tasks
    from fastembed_rt_export.pipeline import export as run

    found = tasks.detect(located.path)
    if task is not None and found not in (task, EMBEDDING):  # embedding is also what is said where nothing tells
        raise InvalidInputError(
            f"{located.name} is a checkpoint for {found}; open it with fastembed_rt.{CLASSES[found]}, not "
            f"{CLASSES[task]}"
        )
    options = _options(wanted, "auto" if task is None else task, output, show_progress, hub)
    return run(str(located.path), options, say).manifest


def _options(wanted: Wanted, task: str, output: Path, show_progress: bool, hub: Hub) -> ExportOptions:
    from fastembed_rt_export.checkpoint.read import Overrides, parse_pooling
    from fastembed_rt_export.gate.parity import INT8_MIN_COSINE
    from fastembed_rt_export.pipeline import ExportOptions

    pooling = None
    if wanted.pooling is not None:
        try:
            pooling = parse_pooling(tuple(wanted.pooling.split("+")))
        except UnsupportedCheckpointError as error:  # what it is in a checkpoint
            raise InvalidInputError(str(error)) from error
    return ExportOptions(
        output=output,
        overrides=Overrides(pooling=pooling, normalize=wanted.normalize),
        task=task,
        targets=(wanted.target,),
        precisions=(wanted.precision,),
        calibration=None if wanted.calibration is None else Path(wanted.calibration),
        min_cosine=INT8_MIN_COSINE if wanted.min_cosine is None else wanted.min_cosine,
        exporter=wanted.exporter,
        verify=wanted.verify,
        trust_remote_code=wanted.trust_remote_code,
        tokens=wanted.tokens,
        show_progress=show_progress,
        token=hub.token,
        adapter=wanted.adapter,
        cache_dir=None if hub.cache_dir is None else os.fspath(hub.cache_dir),
        local_files_only=hub.local_files_only,
    )
