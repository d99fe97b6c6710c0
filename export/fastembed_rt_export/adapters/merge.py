"""A base's tensors with a LoRA's added, in float32: W + scale * B @ A for (out, in) weights, transposed for tables.

Tensors that the adapter has whole (biases, modules_to_save) stand for the base's. A merged tensor is computed when it
is read, so that an export never holds two copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import ADAPTER_WEIGHTS
from ..graph.weight import Array
from ..tensors import FLOATS, Stored, read_file, some
from .lora import MERGE, Lora

_FRONT = "base_model.model."
# Behind a module's name: a linear layer's pair, a table's pair, a bias of B.
_PARTS = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", "lora_B.bias")
_LINEAR, _TABLE = _PARTS[:2], _PARTS[2:4]
# What peft's wrappers put between a module's name and its own tensors'.
_WRAPPED = (".base_layer.", ".modules_to_save.default.")
_ORIGINAL = ".original_module."


@dataclass(frozen=True)
class Merged:
    """Tensors of a base and its adapter."""

    stored: Mapping[str, Stored]
    changed: frozenset[str]  # names of those that the adapter changes or brings
    unplaced: tuple[str, ...]  # modules beside the encoder that it would change and that the base does not have


def weights_of(folder: Path) -> Path:
    """File with the adapter's tensors.

    Raises:
        CheckpointError: there is none.
    """
    found = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} has no weights of an adapter: looked for {' and '.join(ADAPTER_WEIGHTS)}")
    return found


def merge(base: Mapping[str, Stored], folder: Path, lora: Lora, prefix: str, beside: tuple[str, ...]) -> Merged:
    """The tensors of `base` with the adapter in directory `folder`.

    Args:
        base: tensors of the whole checkpoint.
        folder: of the adapter.
        lora: what it says.
        prefix: of an encoder's tensors where it was saved inside a task model.
        beside: beginnings of names of what is not the encoder.

    Raises:
        CheckpointError: tensors that are missing, that do not fit the base or what the adapter says.
        UnsupportedCheckpointError: tensors that are not understood.
    """
    file = weights_of(folder)
    names = _Names(base, prefix)
    parts, whole = _sorted(read_file(file), file)
    stored, changed, unplaced = dict(base), set(), []

    def is_beside(module: str) -> bool:
        return module.removeprefix(prefix).startswith(beside) or module.startswith(beside)

    for name, tensor in whole.items():
        found = names.find(name)
        if found is None and not lora.saves(name):
            if is_beside(name):
                unplaced.append(name)
                continue
            raise CheckpointError(_strange(file, [name], f"the base has no tensor of that name: {MERGE}"))
        if found is not None and tensor.shape != base[found].shape:
            raise CheckpointError(
                f"{file.name} has {name} {tensor.shape}, the base {base[found].shape}: it is for another base, or one "
                "whose vocabulary was resized; name the right one with --base"
            )
        stored[found or name] = tensor
        changed.add(found or name)
    for module, pieces in parts.items():
        if not lora.takes(module):
            raise CheckpointError(_strange(file, [f"{module}.{part}" for part in pieces], "no target_modules match it"))
        found = names.find(f"{module}.weight")
        if found is None:
            if not is_beside(f"{module}."):
                raise CheckpointError(_strange(file, [module], f"the base has no weights of that name: {MERGE}"))
            unplaced.append(module)
            continue
        stored[found] = _added(stored[found], pieces, module, lora, file)
        changed.add(found)
        if "lora_B.bias" in pieces:
            bias = names.find(f"{module}.bias")
            if bias is None:
                raise UnsupportedCheckpointError(f"{file.name} has a bias for {module}, whose base has none: {MERGE}")
            stored[bias] = _shifted(stored[bias], pieces["lora_B.bias"], lora.scale_of(module), f"{module}.bias", file)
            changed.add(bias)
    _check_all_there(names, lora, {*parts}, changed, is_beside, file)
    return Merged(stored, frozenset(changed), tuple(unplaced))


def count_known(base: Mapping[str, Stored], folder: Path, prefix: str) -> int:
    """How many of the names of the adapter in directory `folder` are those of tensors in `base`."""
    names, file = _Names(base, prefix), weights_of(folder)
    parts, whole = _sorted(read_file(file), file)
    return sum(names.find(name) is not None for name in (*whole, *(f"{module}.weight" for module in parts)))


class _Names:
    """Names of an adapter's modules in the base: the same, or with or without the prefix of a task model."""

    def __init__(self, base: Mapping[str, Stored], prefix: str) -> None:
        self.base, self._prefix = base, prefix
        self._kinds: set[str] = set()

    def find(self, name: str) -> str | None:
        """Name in the base of the adapter's `name`."""
        ways = {"same": name, "added": self._prefix + name, "removed": name.removeprefix(self._prefix)}
        kind = next((kind for kind, found in ways.items() if found in self.base), None)
        if kind is None:
            return None
        self._kinds.add(kind)
        return ways[kind]

    def of_adapter(self, name: str) -> str:
        """The other way around, as the names were that have been found."""
        if "same" in self._kinds or not self._kinds:
            return name
        return name.removeprefix(self._prefix) if "added" in self._kinds else self._prefix + name


def _sorted(tensors: Mapping[str, Stored], file: Path) -> tuple[dict[str, dict[str, Stored]], dict[str, Stored]]:
    """Parts of LoRA by module and kind, and tensors that stand for the base's by name."""
    parts: dict[str, dict[str, Stored]] = {}
    whole: dict[str, Stored] = {}
    strange = []
    for full, tensor in tensors.items():
        name = full.removeprefix(_FRONT)
        part = next((part for part in _PARTS if name.endswith(f".{part}")), None)
        if tensor.dtype not in FLOATS or not full.startswith(_FRONT):
            strange.append(full)
        elif part is not None:
            parts.setdefault(name.removesuffix(f".{part}"), {})[part] = tensor
        elif "lora_" in name or "token_adapter" in name:
            strange.append(full)
        elif _ORIGINAL not in name:  # which peft keeps and does not use
            for wrapped in _WRAPPED:
                name = name.replace(wrapped, ".")
            whole.setdefault(name, tensor)
    if strange:
        raise UnsupportedCheckpointError(_strange(file, strange, f"they are no plain LoRA's: {MERGE}"))
    if not parts:
        raise CheckpointError(f"{file} has no tensors of a LoRA (...lora_A.weight); was it saved before training?")
    return parts, whole


def _strange(file: Path, names: list[str], why: str) -> str:
    return f"{file.name} has {some(names)}, which cannot be merged: {why}"


def _added(base: Stored, pieces: Mapping[str, Stored], module: str, lora: Lora, file: Path) -> Stored:
    """The base's weight with the adapter's product, read when it is wanted."""
    kinds = {*pieces} - {"lora_B.bias"}
    if kinds not in ({*_LINEAR}, {*_TABLE}):
        raise CheckpointError(f"{file.name} has {', '.join(sorted(kinds))} of {module} alone; a LoRA is a pair A and B")
    table = kinds == {*_TABLE}
    first, second = (pieces[part] for part in (_TABLE if table else _LINEAR))
    rank = lora.rank_of(module)
    rows, columns, *kernel = base.shape if len(base.shape) > 1 else (0, 0)
    wanted = ((rank, rows), (columns, rank)) if table else ((rank, columns, *kernel), (rows, rank, *kernel))
    if base.dtype not in FLOATS:
        raise UnsupportedCheckpointError(
            f"the base's {module} is {base.dtype}, quantized weights; name the base that it was made of with --base"
        )
    # A convolution over one token is a linear layer.
    if (first.shape, second.shape) != wanted or any(size != 1 for size in kernel):
        raise CheckpointError(
            f"{file.name} has A {first.shape} and B {second.shape} of {module}, whose base is {base.shape}, with rank "
            f"{rank}: expected A {wanted[0]} and B {wanted[1]}; is it the right base? name it with --base"
        )
    scale = lora.scale_of(module)

    def load() -> Array:
        a, b = first.load().reshape(rank, -1), second.load().reshape(-1, rank)
        product = (b @ a) * a.dtype.type(scale)
        weight: Array = base.load() + (product.T if table else product).reshape(base.shape)
        return weight

    return Stored(base.shape, "F32", load)


def _shifted(base: Stored, shift: Stored, scale: float, name: str, file: Path) -> Stored:
    if shift.shape != base.shape:
        raise CheckpointError(f"{file.name} has {name} {shift.shape}, the base {base.shape}; is it the right base?")

    def load() -> Array:
        bias = base.load()
        shifted: Array = bias + shift.load() * bias.dtype.type(scale)
        return shifted

    return Stored(base.shape, "F32", load)


def _check_all_there(
    names: _Names,
    lora: Lora,
    modules: set[str],
    changed: set[str],
    is_beside: Callable[[str], bool],
    file: Path,
) -> None:
    """Refuse a file that lacks tensors of modules which the adapter is said to change."""
    missing = []
    for full, tensor in names.base.items():
        if not full.endswith(".weight") or is_beside(full):
            continue
        module = names.of_adapter(full.removesuffix(".weight"))
        layer = len(tensor.shape) > 1 and not lora.all_linear and lora.takes(module)
        if (layer and module not in modules) or (lora.saves(module) and full not in changed):
            missing.append(module)
    if missing:
        raise CheckpointError(f"{file.name} has no tensors of {some(missing)}, which its settings name; is it whole?")
