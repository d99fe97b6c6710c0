"""Packages of the extra [bulk], imported when they are needed, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingDependencyError


def required(module: str, what: str, install: str = "fastembed-rt[bulk]") -> Any:
    """The module of that name.

    Raises:
        MissingDependencyError: it does not import; `what` needs it, and `install` brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs {module.partition('.')[0]}, which does not import here ({error}); pip install '{install}'"
        ) from error


def flat(numbers: Any) -> Any:
    """A contiguous array of numbers as one of pyarrow's, without a copy.

    `pyarrow.array` imports pandas where it is installed, to know its kinds: a quarter of a second before a first text.
    """
    pyarrow = arrow()
    return pyarrow.Array.from_buffers(
        pyarrow.from_numpy_dtype(numbers.dtype), numbers.size, [None, pyarrow.py_buffer(numbers)]
    )


def arrow() -> Any:
    """The module pyarrow."""
    return required("pyarrow", "reading and writing tables")


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it."""
    fsspec = required("fsspec", url.partition("://")[0] + "://")
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose package is missing
        raise MissingDependencyError(f"{url} cannot be opened ({error})") from error
    return found


def is_url(name: str) -> bool:
    """Whether fsspec opens it: a protocol and `://`; `file://` too."""
    head, found, _ = name.partition("://")
    return bool(found) and head.replace("+", "").replace("-", "").isalnum()
