"""Files below a directory, and those of a pattern: all of them, or an error that names what cannot be looked into.

`glob` and `Path.rglob` pass over a directory that they may not read, whose rows would be missing without a word.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidInputError

ANY = "**"  # directories, of any depth
SEPARATORS = os.sep + (os.altsep or "")


def below(directory: str, hidden: tuple[str, ...]) -> list[str]:
    """Files below a directory, in order; no link to another directory is followed.

    Nothing is looked at whose name begins with one of `hidden`.

    Raises:
        InvalidInputError: a directory that cannot be read.
    """
    found = []
    for place, directories, names in os.walk(directory, onerror=_raise):
        directories[:] = [name for name in directories if not name.startswith(hidden)]
        found += [str(Path(place, name)) for name in names if not name.startswith(hidden)]
    return sorted(found)


def matching(pattern: str) -> list[str]:
    """What a pattern stands for, in order, as `glob` reads it; no link is followed to a directory that it lies in.

    Raises:
        InvalidInputError: a directory that cannot be read.
    """
    drive, rest = os.path.splitdrive(pattern)
    root = drive + rest[: len(rest) - len(rest.lstrip(SEPARATORS))]
    parts = [part for part in re.split(f"[{re.escape(SEPARATORS)}]", rest) if part]
    return sorted(set(_matching(root, parts, ())))


def check_file(path: str) -> None:
    """Raise InvalidInputError for what is no file that can be read again: a link to nothing, a pipe, a device."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise InvalidInputError(f"input {path} is gone, or links to nothing; mend it, or take the name away") from error
    except OSError as error:
        raise InvalidInputError(f"input {path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise InvalidInputError(
            f"input {path} is a pipe or a device, which is read once, and files are looked at before they are read; "
            "save it to a file"
        )


def _raise(error: OSError) -> None:
    raise InvalidInputError(f"{error.filename} cannot be read ({error.strerror}); its files would be missing")


def _matching(place: str, parts: list[str], above: tuple[str, ...]) -> Iterator[str]:
    """Names below a place; `above` are the directories that it lies in, without links."""
    if not parts:
        yield place
        return
    first, *rest = parts
    if not glob.has_magic(first):
        if os.path.lexists(path := _within(place, first)):
            yield from _matching(path, rest, above)
        return
    here = os.path.realpath(place or os.curdir)
    if here in above:
        return
    inside = (*above, here)
    if first == ANY and rest:
        yield from _matching(place, rest, above)
    for name, is_directory in _entries(place):
        path = _within(place, name)
        if first == ANY:
            if name.startswith("."):
                continue
            if is_directory:
                yield from _matching(path, parts, inside)
            elif not rest:
                yield path
        elif fnmatch.fnmatch(name, first) and (first.startswith(".") or not name.startswith(".")):
            yield from _matching(path, rest, inside)


def _entries(place: str) -> Iterator[tuple[str, bool]]:
    """Names in a directory, and whether each is one itself; none where it is a file, or gone."""
    try:
        with os.scandir(place or os.curdir) as entries:
            yield from sorted((entry.name, _is_directory(entry)) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        _raise(error)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, of which whoever wants the file is told
        return False


def _within(place: str, name: str) -> str:
    return place + name if not place or place.endswith(tuple(SEPARATORS)) else f"{place}{os.sep}{name}"
