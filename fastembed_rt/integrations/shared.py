"""Models that several objects of a framework name: opened once in a process, closed with the last that has them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ..models.base import LoadedModel

M = TypeVar("M", bound=LoadedModel)
_models: weakref.WeakValueDictionary[str, LoadedModel] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def shared_model(kind: type[M], name: str, options: Mapping[str, Any]) -> M:
    """The model of a name and options, which others may have too: it is not to be closed, nor assigned to.

    Args:
        kind: the class for its task.
        name: a model directory, a checkpoint or a hub repository.
        options: of `kind.from_checkpoint`, as a configuration file could hold them.

    Raises:
        ModelNotFoundError and others: as `from_checkpoint`.
    """
    key = repr((kind.__name__, name, sorted(options.items())))
    with _opening:
        found = _models.get(key)
        if found is None or found._closed:
            found = _models[key] = kind.from_checkpoint(name, **options)
    return cast(M, found)
