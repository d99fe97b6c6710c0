"""Layers of the newer families: self-attention and a gated feed-forward, normalized before or after each."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.graph import Value
from ..graph.layers import Attention, FeedForward, ScoreBias
from ..graph.ops import Ops
from ..graph.weight import Norm


@dataclass(frozen=True)
class Norms:
    """Normalizations of one part of a layer; None where there is none."""

    before: Norm | None = None  # of what the part reads
    inside: Norm | None = None  # of what it gives
    after: Norm | None = None  # of the sum with what came in
    again: Norm | None = None  # of the sum of that with what came in


def layer(
    ops: Ops,
    states: Value,
    *,
    attention: Attention,
    around: Norms,
    bias: ScoreBias,
    feed_forward: FeedForward,
    beside: Norms,
    last: bool,
) -> Value:
    """x + attention(x), then x + feed_forward(x), with the norms `around` the first and `beside` the second.

    In the last layer, first tokens only where the pooling takes no others.
    """
    with ops.scope("attention"):
        read = _normed(ops, states, around.before)
        queries = ops.only_first(read) if last else None
        mixed = _normed(ops, ops.self_attention(read, attention, bias, queries=queries), around.inside)
        kept = ops.only_first(states) if queries is not None else None
        states = _joined(ops, states if kept is None else kept, mixed, around)
    with ops.scope("feed_forward"):
        read = _normed(ops, states, beside.before)
        given = _normed(ops, ops.feed_forward(read, feed_forward), beside.inside)
        states = _joined(ops, states, given, beside)
    return states if queries is None else ops.mark_first(states)


def final_norm(ops: Ops, states: Value, norm: Norm) -> Value:
    """Normalization behind the last layer, of first tokens only where that gave no others."""
    with ops.scope("final_norm"):
        return ops.norm_kept(states, norm)


def _joined(ops: Ops, states: Value, given: Value, norms: Norms) -> Value:
    """What came in with what a part made of it."""
    joined = ops.add(states, given) if norms.after is None else ops.add_norm(states, given, norms.after)
    return joined if norms.again is None else ops.norm(ops.add(states, joined), norms.again)


def _normed(ops: Ops, states: Value, norm: Norm | None) -> Value:
    return states if norm is None else ops.norm(states, norm)
