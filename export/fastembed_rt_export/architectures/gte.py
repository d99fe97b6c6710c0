"""GTE's own encoder (gte-*-v1.5, gte-multilingual): BERT with rotary positions and a gated feed-forward.

Zhang et al. 2024 (arXiv:2407.19669); the hub calls it "new", transformers "gte". Tensors under the names of
transformers 5 (`rotary_bert.GTE`).
"""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.layers import FeedForward
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, Shape, refuse
from .rotary_bert import encoder, gated_feed_forward

THETA = {"new": 10_000.0, "gte": 160_000.0}  # where config.json names none


def gte(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of NewModel or GteModel."""
    refuse(config, "position_embedding_type", "rope")
    refuse(config, "layer_norm_type", "layer_norm")
    refuse(config, "logn_attention_scale", False)
    refuse(config, "logn_attention_clip1", False)
    refuse(config, "pack_qkv", True)
    shape = Shape.of(config)

    def feed_forward(own: Tensors, _: int) -> FeedForward:
        return gated_feed_forward(own, shape, bias=False, down_bias=True)

    return encoder(ops, config, tensors, shape, feed_forward, theta=THETA[config["model_type"]])
