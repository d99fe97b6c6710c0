"""modules.json and the modules' folders: what sentence-transformers runs on the token states of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from ..checkpoint.modules import POOLING_FLAGS, Dense, Head, LayerNorm, Normalize, Truncate
from ..checkpoint.record import Checkpoint
from ..graph.weight import Weight

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Module:
    """One entry of modules.json; `path` is the folder with its config.json."""

    kind: str  # class of sentence_transformers.models, a name that all its versions know
    path: str
    config: Mapping[str, Any] | None = None
    weights: Mapping[str, Weight] = field(default_factory=dict)  # by name in its file


def chain(checkpoint: Checkpoint) -> tuple[Module, ...]:
    """The modules that do what the graph does behind the transformer; a cut of the vectors is a setting, no module."""
    heads = [head for head in checkpoint.heads if not isinstance(head, Truncate)]
    return (
        Module("Transformer", ""),
        Module("Pooling", "1_Pooling", pooling(checkpoint)),
        *(_module(head, index) for index, head in enumerate(heads, start=2)),
    )


def listing(modules: Sequence[Module]) -> list[dict[str, Any]]:
    """modules.json."""
    return [
        {"idx": index, "name": str(index), "path": one.path, "type": f"sentence_transformers.models.{one.kind}"}
        for index, one in enumerate(modules)
    ]


def pooling(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json of the Pooling: the flags that every reader knows; they have an order of their own."""
    flags = {flag: mode in checkpoint.pooling for flag, mode in POOLING_FLAGS.items()}
    in_order = tuple(mode for mode in POOLING_FLAGS.values() if mode in checkpoint.pooling)
    return {
        "word_embedding_dimension": checkpoint.width,
        **flags,
        "include_prompt": checkpoint.include_prompt,
        **({} if in_order == checkpoint.pooling else {"pooling_mode": list(checkpoint.pooling)}),
    }


def save_weights(module: Module, work: Path) -> str:
    """Write the weights of a module beside its config.json; the file's name in `work`."""
    (work / module.path).mkdir(exist_ok=True)
    name = f"{module.path}/{WEIGHTS_FILE}"
    tensors = {key: weight.load().reshape(weight.shape).copy() for key, weight in module.weights.items()}
    save_file(tensors, work / name, metadata={"format": "pt"})
    return name


def _module(head: Head, index: int) -> Module:
    if isinstance(head, Normalize):
        return Module("Normalize", f"{index}_Normalize")
    if isinstance(head, LayerNorm):
        names = ("norm.weight", "norm.bias")
        weights = {name: head.tensors.get(name, (head.dim,)) for name in names}
        return Module("LayerNorm", f"{index}_LayerNorm", {"dimension": head.dim}, weights)
    assert isinstance(head, Dense), "modules are not written of others"
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (head.outputs, head.inputs)}
    if head.bias:
        shapes["linear.bias"] = (head.outputs,)
    if head.residual and head.inputs != head.outputs:
        shapes["residual.weight"] = (head.outputs, head.inputs)
    part = "linear" if head.activation == "Identity" else "activation"
    config = {
        "in_features": head.inputs,
        "out_features": head.outputs,
        "bias": head.bias,
        "activation_function": f"torch.nn.modules.{part}.{head.activation}",
        **({"use_residual": True} if head.residual else {}),
    }
    return Module(
        "Dense", f"{index}_Dense", config, {name: head.tensors.get(name, shape) for name, shape in shapes.items()}
    )
