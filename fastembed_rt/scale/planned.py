"""What an Embed will do, decided and checked where it is made: workers far away are a bad place for first errors."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .. import manifest
from ..errors import InvalidInputError, InvalidTypeError
from ..hub.resolve import resolve_model
from ..manifest import CLASSES, EMBEDDING, LATE_INTERACTION, RERANKING, ROLES, SPARSE, Manifest
from ..models import travel
from ..models.answers import CALLS, answer
from ..models.base import LoadedModel
from ..models.opening import Source, chosen_variant, of_route
from ..models.options import positive
from ..models.prompts import Prompts
from ..system.paths import expanded
from ..text.windows import ERROR, check_on_null
from ..vectors import quantized
from .batches import LISTS
from .outputs import Dense, Output, Score, Sparse, Tokens

MODULES = {EMBEDDING: "embedding", RERANKING: "reranker", SPARSE: "sparse", LATE_INTERACTION: "late_interaction"}
HUB = ("revision", "token", "cache_dir", "local_files_only")
# The method of each task by role; None: neither queries nor documents.
METHODS: dict[str, dict[str | None, str]] = {
    EMBEDDING: {None: "encode", "query": "encode_query", "document": "encode_document"},
    SPARSE: {None: "encode", "query": "encode_query", "document": "encode_document"},
    LATE_INTERACTION: {None: "encode_document", "query": "encode_query", "document": "encode_document"},
    RERANKING: {None: "predict"},
}
KEPT_OUT = ("show_progress_bar", "return_tokens", "on_null")  # of `encode`: said otherwise, or of no use in a worker
Find = Callable[[], "str | os.PathLike[str]"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that travels."""

    ticket: travel.Ticket
    columns: tuple[str, ...]  # of texts: one, or a pair's two
    into: str
    output: Output
    method: str
    encode: Mapping[str, Any]
    on_null: str
    lists: str | None
    find: Find | None
    files: tuple[str, ...]  # of the directory that the model reads


def plan(
    model: str | os.PathLike[str] | LoadedModel,
    column: str | Sequence[str],
    into: str,
    *,
    role: str | None,
    encode: Mapping[str, Any],
    on_null: str,
    lists: str | None,
    find: Find | None,
    options: Mapping[str, Any],
) -> Plan:
    """What Embed's constructor was asked for, checked; arguments and errors are said there."""
    if isinstance(model, LoadedModel):
        if options:
            raise InvalidInputError(
                f"{', '.join(sorted(options))}: the model is open already; give these options to its constructor, "
                "or name its directory instead of the model"
            )
        ticket, found = travel.ticket(model), model._opened
    else:
        kind, given = _class_of(model, options)
        ticket, found = travel.unloaded(kind, model, **given)
    source = Source(path_or_name=ticket.path, **ticket.options)
    facts = of_route(found.whole, source.route)
    if role not in METHODS[facts.task]:
        known = "none" if facts.task == RERANKING else ", ".join(ROLES)
        raise InvalidInputError(f"role {role!r} is not one of a model for {facts.task}; known: {known}")
    method = METHODS[facts.task][role]
    called = _checked_call(ticket.kind, method, encode)
    prompts = Prompts(facts, ticket.settings["prompts"], ticket.settings.get("default_prompt_name"))
    prompts.text(called.get("prompt_name"), called.get("prompt"))
    check_on_null(on_null)
    if on_null != ERROR and facts.task == RERANKING:
        raise InvalidInputError(f"on_null {on_null!r} is not for pairs: both texts of each have to be there")
    if lists is not None and lists not in LISTS:
        raise InvalidInputError(f"lists {lists!r} is not known; known: {', '.join(LISTS)}")
    columns = _columns(column, facts.task)
    if into in columns:
        raise InvalidInputError(f"into {into!r} is a column of texts; name another")
    output = _output(facts, source, ticket.settings, called)
    return Plan(
        ticket=ticket,
        columns=columns,
        into=into,
        output=output,
        method=method,
        encode=called,
        on_null=on_null,
        lists=lists,
        find=find,
        files=(manifest.MANIFEST_FILE, *found.files.names),
    )


def _class_of(model: str | os.PathLike[str], options: Mapping[str, Any]) -> tuple[type[LoadedModel], dict[str, Any]]:
    """The class for a directory's task, and the options with the commit of a hub repository."""
    if not isinstance(model, (str, os.PathLike)):
        raise InvalidTypeError(f"model is {type(model).__name__}; expected a model directory, a name, or an open model")
    hub = {name: options[name] for name in HUB if name in options}
    directory = resolve_model(model, files=lambda _: (), **hub)
    task = manifest.read(directory).task
    kind: type[LoadedModel] = getattr(import_module(f"..models.{MODULES[task]}", __package__), CLASSES[task])
    given = dict(options)
    if directory != expanded(model):
        given["revision"] = directory.name  # of a snapshot, which is named by its commit: the hub is not asked again
    return kind, given


def _columns(column: str | Sequence[str], task: str) -> tuple[str, ...]:
    found = (column,) if isinstance(column, str) else tuple(column)
    wanted, said = (2, 'a pair of columns, such as ("query", "text")') if task == RERANKING else (1, "one column")
    if len(found) != wanted or not all(isinstance(name, str) for name in found):
        raise InvalidInputError(f"column {column!r} does not fit a model for {task}, which takes {said}")
    return found


def _checked_call(kind: type[LoadedModel], method: str, encode: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(getattr(kind, method)).parameters
    if any(entry.kind is entry.VAR_KEYWORD for entry in parameters.values()):  # passed on to `encode`
        parameters = inspect.signature(kind.encode).parameters  # type: ignore[attr-defined]
    known = {name for name, entry in parameters.items() if entry.kind is entry.KEYWORD_ONLY} - set(KEPT_OUT)
    own = {"on_null": "on_null= of Embed"}
    for name in encode:
        if name not in known:
            raise TypeError(f"{kind.__name__}.{method} has no {name} here. {answer(name, known, {**CALLS, **own})}")
    return dict(encode)


def _output(facts: Manifest, source: Source, settings: Mapping[str, Any], called: dict[str, Any]) -> Output:
    """What rows get; `called` loses vectors that ranges are taken from, which would travel with every batch."""
    if facts.task == SPARSE:
        return Sparse()
    if facts.task == LATE_INTERACTION:
        return Tokens(facts.dim)
    if facts.task == RERANKING:
        assert facts.reranking is not None  # the manifest is checked at birth
        labels = len(facts.reranking.labels)
        return Score() if labels == 1 else Dense(labels)
    if called.get("output", "sentence") != "sentence":
        from ..models.token_states import token_graph

        return Tokens(token_graph(chosen_variant(facts, source)).dim)
    wanted = called.get("truncate_dim", settings["truncate_dim"])
    dim = positive("truncate_dim", wanted, facts.dim, facts.dim)
    precision = called.get("precision", quantized.FLOAT32)
    form = quantized.form(precision, dim, called.get("ranges"), called.pop("calibration_embeddings", None))
    if form.needs_ranges:
        raise InvalidInputError(
            f"vectors as {precision} need ranges= or calibration_embeddings= in encode=: a batch does not know the "
            "vectors of the others"
        )
    if form.ranges is not None:
        called["ranges"] = form.ranges
    return Dense(form.width, form.kind.dtype)
