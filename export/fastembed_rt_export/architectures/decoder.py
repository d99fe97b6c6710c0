"""What decoders used as encoders share: heads of a width of their own, a layer's tensors under Llama's names."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CheckpointError
from ..graph.layers import Angles, Attention, FeedForward, Heads, Projections
from ..graph.weight import Norm
from ..tensors import Tensors
from .blocks import Config, linear, setting


@dataclass(frozen=True)
class Sizes:
    """The sizes that every layer shares; keys and values may have fewer heads than queries."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head: int  # channels of a head, whatever hidden / heads is

    @classmethod
    def of(cls, config: Config) -> Sizes:
        """Sizes of config.json; without head_dim, or with null, the heads share the hidden size."""
        config = {key: value for key, value in config.items() if value is not None}
        hidden, heads = setting(config, "hidden_size", int), setting(config, "num_attention_heads", int)
        return cls(
            hidden=hidden,
            intermediate=setting(config, "intermediate_size", int),
            layers=setting(config, "num_hidden_layers", int),
            heads=heads,
            kv_heads=setting(config, "num_key_value_heads", int, heads),
            head=setting(config, "head_dim", int, hidden // max(heads, 1)),
        )

    def __post_init__(self) -> None:
        if min(self.hidden, self.intermediate, self.layers, self.heads, self.kv_heads, self.head) < 1:
            raise CheckpointError(f"config.json gives an impossible size: {self}")
        if self.heads % self.kv_heads:
            raise CheckpointError(
                f"config.json: {self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly"
            )


@dataclass(frozen=True)
class Biases:
    """Which linear layers of a layer have biases."""

    inputs: bool = False  # queries, keys and values
    output: bool = False
    feed_forward: bool = False


def rms_norm(tensors: Tensors, name: str, width: int, epsilon: float, *, centred: bool = False) -> Norm:
    """The RMS normalization `name`; `centred`: its weight is stored as the difference from 1 (Gemma)."""
    weight = tensors.get(f"{name}.weight", (width,))
    return Norm(weight.map("+1", lambda array: array + 1) if centred else weight, None, epsilon, rms=True)


def attention(
    tensors: Tensors,
    sizes: Sizes,
    angles: Angles,
    biases: Biases,
    *,
    scale: float | None = None,
    query_norm: Norm | None = None,
    key_norm: Norm | None = None,
    value_norm: Norm | None = None,
) -> Attention:
    """Self-attention of the layer whose tensors these are."""
    wide, narrow = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    return Attention(
        projections=Projections(
            query=linear(tensors, "self_attn.q_proj", sizes.hidden, wide, bias=biases.inputs),
            key=linear(tensors, "self_attn.k_proj", sizes.hidden, narrow, bias=biases.inputs),
            value=linear(tensors, "self_attn.v_proj", sizes.hidden, narrow, bias=biases.inputs),
            output=linear(tensors, "self_attn.o_proj", wide, sizes.hidden, bias=biases.output),
        ),
        heads=Heads(queries=sizes.heads, keys=sizes.kv_heads),
        scale=scale,
        angles=angles,
        query_norm=query_norm,
        key_norm=key_norm,
        value_norm=value_norm,
    )


def feed_forward(tensors: Tensors, sizes: Sizes, activation: str, *, bias: bool = False) -> FeedForward:
    """Gated feed-forward of the layer whose tensors these are."""
    return FeedForward(
        gate=linear(tensors, "mlp.gate_proj", sizes.hidden, sizes.intermediate, bias=bias),
        up=linear(tensors, "mlp.up_proj", sizes.hidden, sizes.intermediate, bias=bias),
        down=linear(tensors, "mlp.down_proj", sizes.intermediate, sizes.hidden, bias=bias),
        activation=activation,
    )
