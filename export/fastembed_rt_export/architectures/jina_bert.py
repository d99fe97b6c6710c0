"""JinaBERT v2: BERT with symmetric ALiBi instead of positions and a gated feed-forward.

Günther et al. 2023 (arXiv:2310.19923), Press et al. 2021 (arXiv:2108.12409). Its code lies on the hub, in two versions
with tensor names of their own: jina-bert-implementation (base-en, small-en) and jina-bert-v2-qk-post-norm (code, de,
es, zh), which also normalizes queries and keys, and what comes out of attention twice.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..graph.graph import Value
from ..graph.layers import Attention, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..graph.weight import Weight
from ..tensors import Tensors
from .bert import LAYER, words_and_types
from .blocks import Config, Shape, fused, layer_norm, linear, refuse, setting
from .gated import Norms, layer

GATES = {"geglu": "gelu", "reglu": "relu", "swiglu": "silu"}


def jina_bert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of JinaBertModel."""
    refuse(config, "feed_forward_type", *GATES)
    refuse(config, "is_decoder", False)
    refuse(config, "add_cross_attention", False)
    shape = Shape.of(config)
    width = shape.hidden
    with ops.scope("embeddings"):
        states = words_and_types(ops, config, tensors.under("embeddings."), width)
        states = ops.norm(states, layer_norm(tensors, "embeddings.LayerNorm", width, shape.epsilon))
    bias = ops.attention_bias(_alibi(setting(config, "max_position_embeddings", int), shape.heads))
    for index in range(shape.layers):
        own = tensors.under(f"encoder.layer.{index}.")
        norm = partial(layer_norm, own, width=width, epsilon=shape.epsilon)
        post_norm = own.has("layer_norm_1.weight")  # the later code; config.json does not say
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=_attention(own, shape, post_norm),
                around=Norms(after=norm(LAYER.attention_norm), again=norm("layer_norm_1") if post_norm else None),
                bias=bias,
                feed_forward=_feed_forward(own, config, shape, post_norm),
                beside=Norms(after=norm("layer_norm_2" if post_norm else "mlp.layernorm")),
                last=index == shape.layers - 1,
            )
    return states


def slopes(heads: int) -> list[float]:
    """How much each head loses a token of distance: a geometric series, for the next lower power of two first.

    Where `heads` is no power of two, every second one of the series for the next higher power fills up.
    """
    lower = 2 ** int(math.log2(heads))
    series = [2.0 ** (-8.0 * (k + 1) / lower) for k in range(lower)]
    finer = [2.0 ** (-8.0 * (k + 1) / (2 * lower)) for k in range(0, 2 * lower, 2)]
    return [*series, *finer[: heads - lower]]


def _alibi(positions: int, heads: int) -> Weight:
    """What is added to the scores, by distance: (2P - 1, N)."""
    distance = np.abs(np.arange(-(positions - 1), positions, dtype=np.float32))
    table = -distance[:, None] * np.array(slopes(heads), dtype=np.float32)
    return Weight("alibi", table.shape, lambda: table)


def _attention(own: Tensors, shape: Shape, post_norm: bool) -> Attention:
    width = shape.hidden
    query, key, value, output = (
        linear(own, name, width, width) for name in (LAYER.query, LAYER.key, LAYER.value, LAYER.output)
    )
    projections, heads = Projections(query, key, value, output), Heads.of(shape.heads)
    if not post_norm:
        return Attention(projections=projections, heads=heads)
    norms = [layer_norm(own, f"attention.self.layer_norm_{part}", width, shape.epsilon) for part in "qk"]
    return Attention(projections=projections, heads=heads, query_norm=norms[0], key_norm=norms[1])


def _feed_forward(own: Tensors, config: Config, shape: Shape, post_norm: bool) -> FeedForward:
    """The gate comes first in the earlier code and last in the later one."""
    width, wide = shape.hidden, shape.intermediate
    activation = GATES[setting(config, "feed_forward_type", str, "geglu")]
    if post_norm:
        up, gate = fused(own, "mlp.up_gated_layer", width, wide, 2, bias=False)
        return FeedForward(up, linear(own, "mlp.down_layer", wide, width), activation, gate=gate)
    gate, up = fused(own, "mlp.gated_layers", width, wide, 2, bias=False)
    return FeedForward(up, linear(own, "mlp.wo", wide, width), activation, gate=gate)
