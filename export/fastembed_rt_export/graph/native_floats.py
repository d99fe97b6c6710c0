"""bf16 and fp32 with our own operators for CPUs (fastembed_rt/native): a layer in two nodes, as in native.py.

bf16: weights of linear layers and the word table are stored in bfloat16, half of float32. Operators round the inputs of
their products to it, and add the products in float32; states, biases, norms, softmax and pooling are float32, positions
too. fp32: all of it is float32, attention too, which has no matrix of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fastembed_rt.native import DOMAIN

from . import native
from .graph import FLOAT32, Graph, Value
from .int8 import Recipe
from .layers import Attention, FeedForward, Residual, ScoreBias
from .native import ACTIVATIONS, LANES
from .own_nodes import KINDS, FloatNode, Kind, float_linear
from .target import Target, Tokens
from .weight import Linear, Norm, Weight


def target(precision: str) -> Target:
    """The target whose linear layers are all in bf16 or fp32."""
    kind = KINDS[precision]
    in_float = kind.dtype == FLOAT32
    base = native.target(Recipe(groups={}, folds={}, embedding=False))

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        return [float_linear(graph, [states], layer, kind) for layer in layers]

    def largest(graph: Graph, tokens: Tokens, states: Value, layers: Sequence[Linear]) -> list[Value]:
        inputs = [states, native.starts_of(tokens)]
        return [float_linear(graph, inputs, layer, kind, largest=1) for layer in layers]

    return replace(
        base,
        embed=base.embed if in_float else _bf16_embed,
        linears=linears,
        largest=largest,
        project=lambda graph, _, states, layers: linears(graph, states, layers),
        collect=lambda graph, _, mixed, layer: linears(graph, mixed, [layer])[0],
        attention=partial(native.attention, first_only=False, in_float=in_float),
        attend_first=partial(native.attention, first_only=True, in_float=in_float),
        attention_block=partial(_attention_block, kind),
        feed_forward_block=partial(_feed_forward_block, kind),
    )


def _bf16_embed(graph: Graph, tokens: Tokens, table: Weight) -> Value:
    """Rows of the bfloat16 table (V, H)."""
    inputs = (tokens.input_ids, graph.weight(table.cast(KINDS["bf16"].dtype)))
    return graph.node("Bf16Embedding", *inputs, domain=DOMAIN, name="word")


def _attention_block(
    kind: Kind,
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
    node = FloatNode(kind, graph, "Attention", *native.attention_inputs(graph, tokens, states, attention, bias))
    node.group("input", [given.query, given.key, given.value])
    node.group("output", [given.output])
    node.head_norms(attention)
    node.norm("before_", before)
    return node.finish(then)


def _feed_forward_block(
    kind: Kind, graph: Graph, states: Value, *, layers: FeedForward, before: Norm | None, then: Residual | None
) -> Value | None:
    """A feed-forward in one node; None where the operator does not know the activation or the width."""
    activation, gated = ACTIVATIONS.get(layers.activation), layers.gate is not None
    if activation is None or (gated and layers.down.in_features % LANES):
        return None
    node = FloatNode(kind, graph, "FeedForward", [states], {"activation": activation, "gated": int(gated)})
    node.group("up", layers.first)
    node.group("down", [layers.down])
    node.norm("before_", before)
    return node.finish(then)
