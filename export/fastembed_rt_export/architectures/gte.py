"""GTE's own encoder (gte-*-v1.5, gte-multilingual): BERT with rotary positions and a gated feed-forward.

Zhang et al. 2024 (arXiv:2407.19669); the hub calls it "new", transformers "gte". Tensors under the hub's names, which
transformers writes too.
"""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.layers import Attention, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import words_and_types
from .blocks import Config, Shape, fused, layer_norm, linear, refuse
from .gated import Norms, layer
from .rotary import angles

THETA = {"new": 10_000.0, "gte": 160_000.0}  # where config.json names none


def gte(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of NewModel or GteModel."""
    refuse(config, "position_embedding_type", "rope")
    refuse(config, "layer_norm_type", "layer_norm")
    refuse(config, "logn_attention_scale", False)
    refuse(config, "logn_attention_clip1", False)
    refuse(config, "pack_qkv", True)
    shape = Shape.of(config)
    width = shape.hidden
    with ops.scope("embeddings"):
        states = words_and_types(ops, config, tensors.under("embeddings."), width, 1)
        states = ops.norm(states, layer_norm(tensors, "embeddings.LayerNorm", width, shape.epsilon))
    turn = angles(ops, config, width // shape.heads, THETA[config["model_type"]])
    bias = ops.attention_bias()
    for index in range(shape.layers):
        own = tensors.under(f"encoder.layer.{index}.")
        query, key, value = fused(own, "attention.qkv_proj", width, width, 3, bias=True)
        output = linear(own, "attention.o_proj", width, width)
        up, gate = fused(own, "mlp.up_gate_proj", width, shape.intermediate, 2, bias=False)
        down = linear(own, "mlp.down_proj", shape.intermediate, width)
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=Attention(
                    projections=Projections(query, key, value, output), heads=Heads.of(shape.heads), angles=turn
                ),
                around=Norms(after=layer_norm(own, "attn_ln", width, shape.epsilon)),
                bias=bias,
                feed_forward=FeedForward(up, down, shape.activation, gate=gate),
                beside=Norms(after=layer_norm(own, "mlp_ln", width, shape.epsilon)),
                last=index == shape.layers - 1,
            )
    return states
