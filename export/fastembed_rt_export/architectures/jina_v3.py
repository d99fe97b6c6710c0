"""Jina's third embedding model: XLM-RoBERTa with rotary positions (Sturua et al. 2024, arXiv:2409.10173).

Tensors under the names of transformers 5 (`rotary_bert.JINA`).
"""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.layers import FeedForward
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import words_and_types
from .blocks import Config, Shape, layer_norm, linear
from .rotary import angles
from .rotary_bert import attention_layer

THETA = 20_000.0  # where config.json names none
EPSILON = 1e-5  # likewise


def jina_v3(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of JinaEmbeddingsV3Model."""
    shape = Shape.of({"layer_norm_eps": EPSILON, **config})
    width = shape.hidden
    with ops.scope("embeddings"):
        states = words_and_types(ops, config, tensors.under("embeddings."), width, 1)
        states = ops.norm(states, layer_norm(tensors, "embeddings.LayerNorm", width, shape.epsilon))
    turn, bias = angles(ops, config, width // shape.heads, THETA), ops.attention_bias()
    for index in range(shape.layers):
        own = tensors.under(f"layers.{index}.")
        up = linear(own, "mlp.fc1", width, shape.intermediate)
        down = linear(own, "mlp.fc2", shape.intermediate, width)
        with ops.scope(f"layer.{index}"):
            states = attention_layer(
                ops,
                own,
                states,
                shape=shape,
                turn=turn,
                bias=bias,
                feed_forward=FeedForward(up, down, shape.activation),
                biases=True,
                last=index == shape.layers - 1,
            )
    return states
