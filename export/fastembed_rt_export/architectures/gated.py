"""Layers of the newer families: self-attention and a gated feed-forward, normalized before or after each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..graph.graph import Value
from ..graph.layers import Attention, Experts, FeedForward, Residual, ScoreBias
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
    feed_forward: FeedForward | Experts,
    beside: Norms,
    last: bool,
) -> Value:
    """x + attention(x), then x + feed_forward(x), with the norms `around` the first and `beside` the second.

    In the last layer, one token a text only where the pooling takes no others.
    """
    one = last and ops.keeps_one(attention, bias)
    with ops.scope("attention"):
        if one:
            read = _normed(ops, states, around.before)
            mixed = ops.self_attention(read, attention, bias, queries=ops.only_one(read, attention, bias))
            kept = ops.only_one(states, attention, bias)
            assert kept is not None
            states = _joined(ops, kept, _normed(ops, mixed, around.inside), around)
        else:
            states = _through(ops, states, around, partial(ops.self_attention, states, attention, bias))
    with ops.scope("feed_forward"):
        states = _through(ops, states, beside, partial(ops.feed_forward, states, feed_forward))
    return ops.mark_one(states) if one else states


def final_norm(ops: Ops, states: Value, norm: Norm) -> Value:
    """Normalization behind the last layer, of one token a text where that gave no others."""
    with ops.scope("final_norm"):
        return ops.norm_kept(states, norm)


def _through(ops: Ops, states: Value, norms: Norms, part: Callable[..., Value]) -> Value:
    """x + part(x) with its norms; `part` takes what it does at once, `before` and `then` of `Ops`."""
    if norms.inside is not None and norms.after is not None:
        return _joined(ops, states, _normed(ops, part(before=norms.before), norms.inside), norms)
    norm = norms.after if norms.inside is None else norms.inside
    joined = part(before=norms.before, then=Residual(states, norm, norm_first=norms.inside is not None))
    return joined if norms.again is None else ops.norm(ops.add(states, joined), norms.again)


def _joined(ops: Ops, states: Value, given: Value, norms: Norms) -> Value:
    """What came in with what a part made of it."""
    joined = ops.add(states, given) if norms.after is None else ops.add_norm(states, given, norms.after)
    return joined if norms.again is None else ops.norm(ops.add(states, joined), norms.again)


def _normed(ops: Ops, states: Value, norm: Norm | None) -> Value:
    return states if norm is None else ops.norm(states, norm)
