"""What a checkpoint refers to: the bases of its adapters, which decide its vectors as its own files do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ..hub.resolve import ADAPTER


class Base(NamedTuple):
    """The base that an adapter names."""

    name: str  # a directory or a hub repository
    revision: str | None


def bases(folder: Path) -> list[Base]:
    """Of the adapters in a checkpoint's directory and its modules'; what cannot be read is for the export to refuse."""
    found = []
    for file in sorted([*folder.glob(ADAPTER), *folder.glob(f"*/{ADAPTER}")]):
        base = base_of(file)
        found += [base] if base is not None else []
    return found


def base_of(config: Path) -> Base | None:
    """The base that an adapter's configuration names, if one."""
    try:
        said = json.loads(config.read_bytes())
        name, revision = said.get("base_model_name_or_path"), said.get("revision")
    except (OSError, ValueError, AttributeError):
        return None
    if not isinstance(name, str) or not name:
        return None
    return Base(name, revision if isinstance(revision, str) and not Path(name).is_dir() else None)
