"""bfloat16 on CPUs with our own operators (fastembed_rt/native): a layer of an encoder in two nodes, as in native.py.

Weights of linear layers and the word table are stored in bfloat16, half of float32. Operators round the inputs of their
products to it, and add the products in float32; states, biases, norms, softmax and pooling are float32, positions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from fastembed_rt.native import DOMAIN

from . import native
from .graph import Graph, Value
from .int8 import Recipe
from .layers import Attention, FeedForward, Residual, ScoreBias
from .native import ACTIVATIONS, LANES
from .target import Target, Tokens
from .weight import Linear, Norm, Weight

BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)


def target() -> Target:
    """The target, whose linear layers are all in bfloat16."""
    base = native.target(Recipe(groups={}, folds={}, embedding=False))
    return replace(
        base,
        embed=embed,
        linears=linears,
        project=lambda graph, _, states, layers: linears(graph, states, layers),
        collect=lambda graph, _, mixed, layer: linears(graph, mixed, [layer])[0],
        attention_block=attention_block,
        feed_forward_block=feed_forward_block,
    )


def embed(graph: Graph, tokens: Tokens, table: Weight) -> Value:
    """Rows of the bfloat16 table (V, H)."""
    inputs = (tokens.input_ids, graph.weight(table.cast(BFLOAT16)))
    return graph.node("Bf16Embedding", *inputs, domain=DOMAIN, name="word")


def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
    """A node a layer."""
    found = []
    for layer in layers:
        node = Node(graph, "Bf16Linear", [states], {})
        node.group("linear", [layer])
        found.append(node.finish())
    return found


def attention_block(
    graph: Graph,
    tokens: Tokens,
    states: Value,
    *,
    attention: Attention,
    bias: ScoreBias,
    before: Norm | None,
    then: Residual | None,
) -> Value | None:
    """Self-attention in one node; None where the operator does not do what happens to queries and keys."""
    if not native.fits_in_node(attention):
        return None
    given = attention.projections
    node = Node(graph, "Bf16Attention", *native.attention_inputs(graph, tokens, states, attention, bias))
    node.group("input", [given.query, given.key, given.value])
    node.group("output", [given.output])
    node.head_norms(attention)
    node.norm("before_", before)
    return node.finish(then)


def feed_forward_block(
    graph: Graph, states: Value, *, layers: FeedForward, before: Norm | None, then: Residual | None
) -> Value | None:
    """A feed-forward in one node; None where the operator does not know the activation or the width."""
    activation, gated = ACTIVATIONS.get(layers.activation), layers.gate is not None
    if activation is None or (gated and layers.down.in_features % LANES):
        return None
    node = Node(graph, "Bf16FeedForward", [states], {"activation": activation, "gated": int(gated)})
    node.group("up", layers.first)
    node.group("down", [layers.down])
    node.norm("before_", before)
    return node.finish(then)


class Node(native.OwnNode):
    """An operator with groups of layers in bfloat16."""

    def group(self, prefix: str, layers: Sequence[Linear]) -> None:
        """Layers that share an input."""
        self.attributes[f"{prefix}_layers"] = len(layers)
        for layer in layers:
            bias = layer.bias or native.zeros(f"{layer.weight.name}.no_bias", layer.out_features)
            self.inputs += [self.graph.weight(weight) for weight in (layer.weight.transposed.cast(BFLOAT16), bias)]
