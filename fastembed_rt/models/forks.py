"""Loaded models after a fork: the child has their memory and none of their threads."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Protocol

from ..run.contract import Runner


class Forked(Protocol):
    """What must know that it is in a child now."""

    def after_fork(self) -> None:
        """Give up what needs threads."""


class Lock:
    """A lock, and in a child another one: a thread that the child has not may have held its parent's at the fork."""

    def __init__(self) -> None:
        self._of_process: dict[int, AbstractContextManager[bool]] = {}

    def here(self) -> AbstractContextManager[bool]:
        """That of this process."""
        return self._of_process.setdefault(os.getpid(), threading.Lock())


_loaded: weakref.WeakSet[Forked] = weakref.WeakSet()


def watch(model: Forked) -> None:
    """Call `model.after_fork()` in every child, as long as the model lives."""
    _loaded.add(model)


def never_destroy(engine: Runner) -> None:
    """Keep an engine beyond the interpreter's end: destroying its sessions would wait for threads that do not exist."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    for session in engine.sessions:
        for handle in session.handles:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def _after_fork() -> None:
    if _loaded:
        # The tokenizers' thread pool did not survive either: whoever waits for it waits for good.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for model in list(_loaded):
        model.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
