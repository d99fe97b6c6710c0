"""The model that a command's arguments name, of whatever task: where it is found, and the class that opens it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import manifest
from ..hub.resolve import resolve_model
from ..manifest import CLASSES, LATE_INTERACTION, Manifest

if TYPE_CHECKING:
    from ..models.embedding import EmbeddingModel
    from ..models.late_interaction import LateInteractionModel
    from ..models.reranker import Reranker
    from ..models.sparse import SparseModel

    Model: TypeAlias = EmbeddingModel | Reranker | SparseModel | LateInteractionModel

HUB = ("revision", "token", "cache_dir", "local_files_only")
SHARED = ("provider", "precision", "threads", "device_ids", *HUB)  # what every class takes under one name


def find(args: argparse.Namespace, files: Callable[[Manifest], Iterable[str]] = lambda _: ()) -> Path:
    """The directory of `args.model`; of one on the hub, the manifest and `files` are fetched."""
    return resolve_model(args.model, files=files, **_given(args, HUB))


def open_model(args: argparse.Namespace, options: Callable[[Manifest], Mapping[str, Any]]) -> Model:
    """The model, by the class for its task; onnxruntime loads here and not before.

    Args:
        args: those of `add_model_arguments`, and `threads`, `device_ids` where a command has them.
        options: what the class takes beside them; given the manifest, it raises where a model is not for the command,
            before anything large is fetched or loaded.
    """
    directory = find(args)
    described = manifest.read(directory)
    given = {**_given(args, SHARED), **options(described)}
    if directory != Path(args.model).expanduser():  # a snapshot, named by its commit: the hub is not asked once more
        given["revision"] = directory.name
    import fastembed_rt

    opened: Model = getattr(fastembed_rt, CLASSES[described.task])(args.model, **given)
    return opened


def limit(described: Manifest, tokens: int | None, role: str = "document") -> dict[str, int | None]:
    """`--max-length` as the class for the task takes it."""
    return {f"{role}_length" if described.task == LATE_INTERACTION else "max_length": tokens}


def _given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if hasattr(args, name)}
