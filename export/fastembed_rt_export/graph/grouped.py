"""Layers in groups, as convolutions of one token have them: group k of G reads the k-th part of the channels alone.

Each is given as its groups' linear layers. Made of the operations of `Ops`, so that every target and precision follows.
"""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Value
from .ops import Ops
from .target import Residual
from .weight import Linear

Grouped = Sequence[Linear]


def linears(ops: Ops, states: Value, layers: Sequence[Grouped]) -> list[Value]:
    """Several layers on one input; those with as many groups read the same parts, cut and quantized once."""
    found: dict[int, Value] = {}
    for groups in dict.fromkeys(map(len, layers)):
        alike = [k for k, layer in enumerate(layers) if len(layer) == groups]
        parts = _parts(ops, states, layers[alike[0]])
        made = [ops.linears(part, [layers[k][group] for k in alike]) for group, part in enumerate(parts)]
        found |= {k: _joined(ops, [own[place] for own in made]) for place, k in enumerate(alike)}
    return [found[k] for k in range(len(layers))]


def self_attention(
    ops: Ops,
    states: Value,
    layers: Sequence[Grouped],
    output: Linear,
    heads: int,
    bias: Value,
    queries: Value | None,
    then: Residual,
) -> Value:
    """Self-attention from a query, with the scale of the scores in it, a key and a value in groups.

    `queries`: from `Ops.only_first`.
    """
    query, key, value = layers
    key = [Linear(part.weight) for part in key]  # softmax drops what a bias adds to all keys alike
    target, graph, tokens = ops.target, ops.graph, ops.tokens
    if queries is None:
        q, k, v = (target.spread(graph, tokens, made) for made in linears(ops, states, [query, key, value]))
        mixed = target.attention(graph, tokens, q, k, v, heads, bias)
        out = target.collect(graph, tokens, mixed, output)
    else:
        assert target.attend_first is not None
        k, v = (target.spread(graph, tokens, made) for made in linears(ops, states, [key, value]))
        (q,) = linears(ops, queries, [query])
        out = ops.linear(target.attend_first(graph, tokens, q, k, v, heads, heads, bias), output)
    return ops.add_norm(then.states, out, then.norm)


def feed_forward(ops: Ops, states: Value, up: Grouped, activation: str, down: Grouped, then: Residual) -> Value:
    """down(activation(up(states))), and what follows it."""
    if len(up) == len(down):  # what a group makes, it alone reads
        parts = zip(_parts(ops, states, up), up, down, strict=True)
        out = _joined(ops, [ops.feed_forward(part, wide, activation, narrow) for part, wide, narrow in parts])
    else:
        (wide,) = linears(ops, states, [up])
        (out,) = linears(ops, ops.activation(wide, activation), [down])
    return ops.add_norm(then.states, out, then.norm)


def _parts(ops: Ops, states: Value, layer: Grouped) -> list[Value]:
    """What each group of the layer reads."""
    if len(layer) == 1:
        return [states]
    sizes = ops.graph.constant([part.in_features for part in layer])
    return ops.graph.node_outputs("Split", states, sizes, count=len(layer), axis=-1, name="parts")


def _joined(ops: Ops, parts: Sequence[Value]) -> Value:
    return parts[0] if len(parts) == 1 else ops.graph.node("Concat", *parts, axis=-1, name="joined")
