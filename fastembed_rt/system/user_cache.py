"""The directory for what can be made again: exports of checkpoints, TensorRT's engines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import InvalidInputError
from .paths import expanded

VARIABLE = "FASTEMBED_RT_CACHE"


def folder(kind: str) -> Path:
    """Where files of one kind are kept: in FASTEMBED_RT_CACHE, else in the user's cache directory; may not be there.

    The user's is XDG_CACHE_HOME or ~/.cache, on Windows LOCALAPPDATA, and `fastembed-rt` in there.

    Raises:
        InvalidInputError: none of these is set, and the user has no home, as in containers under a number of their own.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return _in_home(given) / kind
    windows = sys.platform == "win32"
    named = os.environ.get("LOCALAPPDATA" if windows else "XDG_CACHE_HOME")
    base = Path(named) if named else _in_home("~" if windows else "~/.cache")
    return base / "fastembed-rt" / kind


def _in_home(path: str) -> Path:
    found = expanded(path)
    if found.parts[:1] and found.parts[0].startswith("~"):
        raise InvalidInputError(
            f"there is no home directory for {path!r}: neither HOME nor the system's list of users names one; set "
            f"{VARIABLE} to a directory that can be written"
        )
    return found


def write_whole(file: Path, content: bytes) -> None:
    """Put content into a file, at once: who reads it finds the old or the new, and what fails leaves nothing behind.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    import tempfile  # which brings what compresses files

    number, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(content)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
