"""Tensors under the names that transformers 5 gives them, of families whose checkpoints keep older names.

Renamed are parts of names; layers that are stored as one are taken apart, rows in order. Tensors that have the newer
names already stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import CheckpointError
from ..graph.weight import Array
from ..tensors import Stored


@dataclass(frozen=True)
class Renames:
    """What is called otherwise: patterns of parts of names, and layers in one with the layers that they are."""

    names: Sequence[tuple[str, str]]  # pattern, replacement
    fused: Mapping[str, tuple[str, ...]]

    def of(self, stored: Mapping[str, Stored]) -> dict[str, Stored]:
        """The same tensors.

        Raises:
            CheckpointError: two tensors of one name; rows of a layer in one that cannot be taken apart evenly.
        """
        found: dict[str, Stored] = {}
        for full, tensor in stored.items():
            for name, part in self._parts(full, tensor):
                if name in found:
                    raise CheckpointError(f"the checkpoint has {name} under two names")
                found[name] = part
        return found

    def _parts(self, full: str, tensor: Stored) -> list[tuple[str, Stored]]:
        name = full
        for pattern, replacement in self.names:
            name = re.sub(pattern, replacement, name)
        whole = next((whole for whole in self.fused if f".{whole}." in name), None)
        if whole is None:
            return [(name, tensor)]
        layers = self.fused[whole]
        if not tensor.shape or tensor.shape[0] % len(layers):
            raise CheckpointError(f"{full} is {tensor.shape}, which is not {len(layers)} layers in one")
        rows = tensor.shape[0] // len(layers)
        return [
            (name.replace(f".{whole}.", f".{layer}."), _rows(tensor, k * rows, rows)) for k, layer in enumerate(layers)
        ]


def _rows(tensor: Stored, start: int, count: int) -> Stored:
    def load() -> Array:
        return tensor.load()[start : start + count]

    made: Callable[[], Array] = load
    return replace(tensor, shape=(count, *tensor.shape[1:]), load=made, take=None)
