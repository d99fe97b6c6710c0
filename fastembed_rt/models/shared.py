"""What equal models of one process have in common: opened files, one engine, tokenizers.

A model that was loaded by its constructor has its own. Copies of it, and models that arrive by pickle with the same
path, options and files, find what is there already. Nothing here is a model: settings are each model's own.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ..records import record
from ..run.contract import Runner
from ..system.threads import Task, aside, once
from ..text.tokenizer import TextTokenizer
from . import forks
from .opening import Opened

T = TypeVar("T")
TOKENIZERS = 2  # that stay for models to come: a late interaction model has two


class Shared:
    """An engine and what belongs to it. Safe to use from several threads and after a fork."""

    def __init__(self) -> None:
        self.checked = False  # the files' hashes have been compared
        self.process = os.getpid()
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()  # models that are open
        self.opened: Opened | None = None
        self._tasks: dict[Hashable, Task[Any]] = {}
        self._roles: dict[str, Shared] = {}
        self._tokenizers: weakref.WeakValueDictionary[Hashable, TextTokenizer] = weakref.WeakValueDictionary()
        self._recent: deque[TextTokenizer] | None = None
        forks.watch(self)

    def role(self, name: str) -> Shared:
        """Of another encoder out of the same directory."""
        return self._roles.setdefault(name, Shared())

    def keep(self) -> None:
        """Hold tokenizers too, for models that come when no other is there."""
        if self._recent is None:
            self._recent = deque(maxlen=TOKENIZERS)

    def open(self, find: Callable[[], Opened]) -> Opened:
        """The directory, opened by the first who asks."""

        def make() -> Opened:
            self.opened = find()
            return self.opened

        return self.opened or self._once("opened", make)

    def tokenizer(self, key: Hashable, read: Callable[[], TextTokenizer]) -> TextTokenizer:
        """The tokenizer with these settings, read by the first who asks."""

        def make() -> TextTokenizer:
            self._tokenizers[key] = made = read()
            return made

        found = self._tokenizers.get(key) or self._once(("tokenizer", key), make)
        if self._recent is not None and not any(found is other for other in list(self._recent)):
            self._recent.append(found)
        return found

    def starting(self, start: Callable[[], Runner]) -> Task[Runner]:
        """The engine that starts, or that is there."""
        return self._tasks.get("engine") or self._tasks.setdefault("engine", aside(start))

    def engine(self, start: Callable[[], Runner]) -> Runner:
        """The engine, started by the first who asks."""
        made: Runner = once(self._tasks, "engine", start)
        return made

    def failed(self) -> None:
        """What did not start is started again by the next who asks."""
        task = self._tasks.get("engine")
        if task is not None and task.finished and task.failed():
            self._tasks.pop("engine", None)

    def leave(self, model: object, engine: Runner | None) -> None:
        """A model is closed; the last one takes the engine with it."""
        with _registry.lock.here():
            self.users.discard(model)
            if self.users:
                return
            task = self._tasks.pop("engine", None)
            _registry.forget(self)
        if engine is None and task is not None and task.finished and not task.failed():
            engine = task.result()
        if engine is not None:
            engine.close()

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        try:
            made: T = once(self._tasks, key, make)
            return made
        finally:
            self._tasks.pop(key, None)

    def after_fork(self) -> None:
        """In a child: no engine came along, and what was being made never will be."""
        task = self._tasks.get("engine")
        if task is not None and task.finished and not task.failed():
            forks.never_destroy(task.result())
        self._tasks = {}


@record(frozen=True)
class Arrival:
    """What a model is made with that is not opened by its constructor."""

    opened: Opened
    shared: Shared
    longest: int | None = None  # tokens that the engine takes, where the model's own limit is not all


class _Registry:
    """Models of this process by path, options and files."""

    def __init__(self) -> None:
        self.lock = forks.Lock()  # of a few steps that wait for nothing
        self.known: weakref.WeakValueDictionary[Hashable, Shared] = weakref.WeakValueDictionary()
        self.kept: dict[Hashable, Shared] = {}  # where no model may be left between two tasks of a worker

    def forget(self, shared: Shared) -> None:
        for key in [key for key, found in self.known.items() if found is shared]:
            self.known.pop(key, None)
            self.kept.pop(key, None)


_registry = _Registry()


def announce(key: Hashable, shared: Shared) -> None:
    """Let copies of a model find what it has."""
    with _registry.lock.here():
        _registry.known.setdefault(key, shared)


def known(key: Hashable) -> Shared | None:
    """What a model that is there already has."""
    with _registry.lock.here():
        return _registry.known.get(key)


def arrived(key: Hashable, at_home: Shared | None) -> Shared:
    """What a model that came by pickle has, for it and for those to come; `at_home`: what there was when it came.

    Kept until the last of them is closed: a worker gets a new object with each task, and drops it behind it. What was
    loaded by this process itself is left to those who hold it.
    """
    with _registry.lock.here():
        found = _registry.known.setdefault(key, at_home or Shared())
        if at_home is None or at_home.process != os.getpid():
            _registry.kept[key] = found
            found.keep()
        return found
