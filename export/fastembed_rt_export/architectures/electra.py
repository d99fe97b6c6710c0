"""ELECTRA: BERT on narrower embeddings, widened once before the layers (Clark et al. 2020, arXiv:2003.10555)."""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import LAYER, embedded, refuse_other_attention
from .blocks import Config, Shape, linear, post_norm_layers, setting


def electra(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of ElectraModel."""
    refuse_other_attention(config)
    shape = Shape.of(config)
    width = setting(config, "embedding_size", int, 128)
    states = embedded(ops, config, tensors, width, shape.epsilon)
    if width != shape.hidden:
        with ops.scope("embeddings"):
            states = ops.linear(states, linear(tensors, "embeddings_project", width, shape.hidden))
    return post_norm_layers(
        ops, tensors, states, prefix="encoder.layer.{}.", names=LAYER, shape=shape, bias=ops.attention_bias()
    )
