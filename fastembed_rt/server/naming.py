"""Names of what is served, out of what the command line says; loads nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InvalidInputError


def entries(wanted: Sequence[str], aliases: Iterable[str] = ()) -> list[tuple[str, str]]:
    """(name, model) of each `NAME=MODEL` or MODEL; without a name a directory's own, or what the hub calls it.

    What a model is known as beside its name may be another's too, as two exports of one checkpoint are: the first
    answers to it, and both to their names.

    Raises:
        InvalidInputError: two of one name, an alias that is another model's name, or a name or model that is empty.
    """
    found: dict[str, str] = {}
    for entry in wanted:
        given, sign, source = entry.partition("=")
        if not sign:
            given, source = "", entry
        if not source.strip() or (sign and not given.strip()):
            raise InvalidInputError(f"{entry!r} is not a model to serve; write NAME=MODEL or MODEL")
        name = given or (directory_name(source) if Path(source).is_dir() else source)
        if name in found:
            what = f"{found[name]} and {source}" if found[name] != source else f"{source}, given twice,"
            raise InvalidInputError(
                f"{what} would both answer to the name {name!r}; name them apart: NAME=MODEL, such as {name}-2={source}"
            )
        found[name] = source
    others = list(found)[1:]
    for alias in aliases:
        if alias in others:
            raise InvalidInputError(f"the alias {alias!r} of {next(iter(found))} is the name of another model")
    return list(found.items())


def directory_name(path: str) -> str:
    """Last part of a directory's path, `.` and `..` included; a link's own name, which stays when the link moves on."""
    return os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119  Path.resolve would follow the link
