"""Models that are pickled or copied: what travels is where they came from, how they were opened, and their settings.

What arrives is of the model's class and holds a ticket. The first use opens it: by the path, else by the hub's name and
commit, and only if the files there are those that it was pickled with. Until then it costs nothing, and an error of
opening is that of the call, not of whoever unpickles.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, InvalidInputError, ModelNotFoundError
from ..hub.resolve import CACHED
from ..records import record
from ..system.threads import CLOSED, once
from . import forks, shared
from .kept_options import SECRETS
from .opening import Opened, Source, check_options, identity, opened

if TYPE_CHECKING:
    from .base import LoadedModel

ELSEWHERE = ("path_or_name", "revision", *SECRETS)  # of Source: what the path, or the commit, says; and secrets
TICKET, OPENING = "_ticket", "_opening"  # in the __dict__ of what is not open yet


@record(frozen=True, kw_only=True)
class Ticket:
    """A model on its way."""

    kind: type[LoadedModel]
    path: str  # absolute, where it was loaded
    name: str | None  # of the hub repository, where it came from one
    commit: str | None
    options: Mapping[str, Any]  # of Source
    identity: str
    longest: int  # tokens that its engine takes
    settings: Mapping[str, Any]  # of `_set_up`: they hold for this model alone

    @property
    def key(self) -> Hashable:
        """Equal for models that share an engine."""
        longest = self.longest if self.options["provider"] != "cpu" else None  # TensorRT's engines are built for it
        options = (tuple(value) if isinstance(value, list) else value for _, value in sorted(self.options.items()))
        return (self.kind.task, self.path, self.name, self.commit, self.identity, longest, *options)

    def source(self) -> Source:
        """Where to open it here.

        Raises:
            ModelNotFoundError: no such directory, and no hub name.
        """
        if Path(self.path).is_dir():
            return Source(path_or_name=self.path, **self.options)
        if self.name is None:
            raise ModelNotFoundError(
                f"a model arrived that was loaded from {self.path}, and there is no such directory here; put the model "
                "directory at the same path on every machine, or load it by its name on the hub"
            )
        return Source(path_or_name=self.name, revision=self.commit, **self.options)

    def fill(self, model: LoadedModel, at_home: shared.Shared | None) -> None:
        """Load an empty object, with what equal models of this process have.

        Raises:
            IntegrityError: the files here are others.
            ModelNotFoundError, ModelFormatError: no directory, or one that cannot be read.
        """
        common = shared.arrived(self.key, at_home)
        source = self.source() if common.opened is None else Source(path_or_name=self.path, **self.options)
        there = common.open(partial(opened, source, self.kind.task))
        found = identity(there.whole, source)
        if found != self.identity:
            common.opened = None
            raise IntegrityError(
                f"a model arrived with the fingerprint {self.identity}, and {there.path} has {found} here: another "
                "export, or another graph of it, whose vectors are not comparable; bring the directory up to date, or "
                "name precision= and target= when you load it"
            )
        model._set_up(source, shared.Arrival(there, common, self.longest), **self.settings)


def ticket(model: LoadedModel) -> Ticket:
    """The ticket of a model that is open."""
    place = _place(model._source, model._opened)
    return Ticket(**place, kind=type(model), longest=model._longest, settings=model._settings_now())


def announce(model: LoadedModel) -> None:
    """Let copies of a model find its engine, also those that arrive in a child of this process."""
    made = Ticket(**_place(model._source, model._opened), kind=type(model), longest=model._longest, settings={})
    shared.announce(made.key, model._shared)


def unloaded(kind: type[LoadedModel], path_or_name: str | os.PathLike[str], **options: Any) -> tuple[Ticket, Opened]:
    """The ticket of a model that is for other processes: its directory is read here, and nothing is loaded.

    Raises:
        TypeError: an option that the class does not have.
        ModelNotFoundError and others: as the class, of what the directory says; the rest shows where it is loaded.
    """
    known = inspect.signature(kind).parameters
    check_options(kind, options, known)
    defaults = {name: entry.default for name, entry in known.items() if entry.kind is entry.KEYWORD_ONLY}
    shared_options = {entry.name for entry in fields(Source)}
    given = {**defaults, **options}
    source = Source(
        path_or_name=path_or_name, **{name: value for name, value in given.items() if name in shared_options}
    )
    found = opened(source, kind.task)
    settings = {name: value for name, value in given.items() if name not in shared_options}
    return Ticket(**_place(source, found), kind=kind, longest=1, settings=settings), found


def _place(source: Source, found: Opened) -> dict[str, Any]:
    """Where a model came from and how it is opened."""
    cached = CACHED.fullmatch(found.path.as_posix())
    options = {entry.name: getattr(source, entry.name) for entry in fields(Source) if entry.name not in ELSEWHERE}
    options["cache_dir"] = None if source.cache_dir is None else str(source.cache_dir)
    options["device_ids"] = None if source.device_ids is None else list(source.device_ids)
    return {
        "path": str(found.path),
        "name": cached["name"].replace("--", "/") if cached else None,
        "commit": cached["commit"] if cached else None,
        "options": options,
        "identity": identity(found.whole, source),
    }


def reduced(model: LoadedModel) -> tuple[Any, ...]:
    """What pickle and copy make of a model, open or not."""
    state = vars(model)
    if TICKET in state:
        return arrive, (state[TICKET],), {name: value for name, value in state.items() if name not in _UNOPENED} or None
    model._check_open()
    foreign = {name: value for name, value in state.items() if name not in model._own}  # of the user's subclass
    return arrive, (ticket(model),), foreign or None


def arrive(given: Ticket) -> LoadedModel:
    """The model of a ticket, not open yet."""
    made = _unopened(given.kind).__new__(_unopened(given.kind))
    vars(made).update({TICKET: given, OPENING: {}, _AT_HOME: shared.known(given.key), _CLOSED: False})
    forks.watch(made)
    return made


_AT_HOME, _CLOSED = "_at_home", "_closed"  # what an open model of this process has, for a copy that outlives it
_UNOPENED = (TICKET, OPENING, _AT_HOME, _CLOSED)
_kinds: dict[type, type[Any]] = {}


def _unopened(kind: type[LoadedModel]) -> type[LoadedModel]:
    """A class whose objects become of `kind` when they are first used.

    Not a way through `kind` itself: open models pay nothing for those that travel.
    """
    if kind not in _kinds:
        ways: dict[str, Callable[..., Any]] = {
            "__getattribute__": _read,
            "__setattr__": _assign,
            "__repr__": _describe,
            "close": _close,
            "after_fork": _after_fork,
        }
        body = {**ways, "__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        _kinds.setdefault(kind, type(kind.__name__, (kind,), body))
    return _kinds[kind]


def _read(model: LoadedModel, name: str) -> Any:
    if name.startswith("__") or name in ("close", "after_fork"):
        return object.__getattribute__(model, name)
    for kind in type(model).__mro__:
        if name in vars(kind):
            if isinstance(vars(kind)[name], FunctionType):
                # A method that is looked up, as by whoever unpickles `model.encode`, is not called yet.
                return object.__getattribute__(model, name)
            break
    _open(model)
    return getattr(model, name)


def _assign(model: LoadedModel, name: str, value: Any) -> None:
    _open(model)
    setattr(model, name, value)


def _describe(model: LoadedModel) -> str:
    given: Ticket = vars(model)[TICKET]
    return f"{given.kind.__name__}({given.path!r}, not opened yet)"


def _close(model: LoadedModel) -> None:
    vars(model)[_CLOSED] = True


def _after_fork(model: LoadedModel) -> None:
    vars(model)[OPENING] = {}


def _open(model: LoadedModel) -> None:
    """Let a model become what it is, once, however many threads ask."""
    state = vars(model)
    opening = state.get(OPENING)
    if opening is None:  # meanwhile
        return
    if state[_CLOSED]:
        raise InvalidInputError(CLOSED)
    once(opening, "open", partial(_become, model))


def _become(model: LoadedModel) -> None:
    state = vars(model)
    given: Ticket = state[TICKET]
    made = given.kind.__new__(given.kind)
    given.fill(made, state[_AT_HOME])
    made._complete()
    made._shared.users.add(model)
    state.update({name: value for name, value in vars(made).items() if name != _CLOSED})
    object.__setattr__(model, "__class__", given.kind)
    for name in (TICKET, OPENING, _AT_HOME):
        state.pop(name)
    if model._closed:  # meanwhile
        model.close()
