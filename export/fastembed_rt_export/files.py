"""The small files of a checkpoint, read and checked: JSON objects, the list of modules, the modules' folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastembed_rt.errors import ModelFormatError
from fastembed_rt.manifest import check_file_name

from .errors import CheckpointError, UnsupportedCheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """Object of a JSON file.

    Raises:
        CheckpointError: absent, not JSON, not an object.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; is {path.parent} a transformers checkpoint?") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(body, dict):
        raise CheckpointError(f"{path} holds {type(body).__name__}, expected an object")
    return body


def module_entries(root: Path, own: tuple[str, ...] = ("sentence_transformers.",)) -> list[tuple[str, str]]:
    """(class name, folder) of each module of modules.json, in order; classes of other packages than `own` are refused.

    Raises:
        CheckpointError, UnsupportedCheckpointError: see `load`.
    """
    try:
        body = json.loads((root / "modules.json").read_text(encoding="utf-8"))
        entries = sorted(body, key=lambda entry: int(entry["idx"]))
        chain = [(str(entry["type"]), str(entry.get("path", ""))) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{root / 'modules.json'} is not a list of modules ({error!r})") from error
    foreign = [kind for kind, _ in chain if not kind.startswith(own)]
    if foreign:
        raise UnsupportedCheckpointError(
            f"modules.json names {foreign[0]}, code of the checkpoint's own; "
            "only modules of sentence_transformers are built"
        )
    return [(kind.rpartition(".")[2], folder) for kind, folder in chain]


def inside(root: Path, folder: str) -> Path:
    """Folder of a module.

    Raises:
        CheckpointError: it is not in `root`.
    """
    try:
        check_file_name(folder or ".")
    except ModelFormatError as error:
        raise CheckpointError(f"modules.json names the folder {folder!r}, outside of {root}") from error
    return root / folder
