"""The small files of a checkpoint, read and checked: JSON objects, the list of modules, the modules' folders, and files
that stand for others: pointers of Git LFS, adapters without their model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastembed_rt.errors import ModelFormatError
from fastembed_rt.manifest import check_file_name

from .errors import CheckpointError, UnsupportedCheckpointError
from .settings import MODULES, check

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
PERPLEXITYS = "st_quantize.FlexibleQuantizer"  # code of pplx-embed-v1's own; checkpoint/modules.py has what it computes
_CHAIN, _ROUTER = "modules.json", "router_config.json"
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> dict[str, Any]:
    """Object of a JSON file.

    Raises:
        CheckpointError: absent, not JSON, not an object.
    """
    refuse_pointer(path)
    try:
        text = path.read_text(encoding="utf-8")
        body = json.loads(text)
        if "\\u" in text:  # half of a pair of surrogates is in no text, and files that are made of this one are texts
            json.dumps(body, ensure_ascii=False).encode()
    except FileNotFoundError as error:
        raise CheckpointError(_missing(path)) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(body, dict):
        raise CheckpointError(f"{path} holds {type(body).__name__}, expected an object")
    return body


def _missing(path: Path) -> str:
    """What to say of a file that is not there: of a module's folder, that the directory it belongs to is not whole."""
    for root in path.parent.parents[:2]:  # a Router's modules may lie one deeper
        lists = [(root / name, path.parent.relative_to(root).as_posix()) for name in (_CHAIN, _ROUTER)]
        for file, folder in lists:
            if file.is_file() and json.dumps(folder) in file.read_text(encoding="utf-8", errors="replace"):
                return (
                    f"{path} is missing, a file of the module {folder!r} that {file.name} of the sentence-transformers "
                    f"directory {root} names; copy or download the whole directory again"
                )
    return f"{path} is missing; is {path.parent} a transformers checkpoint?"


def module_entries(root: Path, own: tuple[str, ...] = ("sentence_transformers.",)) -> list[tuple[str, str]]:
    """(class name, folder) of each module of modules.json, in order; classes of other packages than `own` are refused.

    Raises:
        CheckpointError, UnsupportedCheckpointError: see `load`.
    """
    path = root / "modules.json"
    refuse_pointer(path)
    try:
        # In the order of the file, which is sentence-transformers': it does not look at `idx`.
        entries = [dict(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        chain = [(str(entry["type"]), str(entry.get("path", ""))) for entry in entries]
        names = [str(entry["name"]) for entry in entries if "name" in entry]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a list of modules ({error!r})") from error
    twice = [name for k, name in enumerate(names) if name in names[:k]]
    if twice:
        raise CheckpointError(f"{path} has two modules by the name {twice[0]!r}, of which only the second would count")
    for entry in entries:
        check(MODULES, entry, path, [])
    foreign = [kind for kind, _ in chain if not kind.startswith(own) and kind != PERPLEXITYS]
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


def refuse_pointer(path: Path) -> None:
    """Raise CheckpointError where a clone without Git LFS has left a pointer in place of a file."""
    try:
        with path.open("rb") as stream:
            pointer = stream.read(len(_POINTER)) == _POINTER
    except OSError:  # whoever reads it says so
        return
    if pointer:
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file itself; run git lfs pull in {path.parent}, or download it again"
        )


def refuse_adapter(directory: Path, weights: tuple[str, ...], notes: list[str]) -> None:
    """Refuse an adapter (LoRA and others), alone or beside a model, to which the reference applies it.

    Args:
        directory: of a transformer.
        weights: names of files that hold a whole model.
        notes: gets a sentence on an adapter's weights that nobody reads.

    Raises:
        UnsupportedCheckpointError: there is an adapter; the message says how it is merged.
    """
    if not (directory / ADAPTER).is_file():
        alone = [name for name in ADAPTER_WEIGHTS if (directory / name).is_file()]
        if alone:
            notes.append(f"{alone[0]} is not read: without {ADAPTER} it is no adapter, as for transformers")
        return
    said = read_json(directory / ADAPTER)
    kind = {"LORA": "a LoRA"}.get(str(said.get("peft_type")), f"a {said.get('peft_type') or 'PEFT'}")
    base = said.get("base_model_name_or_path") or "a model that it does not name"
    whole = any((directory / name).exists() for name in weights)
    what = (
        f"holds {kind} adapter for {base} beside a model, to which transformers applies it"
        if whole
        else (f"is {kind} adapter for {base}, not a model")
    )
    raise UnsupportedCheckpointError(
        f"{directory} {what}; merge it first: model.merge_and_unload() of peft's model (of transformers_model in "
        "sentence-transformers), then save_pretrained() into another directory, and export that"
    )
