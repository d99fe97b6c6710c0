"""Models by their paths or names: which class opens each, and under what name it answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .. import manifest
from ..hub import resolve
from ..manifest import CLASSES
from ..models.base import LoadedModel
from .models import Models, Served, own_names

MODULES = {
    "embedding": "embedding",
    "reranking": "reranker",
    "sparse": "sparse",
    "late_interaction": "late_interaction",
}


def load(wanted: Sequence[str], *, token_ids: bool = False, **options: Any) -> Models:
    """Models that are loaded, `NAME=MODEL` or MODEL each; options as of their constructors."""
    return Models([_served(entry, token_ids, options) for entry in wanted])


def _served(entry: str, token_ids: bool, options: dict[str, Any]) -> Served:
    name, sign, source = entry.partition("=")
    if not sign:
        name, source = "", entry
    path = resolve.resolve_model(source, files=lambda described: [])
    task = manifest.read(path).task
    kind = getattr(import_module(f"..models.{MODULES[task]}", __package__), CLASSES[task])
    model: LoadedModel = kind(source, **options)
    names = own_names(model)
    given = name or (Path(source).name if Path(source).is_dir() else source)
    return Served(given, model, aliases=names, token_ids=token_ids)
