"""What several families share: reading a layer's tensors, and the post-norm transformer layer of BERT and its kin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.layers import Attention, FeedForward, Heads, Projections, Residual, ScoreBias
from ..graph.ops import Ops
from ..graph.weight import Linear, Norm
from ..tensors import Tensors

Config = Mapping[str, Any]
T = TypeVar("T", int, float, str)
LARGEST = 10**300  # of whole numbers that become floats


def setting(config: Config, key: str, kind: type[T], default: T | None = None) -> T:
    """Value of config.json under `key`.

    Raises:
        CheckpointError: absent without a default, or of another type; NaN or infinite, which JSON may hold.
    """
    value = config.get(key, default)
    if value is None:
        raise CheckpointError(f"config.json lacks {key!r}; is this the whole checkpoint?")
    if kind is float and isinstance(value, int):
        value = float(value) if abs(value) < LARGEST else math.inf
    bad = isinstance(value, float) and not math.isfinite(value)
    if not isinstance(value, kind) or isinstance(value, bool) or bad:
        raise CheckpointError(f"config.json has {key} = {value!r}, expected {kind.__name__}")
    return value


def refuse(config: Config, key: str, *accepted: object) -> None:
    """Raise UnsupportedCheckpointError unless config.json has one of the accepted values under `key` (or nothing)."""
    value = config.get(key)
    if value is not None and value not in accepted:
        raise UnsupportedCheckpointError(
            f"config.json has {key} = {value!r}; this builder knows {' or '.join(map(repr, accepted))} only"
        )


def refuse_causal(config: Config) -> None:
    """Raise UnsupportedCheckpointError where config.json asks an encoder to see only what is before a token.

    transformers hands is_causal on to the attention of its encoders as well, which counts it where no text is padded.
    """
    refuse(config, "is_causal", False)


def flag(config: Config, key: str, default: bool) -> bool:
    """Switch of config.json under `key`.

    Raises:
        CheckpointError: neither true nor false.
    """
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"config.json has {key} = {value!r}, expected true or false")
    return default if value is None else value


def linear(tensors: Tensors, name: str, inputs: int, outputs: int, *, bias: bool = True) -> Linear:
    """The linear layer `name`."""
    weight = tensors.get(f"{name}.weight", (outputs, inputs))
    return Linear(weight, tensors.get(f"{name}.bias", (outputs,)) if bias else None)


def fused(tensors: Tensors, name: str, inputs: int, outputs: int, parts: int, *, bias: bool) -> list[Linear]:
    """The linear layers of `outputs` each that are stored as one under `name`."""
    whole = linear(tensors, name, inputs, outputs * parts, bias=bias)
    places = [(part * outputs, (part + 1) * outputs) for part in range(parts)]
    return [Linear(whole.weight.rows(*rows), whole.bias.rows(*rows) if whole.bias else None) for rows in places]


def layer_norm(tensors: Tensors, name: str, width: int, epsilon: float, *, bias: bool = True) -> Norm:
    """The layer normalization `name`."""
    return Norm(
        tensors.get(f"{name}.weight", (width,)), tensors.get(f"{name}.bias", (width,)) if bias else None, epsilon
    )


@dataclass(frozen=True)
class Shape:
    """The sizes that every layer of an encoder shares."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    activation: str
    epsilon: float

    @classmethod
    def of(cls, config: Config) -> Shape:
        """Sizes under the names that BERT gave them."""
        return cls(
            hidden=setting(config, "hidden_size", int),
            intermediate=setting(config, "intermediate_size", int),
            layers=setting(config, "num_hidden_layers", int),
            heads=setting(config, "num_attention_heads", int),
            activation=setting(config, "hidden_act", str, "gelu"),
            epsilon=setting(config, "layer_norm_eps", float, 1e-12),
        )

    def __post_init__(self) -> None:
        if min(self.hidden, self.intermediate, self.layers, self.heads) < 1 or self.epsilon < 0:
            raise CheckpointError(f"config.json gives an impossible size: {self}")
        if self.hidden % self.heads:
            raise CheckpointError(f"config.json: hidden size {self.hidden} is not a multiple of {self.heads} heads")


@dataclass(frozen=True)
class LayerNames:
    """Where a family keeps the tensors of one layer, behind the layer's prefix."""

    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    up: str
    down: str
    feed_forward_norm: str


def post_norm_layers(
    ops: Ops,
    tensors: Tensors,
    states: Value,
    *,
    prefix: str | Sequence[str],
    names: LayerNames,
    shape: Shape,
    bias: ScoreBias | Sequence[ScoreBias],
) -> Value:
    """Layers of norm(x + attention(x)), then norm(x + feed_forward(x)).

    `prefix` has a {} for the layer's number, or is that of each layer in order; `bias` is for all layers, or a list of
    each layer's.
    """
    width = shape.hidden
    prefixes = [prefix.format(index) for index in range(shape.layers)] if isinstance(prefix, str) else prefix
    biases = [bias] * len(prefixes) if isinstance(bias, ScoreBias) else bias
    for index, own in enumerate(prefixes):
        layer = tensors.under(own)
        with ops.scope(f"layer.{index}"):
            with ops.scope("attention"):
                projections = Projections(
                    query=linear(layer, names.query, width, width),
                    key=linear(layer, names.key, width, width),
                    value=linear(layer, names.value, width, width),
                    output=linear(layer, names.output, width, width),
                )
                attention = Attention(projections=projections, heads=Heads.of(shape.heads))
                queries = ops.only_one(states) if index == len(prefixes) - 1 else None
                norm = layer_norm(layer, names.attention_norm, width, shape.epsilon)
                then = Residual(states if queries is None else queries, norm)
                states = ops.self_attention(states, attention, biases[index], queries=queries, then=then)
            with ops.scope("feed_forward"):
                up = linear(layer, names.up, width, shape.intermediate)
                down = linear(layer, names.down, shape.intermediate, width)
                norm = layer_norm(layer, names.feed_forward_norm, width, shape.epsilon)
                forward = FeedForward(up, down, shape.activation)
                states = ops.feed_forward(states, forward, then=Residual(states, norm))
                if queries is not None:
                    ops.mark_one(states)
    return states
