"""`from_checkpoint`: a model by its checkpoint's name, exported into the cache when that was not done before."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from ..cache.find import model_directory
from ..cache.wanted import Hub, Wanted
from ..errors import InvalidInputError
from ..hub.adapters import chosen
from ..precisions import MADE_WITH, PRECISIONS, listed, possible, targets_for, unknown
from ..run.providers import choose, provider_row
from ..run.session import require_running
from .answers import LOADING, answer
from .opening import LoadOptions, check_loading
from .options import check_device_ids

if TYPE_CHECKING:
    from .base import LoadedModel

M = TypeVar("M", bound="LoadedModel")


class ExportOptions(TypedDict, total=False):
    """What changes an export beside precision, target and provider; `LoadedModel.from_checkpoint` explains each."""

    pooling: str | None
    normalize: bool | None
    adapter: str | None
    tokens: bool
    calibration: str | os.PathLike[str] | None
    min_cosine: float | None
    exporter: str
    trust_remote_code: bool
    verify: bool


class OwnOptions(TypedDict, total=False):
    """Options of the classes' own; a class refuses those of another."""

    max_length: int | None
    truncate_dim: int | None
    max_active_dims: int | None
    query_length: int | None
    document_length: int | None
    prompts: Mapping[str, str] | None
    default_prompt_name: str | None
    truncation: str
    route: str | None


class CheckpointOptions(LoadOptions, OwnOptions, ExportOptions, total=False):
    """All that `from_checkpoint` takes."""

    show_progress: bool | None


EXPORTING = (*ExportOptions.__annotations__, "show_progress")
FINISHED = ("pooling", "normalize", "adapter", "calibration")  # of these: what a model directory cannot honour any more
HUB = ("revision", "token", "cache_dir", "local_files_only")


def from_checkpoint(kind: type[M], name: str | os.PathLike[str], options: Mapping[str, Any]) -> M:
    """A model of that class; see `LoadedModel.from_checkpoint`."""
    _check_names(kind, options)
    made: Callable[..., M] = kind  # as its subclasses are made
    loading = {key: value for key, value in options.items() if key not in EXPORTING}
    check_loading(name, options)
    for again in (True, False):
        found = find(name, options, task=kind.task)
        if found is None:
            return made(name, **loading)
        try:
            return made(found, **{key: value for key, value in loading.items() if key not in HUB})
        except Exception:
            if found.is_dir() or not again:  # else somebody cleared the cache between the two
                raise
    raise AssertionError("the second time returns or raises")


def find(
    name: str | os.PathLike[str], options: Mapping[str, Any], *, task: str | None = None, export: bool = True
) -> Path | None:
    """The model directory of a checkpoint, exported if need be; None for the name of a model directory.

    Args:
        name: a directory or a hub repository.
        options: of `from_checkpoint`; those of classes have no part in this.
        task: of the class that opens it; None takes what the checkpoint is for.
        export: False: what is not in the cache is an error.

    Raises:
        As `LoadedModel.from_checkpoint`.
    """
    given = {key: options[key] for key in ExportOptions.__annotations__ if key in options}
    chosen(options.get("adapter"))  # here, before anything is fetched
    asked = _Asked(*(options.get(key) for key in ("provider", "target", "precision", "device_ids")))

    def choose() -> Wanted:
        target, precision = _made(asked)
        return Wanted(precision=precision, target=target, **given)

    hub = Hub(**{key: options[key] for key in HUB if key in options})
    shown = options.get("show_progress")
    found = model_directory(
        name, choose, hub, task=task, export=export, ready=lambda: _check_running(asked), show_progress=shown
    )
    changed = [key for key in FINISHED if given.get(key) is not None]
    if found is None and changed:
        raise InvalidInputError(
            f"{changed[0]}={given[changed[0]]!r} is for checkpoints, and {os.fspath(name)} is none: the graphs of a "
            "model directory are finished; leave it out, or give the checkpoint that it is from"
        )
    return found


@dataclass(frozen=True)
class _Asked:
    """What decides which graph runs, and where; None is the default."""

    provider: str | None
    target: str | None
    precision: str | None
    device_ids: Sequence[int] | None

    @property
    def runs(self) -> str:
        """The provider, which is known.

        Raises:
            InvalidInputError: a provider that does not exist.
        """

        def unsuited(name: str) -> str | None:
            made = _first(name, self.target)
            fits = made is not None and (self.precision is None or self.precision in PRECISIONS[made])
            return None if fits else f"precision {self.precision!r} and target {self.target!r} are not for it"

        return choose("cpu" if self.provider is None else self.provider, unsuited, self.devices).provider

    @property
    def devices(self) -> tuple[int, ...]:
        return check_device_ids(self.device_ids)


def _made(asked: _Asked) -> tuple[str, str]:
    """The export's target and precision that a model is loaded with.

    Raises:
        InvalidInputError: a provider, target or precision that does not exist, or that do not fit together.
    """
    target, precision = asked.target, asked.precision
    if precision is not None and (reason := unknown(precision)):
        raise InvalidInputError(reason)
    runs = asked.runs
    made = _first(runs, target)
    if made is None:
        known = ", ".join(provider_row(runs).targets)
        raise InvalidInputError(f"target {target!r} does not run with provider {runs!r}, which runs {known}")
    there = possible(provider_row(runs).targets if target is None else (target,))
    there = tuple(name for name in PRECISIONS[made] if name in there)
    if precision is None:
        return made, there[0]
    if precision not in there:
        what = f"provider {runs!r}" if target is None else f"target {target!r}"
        raise InvalidInputError(
            f"precision {precision!r} does not run with {what}, for which there are {listed(there)}; {precision} is "
            f"for target {listed(targets_for(precision), 'or')}"
        )
    return made, precision


def _check_running(asked: _Asked) -> None:
    """Raise what the load after an export would raise, as far as that is known before: exports take minutes.

    Raises:
        MissingDependencyError, ProviderUnavailableError: see `require_running`.
    """
    _, precision = _made(asked)
    require_running(asked.runs, precision, asked.target, asked.devices)


def _first(provider: str, target: str | None) -> str | None:
    """The export's target for a provider; None where the graph's target asked for does not run with it."""
    runs = provider_row(provider).targets
    if target is not None and target not in runs:
        return None
    named = runs[0] if target is None else target
    return MADE_WITH.get(named, named)


def _check_names(kind: type[LoadedModel], options: Mapping[str, Any]) -> None:
    """Before anything is exported, raise TypeError for options that neither the export nor the class has."""
    parameters = inspect.signature(kind).parameters.values()
    if any(entry.kind is entry.VAR_KEYWORD for entry in parameters):  # a subclass that knows itself
        return
    known = {entry.name for entry in parameters} | set(EXPORTING)
    wrong = sorted(options.keys() - known)
    if wrong:
        said = "; ".join(f"{name}: {answer(name, known, LOADING)}" for name in wrong)
        raise TypeError(f"{kind.__name__}.from_checkpoint has no option {', '.join(map(repr, wrong))}; {said}")
