"""Layers in groups, as convolutions of one token have them: group k of G reads the k-th part of the channels alone.

Each is given as its groups' linear layers. Made of the operations of `Ops`, so that every target and precision follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Value
from .layers import FeedForward, Heads, Residual, ScoreBias
from .ops import Ops
from .weight import Linear

Grouped = Sequence[Linear]


@dataclass(frozen=True, kw_only=True)
class GroupedProjections:
    """The projections of a self-attention whose query, key and value are in groups."""

    query: Grouped  # with the scale of the scores in it
    key: Grouped
    value: Grouped
    output: Linear


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
    projections: GroupedProjections,
    *,
    heads: Heads,
    bias: ScoreBias,
    queries: Value | None,
    then: Residual,
) -> Value:
    """Self-attention, and what follows it; `queries`: from `Ops.only_one`."""
    query, value = projections.query, projections.value
    key = [Linear(part.weight) for part in projections.key]  # softmax drops what a bias adds to all keys alike
    target, graph, tokens = ops.target, ops.token_graph, ops.tokens
    if queries is None:
        q, k, v = (target.spread(graph, tokens, made) for made in linears(ops, states, [query, key, value]))
        mixed = target.attention(graph, tokens, query=q, key=k, value=v, heads=heads, bias=bias)
        out = target.collect(graph, tokens, mixed, projections.output)
    else:
        assert target.attend_first is not None
        k, v = (target.spread(graph, tokens, made) for made in linears(ops, states, [key, value]))
        (q,) = linears(ops, queries, [query])
        mixed = target.attend_first(graph, tokens, query=q, key=k, value=v, heads=heads, bias=bias)
        out = ops.linear(mixed, projections.output)
    return ops.followed(out, then)


def feed_forward(ops: Ops, states: Value, up: Grouped, down: Grouped, *, activation: str, then: Residual) -> Value:
    """down(activation(up(states))), and what follows it."""
    if len(up) == len(down):  # what a group makes, it alone reads
        parts = zip(_parts(ops, states, up), up, down, strict=True)
        made = [ops.feed_forward(part, FeedForward(wide, narrow, activation)) for part, wide, narrow in parts]
        out = _joined(ops, made)
    else:
        (wide,) = linears(ops, states, [up])
        (out,) = linears(ops, ops.activation(wide, activation), [down])
    return ops.followed(out, then)


def _parts(ops: Ops, states: Value, layer: Grouped) -> list[Value]:
    """What each group of the layer reads."""
    if len(layer) == 1:
        return [states]
    sizes = ops.token_graph.constant([part.in_features for part in layer])
    return ops.token_graph.node_outputs("Split", states, sizes, count=len(layer), axis=-1, name="parts")


def _joined(ops: Ops, parts: Sequence[Value]) -> Value:
    return parts[0] if len(parts) == 1 else ops.token_graph.node("Concat", *parts, axis=-1, name="joined")
