"""The package of an engine, imported when it is used, or an error that says what brings it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingDependencyError


def required(module: str, extra: str) -> Any:
    """The module.

    Raises:
        MissingDependencyError: it does not import.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} does not import here ({error}); install fastembed-rt[{extra}]"
        ) from error
