"""MODEL on the command line: a model directory, a hub repository that holds one, or a checkpoint, exported once.

One way for all commands that take a model, of whatever task: where it is found, and the class that opens it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import manifest
from ..hub.resolve import resolve_model
from ..manifest import CLASSES, LATE_INTERACTION, Manifest
from ..system.paths import expanded
from ..system.progress import watched

if TYPE_CHECKING:
    from ..models.embedding import EmbeddingModel
    from ..models.late_interaction import LateInteractionModel
    from ..models.reranker import Reranker
    from ..models.sparse import SparseModel

    Model: TypeAlias = EmbeddingModel | Reranker | SparseModel | LateInteractionModel

HUB = ("revision", "token", "cache_dir", "local_files_only")
SHARED = ("provider", "precision", "threads", "device_ids")  # what every class takes under one name, beside the hub's


def find(
    args: argparse.Namespace, files: Callable[[Manifest], Iterable[str]] = lambda _: (), *, export: bool = True
) -> Path:
    """The directory that `args.model` stands for.

    Args:
        args: those of `add_model_arguments`.
        files: what is fetched, beside the manifest, of a hub repository that holds a model.
        export: False: a checkpoint whose export is not in the cache is an error.

    Raises:
        As resolve_model and LoadedModel.from_checkpoint.
    """
    found = _of_checkpoint(args, export=export)
    return resolve_model(args.model, files=files, **_given(args, HUB)) if found is None else found


def open_model(args: argparse.Namespace, options: Callable[[Manifest], Mapping[str, Any]]) -> Model:
    """The model, by the class for its task; onnxruntime loads here and not before.

    Args:
        args: those of `add_model_arguments`, and `threads`, `device_ids` where a command has them.
        options: what the class takes beside them; given the manifest, it raises where a model is not for the command,
            before anything large is fetched or loaded.
    """
    exported = _of_checkpoint(args)
    hub = _given(args, HUB) if exported is None else {}
    directory = resolve_model(args.model, files=lambda _: (), **hub) if exported is None else exported
    described = manifest.read(directory)
    given = {**_given(args, SHARED), **hub, **options(described)}
    if exported is None and directory != expanded(args.model):
        given["revision"] = directory.name  # of a snapshot, which is named by its commit: the hub is not asked again
    import fastembed_rt

    opened: Model = getattr(fastembed_rt, CLASSES[described.task])(exported or args.model, **given)
    return opened


def open_second(args: argparse.Namespace, name: str, options: Callable[[Manifest], Mapping[str, Any]]) -> Model:
    """Another model of the command, which --precision and --revision say nothing of; options as for `open_model`."""
    own = {"model": name, "precision": None, "revision": None}
    return open_model(argparse.Namespace(**{**vars(args), **own}), options)


def limit(described: Manifest, tokens: int | None, role: str = "document") -> dict[str, int | None]:
    """`--max-length` as the class for the task takes it."""
    return {f"{role}_length" if described.task == LATE_INTERACTION else "max_length": tokens}


def _of_checkpoint(args: argparse.Namespace, *, export: bool = True) -> Path | None:
    """The export of a checkpoint; None for what is a model directory, here or on the hub."""
    from ..models import checkpoint  # only here: `--help` does without

    shown = watched() and not getattr(args, "quiet", False)
    asked = {**_given(args, (*HUB, "provider", "precision", "device_ids")), "show_progress": shown}
    return checkpoint.find(args.model, asked, export=export)


def _given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if hasattr(args, name)}
