"""Longformer: RoBERTa whose layers see a window of tokens to each side.

Beltagy et al. 2020 (arXiv:2004.05150); tensor names as transformers writes them. A vector of a text is made without
global attention: sentence-transformers passes no global_attention_mask, and the model then has only its windows.
Its padding to a multiple of the window is masked, so windows are a band of scores here and nothing is padded.
"""

from __future__ import annotations

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import LAYER, embedded, refuse_other_attention
from .blocks import Config, Shape, linear, post_norm_layers

GLOBAL = ("query_global", "key_global", "value_global")  # projections of tokens with global attention


def longformer(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of LongformerModel without a global_attention_mask."""
    refuse_other_attention(config)
    shape = Shape.of(config)
    states = embedded(ops, config, tensors, shape.hidden, shape.epsilon, after_pad=True)
    for index in range(shape.layers):
        for name in GLOBAL:  # known and not used: no token attends to all
            linear(tensors.under(f"encoder.layer.{index}.attention.self."), name, shape.hidden, shape.hidden)
    reaches = windows(config, shape.layers)
    biases = {reach: ops.attention_bias(before=reach, after=reach) for reach in dict.fromkeys(reaches)}
    bias = [biases[reach] for reach in reaches]
    return post_norm_layers(ops, tensors, states, prefix="encoder.layer.{}.", names=LAYER, shape=shape, bias=bias)


def windows(config: Config, layers: int) -> list[int]:
    """How many tokens to each side each layer sees: half of its attention_window, a number for all or one a layer.

    Raises:
        CheckpointError: not even numbers of tokens, one a layer.
    """
    given = config.get("attention_window", 512)
    sizes = given if isinstance(given, list) else [given] * layers
    if len(sizes) != layers or any(type(size) is not int or size < 2 or size % 2 for size in sizes):
        raise CheckpointError(
            f"config.json has attention_window {given!r}, expected an even number of tokens or one for each of the "
            f"{layers} layers"
        )
    return [size // 2 for size in sizes]
