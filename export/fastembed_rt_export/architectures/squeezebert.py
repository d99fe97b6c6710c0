"""SqueezeBERT: BERT whose layers are convolutions of one token, in groups (Iandola et al. 2020, arXiv:2006.11316).

Such a convolution is one linear layer a group, from that group's channels to its outputs. A single layer, with all of
them on its diagonal and zeros elsewhere, gives the same in 2.2 to 2.7 times the time (texts of 16 to 512 tokens, fp32
and INT8, AVX2) from a file of twice the size.
"""

from __future__ import annotations

import math

from ..errors import CheckpointError
from ..graph import grouped
from ..graph.graph import Value
from ..graph.layers import Heads, Residual
from ..graph.ops import Ops
from ..graph.weight import Linear
from ..tensors import Tensors
from .bert import embedded
from .blocks import Config, Shape, layer_norm, refuse, setting

EPSILON = 1e-12  # of the layers, fixed in transformers' modeling_squeezebert; the embeddings take config.json's
GROUPS = {"query": "q_groups", "key": "k_groups", "value": "v_groups"}


def squeezebert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of SqueezeBertModel."""
    shape = Shape.of(config)
    width = shape.hidden
    refuse(config, "embedding_size", width)
    refuse(config, "post_attention_groups", 1)
    states = embedded(ops, config, tensors, width, shape.epsilon)
    bias = ops.attention_bias()
    for index in range(shape.layers):
        layer = tensors.under(f"encoder.layers.{index}.")
        with ops.scope(f"layer.{index}"):
            queries = ops.only_one(states) if index == shape.layers - 1 else None
            with ops.scope("attention"):
                query, key, value = (
                    _grouped(layer, f"attention.{name}", width, width, _groups(config, option))
                    for name, option in GROUPS.items()
                )
                (output,) = _grouped(layer, "post_attention.conv1d", width, width, 1)
                query = [part.scaled(1.0 / math.sqrt(width // shape.heads)) for part in query]
                norm = layer_norm(layer, "post_attention.layernorm", width, EPSILON)
                then = Residual(states if queries is None else queries, norm)
                states = grouped.self_attention(
                    ops,
                    states,
                    grouped.GroupedProjections(query=query, key=key, value=value, output=output),
                    heads=Heads.of(shape.heads),
                    bias=bias,
                    queries=queries,
                    then=then,
                )
            with ops.scope("feed_forward"):
                up = _grouped(
                    layer, "intermediate.conv1d", width, shape.intermediate, _groups(config, "intermediate_groups")
                )
                down = _grouped(layer, "output.conv1d", shape.intermediate, width, _groups(config, "output_groups"))
                norm = layer_norm(layer, "output.layernorm", width, EPSILON)
                states = grouped.feed_forward(
                    ops, states, up, down, activation=shape.activation, then=Residual(states, norm)
                )
            if queries is not None:
                ops.mark_one(states)
    return states


def _groups(config: Config, key: str) -> int:
    return setting(config, key, int, 4)


def _grouped(tensors: Tensors, name: str, inputs: int, outputs: int, groups: int) -> list[Linear]:
    """The linear layer of each group of the convolution `name`."""
    if groups < 1 or inputs % groups or outputs % groups:
        raise CheckpointError(f"config.json: {inputs} channels to {outputs} cannot be cut into {groups} groups")
    weight = tensors.get(f"{name}.weight", (outputs, inputs // groups, 1))
    flat = weight.map(".flat", lambda array: array[:, :, 0], (outputs, inputs // groups))
    bias, step = tensors.get(f"{name}.bias", (outputs,)), outputs // groups
    places = [(k * step, (k + 1) * step) for k in range(groups)]
    return [Linear(flat.rows(*rows), bias.rows(*rows)) for rows in places]
