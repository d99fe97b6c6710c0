"""Module chains of a checkpoint: the one that modules.json lists, or one for each route through a Router in it.

An asymmetric model (sentence-transformers' Router, formerly Asym) has different modules for queries and documents; what
stands before and behind the Router belongs to every route.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import inside, module_entries, read_json

ROUTERS = ("Router", "Asym")
ROLES = ("query", "document")
TEXT = "text"  # the modality that there is here
OWN = "sentence_transformers."
Chain = list[tuple[str, Path]]  # class name and folder of each module


@dataclass(frozen=True)
class Routes:
    """A chain for plain encoding, and those of the roles that have another."""

    default: Chain
    name: str | None = None  # of the default route, where there is a Router
    others: Mapping[str, tuple[str, Chain]] | None = None  # "query", "document" -> name of the route and its chain
    notes: tuple[str, ...] = ()


def read_routes(root: Path) -> Routes:
    """The chains of the checkpoint in `root`.

    Raises:
        CheckpointError: damaged or contradictory.
        UnsupportedCheckpointError: code of the checkpoint's own, Routers in Routers.
    """
    entries = [(kind, inside(root, folder)) for kind, folder in module_entries(root)]
    places = [k for k, (kind, _) in enumerate(entries) if kind in ROUTERS]
    if not places:
        return Routes(entries)
    if len(places) > 1:
        raise UnsupportedCheckpointError("modules.json has several Router modules; one is built")
    place = places[0]
    chains, said = _read_router(entries[place][1])
    whole = {name: [*entries[:place], *chain, *entries[place + 1 :]] for name, chain in chains.items()}
    mappings = _mappings(said.get("route_mappings") or {}, chains, entries[place][1])
    notes = []
    # The order in which sentence-transformers looks: mappings, routes named for the task or for texts, the default.
    by_name = TEXT if TEXT in chains else None
    default = mappings.get((None, TEXT), mappings.get((None, None), by_name or said.get("default_route")))
    if default is None:
        default = next(iter(chains)) if said.get("allow_empty_key", True) else ROLES[1]
        if not said.get("allow_empty_key", True):
            notes.append(f"the Router asks for a route with every text; without one it is {default!r} here")
    if not isinstance(default, str) or default not in chains:
        raise CheckpointError(f"{entries[place][1]} has no route {default!r}; there are: {', '.join(chains)}")
    others = {}
    for role in ROLES:
        keys: tuple[tuple[str | None, str | None], ...] = ((role, TEXT), (role, None), (None, TEXT), (None, None))
        found = next((mappings[key] for key in keys if key in mappings), role if role in chains else by_name)
        if found is None:
            notes.append(f"the Router has no route for {role!r}")
        elif found != default:
            others[role] = (found, whole[found])
    left = [name for name in chains if name != default and name not in [name for name, _ in others.values()]]
    if left:
        notes.append(f"routes that no text takes are left out: {', '.join(left)}")
    return Routes(whole[default], default, others, tuple(notes))


def _read_router(folder: Path) -> tuple[dict[str, Chain], dict[str, Any]]:
    """The chain of each route, and the Router's settings."""
    config = next((folder / name for name in ("router_config.json", "config.json") if (folder / name).is_file()), None)
    if config is None:
        raise CheckpointError(f"{folder} has no router_config.json")
    body = read_json(config)
    types, structure = body.get("types"), body.get("structure")
    if not isinstance(types, dict) or not isinstance(structure, dict) or not structure:
        raise CheckpointError(f"{config} has no types and structure, which say what a route's modules are")
    chains: dict[str, Chain] = {}
    for name, modules in structure.items():
        chain = []
        for module in modules if isinstance(modules, list) else []:
            kind = types.get(module)
            if not isinstance(kind, str):
                raise CheckpointError(f"{config} names the module {module!r} of route {name!r} and not its type")
            _check_kind(kind, str(name))
            chain.append((kind.rpartition(".")[2], inside(folder, str(module))))
        chains[str(name)] = chain
    parameters = body.get("parameters")
    return chains, parameters if isinstance(parameters, dict) else {}


def _check_kind(kind: str, route: str) -> None:
    if not kind.startswith(OWN):
        raise UnsupportedCheckpointError(f"route {route!r} has a {kind}, code of the checkpoint's own; not built")
    if kind.rpartition(".")[2] in ROUTERS:
        raise UnsupportedCheckpointError(f"route {route!r} has a Router inside the Router; one is built")


def _mappings(said: object, chains: Mapping[str, Chain], folder: Path) -> dict[tuple[str | None, str | None], str]:
    """Routes by (task, modality) as they are written, "('query', 'text')": those that texts may take."""
    found: dict[tuple[str | None, str | None], str] = {}
    if not isinstance(said, dict):
        raise CheckpointError(f"{folder} has route_mappings {said!r}, expected routes by (task, modality)")
    for key, route in said.items():
        try:
            task, modality = ast.literal_eval(key)
        except (ValueError, SyntaxError, TypeError) as error:
            raise CheckpointError(f"{folder} has a route for {key!r}, expected (task, modality)") from error
        if not isinstance(route, str) or route not in chains:
            raise CheckpointError(f"{folder} maps {key} to {route!r}; there are: {', '.join(chains)}")
        if modality in (None, TEXT):
            found[task, modality] = route
    return found


def describe(chain: Sequence[tuple[str, Path]]) -> str:
    """Class names in order, for messages."""
    return ", ".join(kind for kind, _ in chain) or "nothing"
