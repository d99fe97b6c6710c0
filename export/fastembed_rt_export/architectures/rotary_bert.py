"""BERT with rotary positions: NomicBERT, GTE and Jina v3; their layers, as transformers 5 names them."""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.layers import Angles, Attention, Experts, FeedForward, Heads, Projections, ScoreBias
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Shape, layer_norm, linear
from .gated import Norms, layer
from .renamed import Renames

QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")
NOMIC = Renames(
    names=(
        (r"\bencoder\.layers\.", "layers."),
        (r"\bemb_ln\.", "embeddings.LayerNorm."),
        (r"\battn\.out_proj\.", "self_attn.o_proj."),
        (r"\bmlp\.fc11?\.", "mlp.up_proj."),
        (r"\bmlp\.fc12\.", "mlp.gate_proj."),
        (r"\bmlp\.fc2\.", "mlp.down_proj."),
        (r"\bnorm1\.", "post_attention_layernorm."),
        (r"\bnorm2\.", "post_mlp_layernorm."),
    ),
    fused={"attn.Wqkv": QKV},
)
GTE = Renames(
    names=(
        (r"\bencoder\.layer\.", "layers."),
        (r"\battention\.o_proj\.", "self_attn.o_proj."),
        (r"\battn_ln\.", "post_attention_layernorm."),
        (r"\bmlp_ln\.", "post_mlp_layernorm."),
    ),
    fused={"attention.qkv_proj": QKV, "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj")},
)
JINA = Renames(
    names=(
        (r"\bencoder\.layers\.", "layers."),
        (r"\bemb_ln\.", "embeddings.LayerNorm."),
        (r"\bmixer\.out_proj\.", "self_attn.o_proj."),
        (r"\bnorm1\.", "post_attention_layernorm."),
        (r"\bnorm2\.", "post_mlp_layernorm."),
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


def attention_layer(
    ops: Ops,
    tensors: Tensors,
    states: Value,
    *,
    shape: Shape,
    turn: Angles,
    bias: ScoreBias,
    feed_forward: FeedForward | Experts,
    biases: bool,
    last: bool,
) -> Value:
    """norm(x + attention(x)), then norm(x + feed_forward(x)); `biases`: of the projections."""
    width = shape.hidden
    projections = Projections(
        *(linear(tensors, f"self_attn.{part}_proj", width, width, bias=biases) for part in "qkvo")
    )
    return layer(
        ops,
        states,
        attention=Attention(projections=projections, heads=Heads.of(shape.heads), angles=turn),
        around=Norms(after=layer_norm(tensors, "post_attention_layernorm", width, shape.epsilon)),
        bias=bias,
        feed_forward=feed_forward,
        beside=Norms(after=layer_norm(tensors, "post_mlp_layernorm", width, shape.epsilon)),
        last=last,
    )
