"""adapter_config.json of a LoRA: which modules it changes, with which rank and scale; what else it says is refused.

As peft 0.21 reads it. No peft is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import ADAPTER, read_json
from ..settings import LORA, check

T = TypeVar("T")
METHOD = "LORA"
_ALL_LINEAR = "all-linear"
# Where layers_pattern says nothing: the first number with two names before it, "encoder.layer.3.".
_ANY_LAYER = r".*?\.[^.]*\.(?P<index>\d+)\."
MERGE = (
    "merge it with the library that it was trained with (merge_and_unload() of peft's model, which transformers_model "
    "is in sentence-transformers), save_pretrained() that into another directory, and export it"
)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What the file says, checked."""

    rank: int
    alpha: float
    root_of_rank: bool  # rsLoRA: the scale is alpha / sqrt(rank)
    ranks: Mapping[str, int]  # by pattern of a module's name
    alphas: Mapping[str, float]
    targets: str | tuple[str, ...]  # a pattern of whole names, "all-linear", or ends of names
    excluded: str | tuple[str, ...] = ()
    layers: tuple[int, ...] = ()  # the only ones, by index; (): all
    layers_pattern: tuple[str, ...] = ()
    saved_whole: tuple[str, ...] = ()  # modules_to_save

    def rank_of(self, module: str) -> int:
        """Rank of the adapter of one module."""
        return next(_matching(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """What B @ A is multiplied with."""
        rank = self.rank_of(module)
        alpha = next(_matching(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.root_of_rank else rank)

    @property
    def all_linear(self) -> bool:
        """Whether all linear layers have adapters, which names alone do not tell."""
        return isinstance(self.targets, str) and self.targets.lower() == _ALL_LINEAR

    def takes(self, module: str) -> bool:
        """Whether peft gives module `module` an adapter."""
        if _is_any(self.excluded, module) or self.saves(module):
            return False
        if self.all_linear:
            return True
        found = _is_any(self.targets, module)
        if isinstance(self.targets, str) or not self.layers:
            return found
        return found and self._layer(module) in self.layers

    def saves(self, module: str) -> bool:
        """Whether module `module` is saved as a whole, by itself or inside of one that is."""
        return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.saved_whole)

    def _layer(self, module: str) -> int | None:
        patterns = [rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\." for pattern in self.layers_pattern] or [_ANY_LAYER]
        found = next((match for pattern in patterns if (match := re.match(pattern, module))), None)
        return None if found is None else int(found["index"])


def _is_any(names: str | Sequence[str], module: str) -> bool:
    """Whether a pattern of the whole name, or one of several ends of names, is that of `module`."""
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _matching(values: Mapping[str, T], module: str) -> Iterator[T]:
    """Values of the patterns that are the end of a module's name."""
    return (value for pattern, value in values.items() if re.match(rf"(.*\.)?({pattern})$", module))


def read_lora(folder: Path) -> Lora:
    """The adapter of directory `folder`.

    Raises:
        CheckpointError: damaged.
        UnsupportedCheckpointError: another kind of adapter; something that would change vectors and is not built.
    """
    path = folder / ADAPTER
    said = read_json(path)
    method = said.get("peft_type")
    if method != METHOD:
        raise UnsupportedCheckpointError(
            f"{path} has peft_type {method!r}; adapters that are merged here are {METHOD}: {MERGE}"
        )
    # What a newer peft adds and leaves empty changes nothing.
    check(LORA, {key: value for key, value in said.items() if key in LORA.rules or value}, path, [])
    ranks, alphas = _table(said, "rank_pattern", path), _table(said, "alpha_pattern", path)
    made = Lora(
        rank=_number(said, "r", 8, path, whole=True),
        alpha=_number(said, "lora_alpha", 8, path),
        root_of_rank=bool(said.get("use_rslora")),
        ranks={key: _number(ranks, key, 0, path, whole=True) for key in ranks},
        alphas={key: _number(alphas, key, 0, path) for key in alphas},
        targets=_names(said, "target_modules", path),
        excluded=_names(said, "exclude_modules", path),
        layers=_layers(said, path),
        layers_pattern=_listed(said, "layers_pattern", path),
        saved_whole=_listed(said, "modules_to_save", path),
    )
    if not made.targets:
        raise UnsupportedCheckpointError(
            f"{path} has no target_modules, which peft chooses by the model's class; name them in the file"
        )
    if made.layers and isinstance(made.targets, str):
        raise CheckpointError(
            f"{path} has layers_to_transform and a pattern for target_modules; peft takes one of both"
        )
    _check_patterns(made, path)
    return made


def _check_patterns(made: Lora, path: Path) -> None:
    texts = [*made.ranks, *made.alphas, *made.layers_pattern, *made.saved_whole]
    for text in [*texts, *(names for names in (made.targets, made.excluded) if isinstance(names, str))]:
        try:
            re.compile(text)
        except re.error as error:
            raise CheckpointError(f"{path} has the pattern {text!r}, which is none ({error})") from error


def _number(said: Mapping[str, Any], key: str, default: int, path: Path, *, whole: bool = False) -> Any:
    value = said.get(key, default)
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise CheckpointError(f"{path} has {key} {value!r}, expected a {'whole ' if whole else ''}number above 0")
    return value


def _table(said: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = said.get(key) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} has {key} {value!r}, expected numbers by pattern")
    return value


def _names(said: Mapping[str, Any], key: str, path: Path) -> str | tuple[str, ...]:
    value = said.get(key) or ()
    return value if isinstance(value, str) else _listed(said, key, path)


def _listed(said: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = said.get(key) or ()
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{path} has {key} {value!r}, expected names")
    return tuple(value)


def _layers(said: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    value = said.get("layers_to_transform")
    value = [] if value is None else [value] if isinstance(value, int) else value
    if not isinstance(value, list) or not all(type(index) is int for index in value):
        raise CheckpointError(f"{path} has layers_to_transform {value!r}, expected numbers of layers")
    return tuple(value)
