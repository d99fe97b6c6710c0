"""GTE's own encoder (gte-*-v1.5, gte-multilingual): BERT with rotary positions and a gated feed-forward.

Zhang et al. 2024 (arXiv:2407.19669); the hub calls it "new", transformers "gte". Tensors under the names of
transformers 5 (`rotary_bert.GTE`).
"""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import words_and_types
from .blocks import Config, Shape, layer_norm, refuse
from .rotary import angles
from .rotary_bert import attention_layer, gated_feed_forward

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
        own = tensors.under(f"layers.{index}.")
        with ops.scope(f"layer.{index}"):
            states = attention_layer(
                ops,
                own,
                states,
                shape=shape,
                turn=turn,
                bias=bias,
                feed_forward=gated_feed_forward(own, shape, bias=False, down_bias=True),
                biases=True,
                last=index == shape.layers - 1,
            )
    return states
