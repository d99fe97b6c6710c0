"""ALBERT: groups of layers that are run several times, on narrower embeddings (Lan et al. 2019, arXiv:1909.11942)."""

from __future__ import annotations

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import embedded, refuse_other_attention
from .blocks import Config, LayerNames, Shape, linear, post_norm_layers, setting

LAYER = LayerNames(
    query="attention.query",
    key="attention.key",
    value="attention.value",
    output="attention.dense",
    attention_norm="attention.LayerNorm",
    up="ffn",
    down="ffn_output",
    feed_forward_norm="full_layer_layer_norm",
)
ACTIVATION = "gelu_new"  # where config.json names none


def albert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of AlbertModel."""
    refuse_other_attention(config)
    shape = Shape.of({"hidden_act": ACTIVATION, **config})
    width = setting(config, "embedding_size", int, 128)
    states = embedded(ops, config, tensors, width, shape.epsilon)
    with ops.scope("embeddings"):
        states = ops.linear(states, linear(tensors, "encoder.embedding_hidden_mapping_in", width, shape.hidden))
    prefixes = [f"encoder.albert_layer_groups.{group}.albert_layers.{layer}." for group, layer in _order(config, shape)]
    return post_norm_layers(ops, tensors, states, prefix=prefixes, names=LAYER, shape=shape, bias=ops.attention_bias())


def _order(config: Config, shape: Shape) -> list[tuple[int, int]]:
    """Group and number in it of each layer as it is run: every group for its share of the depth, whole each time."""
    groups = setting(config, "num_hidden_groups", int, 1)
    inner = setting(config, "inner_group_num", int, 1)
    if not 1 <= groups <= shape.layers or inner < 1:
        raise CheckpointError(
            f"config.json gives {shape.layers} layers in {groups} groups of {inner}; every group needs a layer"
        )
    # The division of transformers, rounding included: groups need not divide the depth.
    return [(int(turn / (shape.layers / groups)), layer) for turn in range(shape.layers) for layer in range(inner)]
