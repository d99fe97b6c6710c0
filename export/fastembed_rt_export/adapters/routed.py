"""One adapter for queries and another for documents: a Router of sentence-transformers in place of the transformer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fastembed_rt.manifest import ROLES

from ..errors import InvalidInputError
from ..tensors import some

ROUTER = "0_Router"
PLAIN = "document"  # whose route texts without a role take
_TRANSFORMER, _CLASS = "sentence_transformers.models.Transformer", "sentence_transformers.models.Router"
Chosen = Mapping[str, str]  # adapter of each role, or of all texts ("")


def folder_of(role: str) -> str:
    """Of the transformer of a role, in the directory of its Router."""
    return f"{role}_0_Transformer"


def write_router(place: Path) -> None:
    """modules.json of the directory `place` with a Router where its transformer is named, and the Router's own file."""
    file = place / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8"))
    modules[0] = {**modules[0], "path": ROUTER, "type": _CLASS}
    modules[0].pop("kwargs", None)
    file.unlink()  # it may be a link
    file.write_text(json.dumps(modules), encoding="utf-8")
    (place / ROUTER).mkdir(parents=True, exist_ok=True)
    body = {
        "types": {folder_of(role): _TRANSFORMER for role in ROLES},
        "structure": {role: [folder_of(role)] for role in ROLES},
        "parameters": {"default_route": PLAIN, "allow_empty_key": True},
    }
    (place / ROUTER / "router_config.json").write_text(json.dumps(body), encoding="utf-8")


def refuse_unknown(names: Chosen, known: tuple[str, ...], checkpoint: str) -> None:
    """Raise InvalidInputError where an adapter was asked for that there is not."""
    unknown = [name for name in names.values() if name not in known]
    if unknown:
        there = f"there are {some(known, 20)}" if known else "it holds none"
        raise InvalidInputError(f"{checkpoint} has no adapter {unknown[0]!r}; {there}")
