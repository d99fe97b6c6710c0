"""Jina's third embedding model: XLM-RoBERTa with rotary positions (Sturua et al. 2024, arXiv:2409.10173).

Tensors under the names of transformers 5 (`rotary_bert.JINA`).
"""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.layers import FeedForward
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, Shape, linear
from .rotary_bert import encoder

THETA = 20_000.0  # where config.json names none
EPSILON = 1e-5  # likewise


def jina_v3(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of JinaEmbeddingsV3Model."""
    shape = Shape.of({"layer_norm_eps": EPSILON, **config})

    def feed_forward(own: Tensors, _: int) -> FeedForward:
        up = linear(own, "mlp.fc1", shape.hidden, shape.intermediate)
        return FeedForward(up, linear(own, "mlp.fc2", shape.intermediate, shape.hidden), shape.activation)

    return encoder(ops, config, tensors, shape, feed_forward, theta=THETA)
