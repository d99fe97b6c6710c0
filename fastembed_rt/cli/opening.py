"""MODEL on the command line: a model directory, a hub repository that holds one, or a checkpoint, exported once.

One way for all commands that take a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..hub.resolve import resolve_model
from ..manifest import Manifest
from ..system.progress import watched

if TYPE_CHECKING:
    from ..models.base import LoadedModel

M = TypeVar("M", bound="LoadedModel")
SHARED = ("provider", "precision", "revision", "token", "cache_dir", "local_files_only")  # of `add_model_arguments`


def open_model(args: argparse.Namespace, kind: type[M], **options: Any) -> M:
    """A model of a class, such as EmbeddingModel; `options` are its own, beside those that all commands take."""
    shared = {name: getattr(args, name) for name in SHARED}
    return kind.from_checkpoint(args.model, show_progress=_shown(args), **shared, **options)


def model_directory(
    args: argparse.Namespace, *, files: Callable[[Manifest], Iterable[str]], export: bool = True
) -> Path:
    """The directory that MODEL stands for, with the files that `files` names of its manifest.

    Args:
        args: those of `add_model_arguments`.
        files: what a hub repository that holds a model is asked for.
        export: False: a checkpoint whose export is not in the cache is an error.

    Raises:
        As resolve_model and LoadedModel.from_checkpoint.
    """
    from ..models.checkpoint import find

    hub = {name: getattr(args, name) for name in ("revision", "token", "cache_dir", "local_files_only")}
    choice = {"provider": args.provider, "precision": args.precision, "show_progress": _shown(args)}
    found = find(args.model, {**hub, **choice}, export=export)
    return found if found is not None else resolve_model(args.model, files=files, **hub)


def _shown(args: argparse.Namespace) -> bool:
    return watched() and not getattr(args, "quiet", False)
