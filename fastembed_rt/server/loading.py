"""Models by their paths or names: which class opens each, and under what names it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from .. import manifest
from ..hub import resolve
from ..manifest import CLASSES, EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE
from ..models import checkpoint
from ..models.base import LoadedModel
from ..system.progress import watched
from .models import Models, Served, own_names
from .naming import entries

MODULES = {EMBEDDING: "embedding", RERANKING: "reranker", SPARSE: "sparse", LATE_INTERACTION: "late_interaction"}
DEFAULT = "default"  # name of a prompt that was given as a text


def load(
    wanted: Sequence[str],
    *,
    aliases: Iterable[str] = (),
    token_ids: bool = False,
    default_prompt_name: str | None = None,
    default_prompt: str | None = None,
    **options: Any,
) -> Models:
    """Models that are loaded, `NAME=MODEL` or MODEL each.

    Args:
        wanted: which: model directories, or checkpoints, exported once into the cache; or their names on the hub.
        aliases: other names of the first.
        token_ids: inputs may be ids of a model's own tokenizer.
        default_prompt_name: of embedding models, where a request names none.
        default_prompt: a text instead.
        **options: as of the models' constructors.

    Raises:
        InvalidInputError: see `naming.entries`; others as the constructors.
    """
    aliases = list(aliases)
    found = [
        _served(name, source, [] if k else aliases, token_ids=token_ids, options=options)
        for k, (name, source) in enumerate(entries(wanted, aliases))
    ]
    for served in found:
        if served.task != EMBEDDING:
            continue
        if default_prompt is not None:
            served.model.prompts = {**served.model.prompts, DEFAULT: default_prompt}
        name = DEFAULT if default_prompt is not None else default_prompt_name
        if name is not None:
            served.model.default_prompt_name = name
    return Models(found)


def _served(name: str, source: str, aliases: list[str], *, token_ids: bool, options: dict[str, Any]) -> Served:
    given_options = {key: value for key, value in options.items() if value is not None}
    hub = {key: given_options[key] for key in checkpoint.HUB if key in given_options}
    exported = checkpoint.find(source, {**given_options, "show_progress": watched()})  # None: it is a model directory's
    path = resolve.resolve_model(source, files=_none, **hub) if exported is None else exported
    task = manifest.read(path).task
    kind = getattr(import_module(f"..models.{MODULES[task]}", __package__), CLASSES[task])
    if exported is not None:
        given_options = {key: value for key, value in given_options.items() if key not in checkpoint.HUB}
    model: LoadedModel = kind(exported or source, **given_options)
    return Served(name, model, aliases=[*aliases, *own_names(model)], token_ids=token_ids)


def _none(described: manifest.Manifest) -> list[str]:
    """Of a repository's files only the manifest is wanted yet."""
    return []
