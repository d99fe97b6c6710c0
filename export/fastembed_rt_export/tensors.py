"""The tensors of a checkpoint by name: safetensors (one file or shards), or a torch pickle read with weights_only.

Reads a tensor when it is asked for its values, which have to be finite; keeps account of what was used, missing or
misshapen.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CheckpointError, MissingDependencyError, first_line, theirs
from .files import refuse_pointer
from .graph.weight import Array, Weight

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
WEIGHT_FILES = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLE, f"{PICKLE}.index.json")
FLOATS = {"F64", "F32", "F16", "BF16"}
_PIECE = 1 << 16  # numbers that are looked at together, which a core's cache holds
# What wrappers of a model leave in front of its tensors' names: DataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")
# What transformers drops: old Llamas hold the turns of their positions, which follow from config.json.
_COMPUTED = ".rotary_emb.inv_freq"
# Names from before transformers 1.0, which transformers still renames (BERT's first checkpoints have them).
_LEGACY_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True)
class Stored:
    """A tensor in its file: shape now, values as float32 on demand."""

    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it
    load: Callable[[], Array]
    take: Callable[[Sequence[int]], Array] | None = None  # some rows of it; None: they are read with all others


@dataclass
class Account:
    """What a build asked for."""

    used: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tensors:
    """A view of the stored tensors behind a prefix."""

    stored: Mapping[str, Stored]
    prefix: str = ""
    account: Account = field(default_factory=Account)

    def under(self, prefix: str) -> Tensors:
        """The tensors whose names begin with `prefix`, without it."""
        return Tensors(self.stored, self.prefix + prefix, self.account)

    def has(self, name: str) -> bool:
        """Whether tensor `name` is stored, where config.json leaves that open."""
        return self.prefix + name in self.stored

    def get(self, name: str, shape: tuple[int, ...]) -> Weight:
        """Tensor `name` of `shape`; faults are collected, `check` raises them all at once."""
        full = self.prefix + name
        stored = self.stored.get(full)
        self.account.used.add(full)
        if stored is None:
            self.account.missing.append(full)
        elif stored.shape != shape or stored.dtype not in FLOATS:
            self.account.misshapen.append(f"{full} is {stored.dtype} {stored.shape}, the config asks for float {shape}")
        else:
            return Weight(full, shape, stored.load, take=stored.take)
        return Weight(full, shape, lambda: np.zeros(shape, np.float32))

    def check(self, beside: tuple[str, ...]) -> tuple[str, ...]:
        """Names of unused tensors that lie beside the encoder, in `beside` or out of its own name space.

        Raises:
            CheckpointError: tensors missing, misshapen, or unused inside the encoder, where the checkpoint computes
                something that the builder does not; tensors of the encoder that are there twice.
        """
        account = self.account
        inner = {name[len(self.prefix) :] for name in account.used if self.prefix and name.startswith(self.prefix)}
        bare = [name for name in self.stored if name in inner]
        twice = [name for name in bare if self.has(name)]
        # Beside the encoder too, where transformers may take those that have the encoder's name in front.
        twice += [name for name in sorted(account.used) if self.prefix and name in self.stored and self.has(name)]
        refuse_twice(twice, f"with {self.prefix} in front and without")
        faults = []
        if account.missing:
            faults.append(f"missing: {some(account.missing)}")
        if bare:
            faults.append(f"there without {self.prefix} in front: {some(bare)}")
        if account.misshapen:
            faults.append(f"misshapen: {some(account.misshapen)}")
        spaces = {name[len(self.prefix) :].split(".")[0] for name in account.used if name.startswith(self.prefix)}
        unused = [name for name in self.stored if name not in account.used and not name.endswith(_COMPUTED)]
        inside = [
            name
            for name in unused
            if name.startswith(self.prefix)
            and not name[len(self.prefix) :].startswith(beside)
            and name[len(self.prefix) :].split(".")[0] in spaces
        ]
        if inside:
            faults.append(f"unknown inside the encoder: {some(inside)}")
        if faults:
            raise CheckpointError(
                f"the checkpoint's tensors do not fit its config.json; {'; '.join(faults)}; "
                "save it again with save_pretrained() of the model it was trained as (merge adapters first)"
            )
        return tuple(name for name in unused if name not in inside)


def refuse_twice(names: Sequence[str], how: str) -> None:
    """Raise CheckpointError where tensors are stored under two names, of which transformers takes one or the other."""
    if names:
        raise CheckpointError(
            f"the checkpoint holds tensors twice, {how}: {some(names)}; save it again with save_pretrained() of the "
            "model it was trained as"
        )


def some(names: Sequence[str], most: int = 4) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read(directory: Path, notes: list[str] | None = None) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    """Stored tensors of a directory and the files that hold them; safetensors first.

    `notes` gets a sentence where names were not as they should be.

    Raises:
        CheckpointError: no weights, a shard is missing, a file is damaged.
        MissingDependencyError: only a pickle is there, and torch is not.
    """
    files = weight_files(directory)
    stored: dict[str, Stored] = {}
    for file in files:
        stored.update(read_file(file))
    modern = {name: _modern(name) for name in stored}
    refuse_twice([new for old, new in modern.items() if old != new and new in stored], "one under a name from before")
    return _unwrapped({modern[name]: tensor for name, tensor in stored.items()}, directory, notes), files


def weight_files(directory: Path, *, with_index: bool = False) -> tuple[Path, ...]:
    """Files that hold the tensors of a directory, safetensors first; the list of shards too where it is asked for.

    Raises:
        CheckpointError: no weights, a shard is missing.
    """
    for name in (SAFETENSORS, PICKLE):
        index = directory / f"{name}.index.json"
        refuse_pointer(index)
        if (directory / name).is_file():
            return (directory / name,)
        if index.is_file():
            return (*_shards(index), *((index,) if with_index else ()))
    raise CheckpointError(
        f"{directory} has no weights: looked for {SAFETENSORS} and {PICKLE} (or their .index.json with shards)"
    )


def read_file(file: Path) -> dict[str, Stored]:
    """Stored tensors of one file: safetensors by its suffix, else a torch pickle.

    Raises:
        CheckpointError: damaged, or a Git LFS pointer.
        MissingDependencyError: a pickle, and torch is not installed.
    """
    refuse_pointer(file)
    stored = (_read_safetensors if file.suffix == ".safetensors" else _read_pickle)(file)
    return {name: _finite(tensor, name, file) for name, tensor in stored.items()}


def _finite(stored: Stored, name: str, file: Path) -> Stored:
    """The tensor, looked at when its values are first asked for.

    What nobody computes with, such as a mask of -inf that was saved beside the weights, may hold what it likes.
    """
    if stored.dtype not in FLOATS:
        return stored
    seen = False

    def load() -> Array:
        nonlocal seen
        values = stored.load()
        if not seen:
            refuse_not_finite(values, name, file)
            seen = True
        return values

    def take(rows: Sequence[int]) -> Array:
        assert stored.take is not None
        values = stored.take(rows)
        refuse_not_finite(values, name, file)
        return values

    return replace(stored, load=load, take=None if stored.take is None else take)


def refuse_not_finite(values: Array, name: str, file: Path) -> None:
    """Raise CheckpointError, which names the tensor and its file, where a value is NaN or infinite."""
    flat = values.reshape(-1)  # of what lies in C order a view
    bad = sum(
        len(piece) - int(np.count_nonzero(np.isfinite(piece)))
        for piece in (flat[begin : begin + _PIECE] for begin in range(0, len(flat), _PIECE))
    )
    if bad:
        raise CheckpointError(
            f"weight {name} in {file} is NaN or infinite in {bad} of its {len(flat)} numbers, and so would vectors be; "
            "save the checkpoint again from a state of training before that"
        )


def _modern(name: str) -> str:
    for old, new in _LEGACY_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _unwrapped(stored: dict[str, Stored], directory: Path, notes: list[str] | None) -> dict[str, Stored]:
    """The tensors without what a wrapper left in front of all their names."""
    found = ""
    while stored and (front := next((front for front in _WRAPPERS if all(n.startswith(front) for n in stored)), "")):
        stored = {name.removeprefix(front): tensor for name, tensor in stored.items()}
        found += front
    if found and notes is not None:
        notes.append(
            f"{directory.name}: all tensors are called {found}..., as a wrapper of the model names them, and were read "
            "without that; transformers does not find them and starts from random weights: save the model again for it"
        )
    return stored


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not a shard index ({error!r})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names the shard {name!r}; shards must lie beside their index")
    files = tuple(index.parent / name for name in names)
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise CheckpointError(f"shards are missing beside {index}: {some(absent)}; download the checkpoint again")
    return files


def _read_safetensors(file: Path) -> dict[str, Stored]:
    import ml_dtypes
    from safetensors import SafetensorError, safe_open

    types = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}

    def stored(name: str, dtype: str, shape: tuple[int, ...], begin: int) -> Stored:
        def floats(rows: Sequence[int] | None = None) -> Array:
            # Mapped for each tensor: nothing is copied that is float32 already, and pages that were read do not stay.
            mapped = np.memmap(file, types[dtype], "r", begin, shape)
            with np.errstate(over="ignore"):  # what becomes infinite is refused by name
                return np.asarray(mapped if rows is None else mapped[list(rows)]).astype(np.float32, copy=False)

        def load() -> Array:
            if dtype not in types or 0 in shape:
                with safe_open(file, framework="np") as opened:
                    return np.asarray(opened.get_tensor(name), dtype=np.float32)
            return floats()

        return Stored(shape, dtype, load, floats if dtype in types and 0 not in shape else None)

    try:
        with safe_open(file, framework="np") as opened:  # which checks the whole header
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  not a dict
            known = {name: (str(piece.get_dtype()), tuple(piece.get_shape())) for name, piece in slices.items()}
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        return {
            name: stored(name, dtype, shape, 8 + length + header[name]["data_offsets"][0])
            for name, (dtype, shape) in known.items()
        }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors ({error}); download it again") from error


def _read_pickle(file: Path) -> dict[str, Stored]:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"{file.name} is a torch pickle: install torch to read it (pip install 'fastembed-rt[verify]'), "
            f"or save the checkpoint as {SAFETENSORS}"
        ) from error
    spelled = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    try:
        # weights_only: tensors and plain containers, no code; mmap: values are read when used, which the format from
        # before torch 1.6 cannot do.
        state: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:
        if not theirs(error):
            raise
        reason = first_line(error)
        raise CheckpointError(f"{file} cannot be read as plain tensors ({reason}); save it as {SAFETENSORS}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{file} holds {type(state).__name__}, not tensors by name; save it as {SAFETENSORS}")

    def loader(tensor: Any) -> Callable[[], Array]:
        return lambda: np.asarray(tensor.detach().to(torch.float32).numpy())

    def dtype(tensor: Any) -> str:
        plain = tensor.layout is torch.strided
        return spelled.get(tensor.dtype, str(tensor.dtype)) if plain else f"{tensor.layout} of {tensor.dtype}"

    return {
        name: Stored(tuple(tensor.shape), dtype(tensor), loader(tensor))
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor)
    }
