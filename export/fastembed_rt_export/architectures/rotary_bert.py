"""BERT with rotary positions: NomicBERT, GTE and Jina v3; their layers, as transformers 5 names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..graph.graph import Value
from ..graph.layers import Attention, Experts, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import words_and_types
from .blocks import Config, Shape, layer_norm, linear, refuse_causal
from .gated import Norms, layer
from .renamed import Renames
from .rotary import angles

QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")
# Of the code with flash attention that both NomicBERT and Jina's grew from.
_OF_FLASH = (
    (r"\bencoder\.layers\.", "layers."),
    (r"\bemb_ln\.", "embeddings.LayerNorm."),
    (r"\bnorm1\.", "post_attention_layernorm."),
    (r"\bnorm2\.", "post_mlp_layernorm."),
)
NOMIC = Renames(
    names=(
        *_OF_FLASH,
        (r"\battn\.out_proj\.", "self_attn.o_proj."),
        (r"\bmlp\.fc11?\.", "mlp.up_proj."),
        (r"\bmlp\.fc12\.", "mlp.gate_proj."),
        (r"\bmlp\.fc2\.", "mlp.down_proj."),
    ),
    fused={"attn.Wqkv": QKV},
)
GTE = Renames(
    names=(
        (r"\bencoder\.layer\.", "layers."),
        (r"\battention\.o_proj\.", "self_attn.o_proj."),
        (r"\battn_ln\.", "post_attention_layernorm."),
        (r"\bmlp_ln\.", "post_mlp_layernorm."),
        (r"^lm_head\.norm\.", "lm_head.layer_norm."),
    ),
    fused={"attention.qkv_proj": QKV, "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj")},
)
# Row "gte" alone: transformers 5 writes what it read under the hub's names with the front that it has there.
GTE_SAVED_AGAIN = replace(GTE, names=((r"^new\.", "gte."), *GTE.names))
JINA = Renames(
    names=(
        *_OF_FLASH,
        (r"\bmixer\.out_proj\.", "self_attn.o_proj."),
    ),
    fused={"mixer.Wqkv": QKV},
)


def gated_feed_forward(tensors: Tensors, shape: Shape, *, bias: bool, down_bias: bool) -> FeedForward:
    """The gated feed-forward of the layer whose tensors these are."""
    up, gate = (
        linear(tensors, f"mlp.{name}_proj", shape.hidden, shape.intermediate, bias=bias) for name in ("up", "gate")
    )
    down = linear(tensors, "mlp.down_proj", shape.intermediate, shape.hidden, bias=down_bias)
    return FeedForward(up, down, shape.activation, gate=gate)


def encoder(
    ops: Ops,
    config: Config,
    tensors: Tensors,
    shape: Shape,
    feed_forward: Callable[[Tensors, int], FeedForward | Experts],
    *,
    theta: float,
    types: int = 1,
    biases: bool | None = True,
) -> Value:
    """last_hidden_state: norm(x + attention(x)), then norm(x + feed_forward(x)) in each layer.

    Args:
        ops: operations of the graph.
        config: config.json.
        tensors: the checkpoint's.
        shape: sizes of every layer.
        feed_forward: of the layer with these tensors and this number.
        theta: base of the rotary positions where config.json names none.
        types: token types, likewise.
        biases: whether projections have them; None: where the checkpoint has some.
    """
    refuse_causal(config)
    width = shape.hidden
    with ops.scope("embeddings"):
        states = words_and_types(ops, config, tensors.under("embeddings."), width, types)
        states = ops.norm(states, layer_norm(tensors, "embeddings.LayerNorm", width, shape.epsilon))
    turn, bias = angles(ops, config, width // shape.heads, theta), ops.attention_bias()
    for index in range(shape.layers):
        own = tensors.under(f"layers.{index}.")
        has = own.has("self_attn.q_proj.bias") if biases is None else biases
        projections = Projections(*(linear(own, f"self_attn.{part}_proj", width, width, bias=has) for part in "qkvo"))
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=Attention(projections=projections, heads=Heads.of(shape.heads), angles=turn),
                around=Norms(after=layer_norm(own, "post_attention_layernorm", width, shape.epsilon)),
                bias=bias,
                feed_forward=feed_forward(own, index),
                beside=Norms(after=layer_norm(own, "post_mlp_layernorm", width, shape.epsilon)),
                last=index == shape.layers - 1,
            )
    return states
