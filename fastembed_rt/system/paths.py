"""Paths for those who are not Python: libraries that want UTF-8, and manifests that are UTF-8.

Where the locale's encoding is ASCII, Python keeps the other bytes of a file name as lone surrogates, which nothing can
encode as UTF-8. The bytes themselves are what the file system has.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InvalidInputError


def as_utf8(path: str | os.PathLike[str]) -> str:
    """The path as a string whose UTF-8 bytes are its name in the file system: what Rust and onnxruntime open.

    Raises:
        InvalidInputError: a name that is not UTF-8, which they cannot open.
    """
    if os.name == "nt":
        return os.fspath(path)
    name = os.fsencode(path)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"path {as_text(path)} is not UTF-8 (byte 0x{name[error.start]:02x}), and neither the tokenizer nor "
            "onnxruntime can open it; rename the directory, or reach it by a link with another name"
        ) from error


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ~ and ~user as home directories; as it is where there is no such home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError there


def as_text(path: str | os.PathLike[str]) -> str:
    """The path as text that any file or terminal of UTF-8 takes: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def of_text(text: str) -> str:
    """The path that `as_text` has written; not that of a name with such a backslash of its own."""
    escapes = re.compile(rb"\\x([89a-f][0-9a-f])")
    return os.fsdecode(escapes.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(text)))
