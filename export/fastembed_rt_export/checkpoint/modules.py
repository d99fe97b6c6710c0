"""What stands behind the transformer in modules.json: pooling, dense layers, layer norms, normalization, cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import settings
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import PERPLEXITYS, read_json
from ..graph import portable
from ..tensors import Tensors, read
from .activations import KNOWN, NAMED, OVER_VECTOR, WITH_WEIGHTS

VECTORS = "sentence_embedding"  # the feature that modules behind the pooling work on
GIVES = "module_output_name"
EOS = portable.EOS  # of the state at the end of the text, in models that have it inside; no mode of a Pooling
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
SHORT = {"mean_sqrt_len_tokens": "mean_sqrt_len"}  # as users say it
# The flags that older sentence-transformers wrote, in the order in which it concatenates them.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Dense:
    """A linear layer on the sentence embedding, with an activation."""

    tensors: Tensors
    inputs: int
    outputs: int
    bias: bool
    activation: str  # torch.nn's class
    residual: bool

    def __str__(self) -> str:
        activation = NAMED.get(self.activation, self.activation.lower())
        return f"Dense({self.inputs} -> {self.outputs}, {activation})"


@dataclass(frozen=True)
class LayerNorm:
    """A layer normalization of the sentence embedding."""

    tensors: Tensors
    dim: int

    def __str__(self) -> str:
        return f"LayerNorm({self.dim})"


@dataclass(frozen=True)
class Normalize:
    """Division by the L2 norm."""

    def __str__(self) -> str:
        return "Normalize"


@dataclass(frozen=True)
class Truncate:
    """The first numbers of each vector (Matryoshka); shorter vectors stay as they are."""

    dim: int

    def __str__(self) -> str:
        return f"Truncate({self.dim})"


@dataclass(frozen=True)
class WordMean:
    """What makes the mean of weighted words of that of (weight times vector, weight): the first by the last."""

    dim: int

    def __str__(self) -> str:
        return "WordWeights"


@dataclass(frozen=True)
class WholeTanh:
    """The tangent of each number in steps of 1 / 127, as whole numbers: of eight bits, but for their type."""

    def __str__(self) -> str:
        return "WholeTanh(127)"


Head = Dense | LayerNorm | Normalize | Truncate | WordMean | WholeTanh
QUANTIZER = PERPLEXITYS.rpartition(".")[2]
_FILES = {
    "Dense": settings.DENSE,
    "LayerNorm": settings.LAYER_NORM,
    "Normalize": settings.NORMALIZE,
    "Dropout": settings.DROPOUT,
}


def pooling_of(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Modes of a Pooling module, and whether prompts are pooled."""
    config = read_json(folder / "config.json")
    settings.check(settings.POOLING, config, folder / "config.json", [])
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    if not isinstance(modes, (str, list)):
        raise CheckpointError(f"{folder / 'config.json'} has pooling_mode {modes!r}, expected a name or a list")
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    return parse_pooling(modes), bool(config.get("include_prompt", True))


def parse_pooling(modes: tuple[str, ...]) -> tuple[str, ...]:
    """Pooling modes under sentence-transformers' names; mean_sqrt_len is short for mean_sqrt_len_tokens.

    Raises:
        UnsupportedCheckpointError: a mode that does not exist.
    """
    long = {short: mode for mode, short in SHORT.items()}
    spelled = tuple(long.get(mode, mode) if isinstance(mode, str) else mode for mode in modes)
    unknown = [mode for mode in spelled if mode not in POOLING_MODES]
    if unknown or not spelled:
        raise UnsupportedCheckpointError(
            f"pooling {unknown[0] if unknown else ''!r} is not known; "
            f"known: {', '.join(SHORT.get(mode, mode) for mode in POOLING_MODES)}"
        )
    return spelled


def module_head(
    kind: str, folder: Path, notes: list[str], on: str = VECTORS, gives: str | None = None
) -> tuple[Head, ...]:
    """Head of one module, which works on the feature `on`; dropout does nothing at inference.

    `gives`: what it has to call its result, if not the same.
    """
    if kind == QUANTIZER:
        notes.append(
            f"modules.json names code of the checkpoint's own ({PERPLEXITYS}), which is not run: built are the whole "
            "numbers of eight bits that pplx-embed-v1 makes by itself, and not its binary vectors"
        )
        return (WholeTanh(),)
    if kind not in _FILES:
        raise UnsupportedCheckpointError(
            f"modules.json has a {kind} module; built are Dense, LayerNorm, Dropout and Normalize behind the pooling"
        )
    beside = folder / "config.json"
    config = read_json(beside) if beside.is_file() or kind == "Dense" else {}
    settings.check(_FILES[kind], config, beside, notes)
    if kind == "Dropout":
        return ()
    _check_names(kind, folder, config, on, gives)
    if kind == "Normalize":
        return (Normalize(),)
    if kind == "LayerNorm":
        return (LayerNorm(Tensors(read(folder)[0]), _width(folder, "dimension")),)
    inputs, outputs = _width(folder, "in_features"), _width(folder, "out_features")
    activation = _activation(config, folder, on)
    residual = bool(config.get("use_residual"))
    return (Dense(Tensors(read(folder)[0]), inputs, outputs, bool(config.get("bias", True)), activation, residual),)


def _activation(config: Mapping[str, Any], folder: Path, on: str) -> str:
    """Class of torch.nn."""
    # Absent, it is Dense's own default; sentence-transformers writes it always.
    full = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = full.rpartition(".")[2]
    if name in WITH_WEIGHTS:
        raise UnsupportedCheckpointError(
            f"{folder.name}: Dense activation {full} is not built: it has weights of its own; built are torch.nn's "
            f"{', '.join(KNOWN)}"
        )
    if name not in KNOWN or not full.startswith("torch.nn."):
        raise UnsupportedCheckpointError(
            f"{folder.name}: Dense activation {full} is not built; built are torch.nn's {', '.join(KNOWN)}"
        )
    if name in OVER_VECTOR and on != VECTORS:
        raise UnsupportedCheckpointError(
            f"{folder.name}: Dense activation {full} is not built on token states, where torch takes it over the batch"
        )
    return name


def _check_names(kind: str, folder: Path, config: Mapping[str, Any], on: str, gives: str | None) -> None:
    for key, built in (("module_input_name", (None, on)), (GIVES, (None, on) if gives is None else (gives,))):
        if config.get(key) not in built:
            raise UnsupportedCheckpointError(f"{folder.name}: a {kind} with {key} {config.get(key)!r} is not built")


def _width(folder: Path, key: str) -> int:
    path = folder / "config.json"
    width = read_json(path).get(key)
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise CheckpointError(f"{path} has {key} {width!r}, expected a number of channels")
    return width
