"""Mixtures of experts: a router's choice for each token, and the chosen feed-forwards' sum (Shazeer et al. 2017,
arXiv:1701.06538).

T tokens, K experts chosen for each, H hidden. Shares are those of the softmax over all experts, as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .graph import FLOAT, FLOAT32, Graph, Value
from .layers import Experts, FeedForward
from .target import Target

Run = Callable[[Value, FeedForward], Value]  # a feed-forward of token states


@dataclass(frozen=True)
class _Choice:
    """Of each token, best first: (..., K)."""

    experts: Value  # int64
    shares: Value


def mixed(graph: Graph, target: Target, states: Value, layers: Experts, run: Run) -> Value:
    """Token states -> what the experts make of them."""
    choice = _choose(graph, target, states, layers)
    if target.dispatches:
        total = _each_its_own(graph, states, layers, choice, run)
    else:
        total = _all(graph, states, layers.experts, choice, run)
    return total if layers.bias is None else graph.node("Add", total, graph.weight(layers.bias), name="experts+bias")


def _choose(graph: Graph, target: Target, states: Value, layers: Experts) -> _Choice:
    with graph.scope("router"):
        if target.dense is not None and graph.float_type == FLOAT32:
            logits = target.dense(graph, states, layers.router)
        else:
            logits = graph.node("MatMul", states, graph.weight(layers.router.weight.transposed), name="logits")
        if graph.float_type != FLOAT32:
            logits = graph.node("Cast", logits, to=FLOAT, name="logits")
        shares = graph.node("Softmax", logits, axis=-1, name="shares")
        count = graph.constant([layers.chosen])
        best, experts = graph.node_outputs("TopK", shares, count, count=2, axis=-1, name="best")
        if graph.float_type != FLOAT32:
            best = graph.node("CastLike", best, states, name="best")
    return _Choice(experts, best)


def _all(graph: Graph, states: Value, experts: Sequence[FeedForward], choice: _Choice, run: Run) -> Value:
    """Every expert computes every token, and counts where it was chosen."""
    total = None
    last = graph.constant([-1])
    for number, expert in enumerate(experts):
        with graph.scope(f"expert.{number}"):
            chosen = graph.node("Equal", choice.experts, graph.constant(number), name="chosen")
            share = graph.node("Where", chosen, choice.shares, graph.constant(0.0), name="share")
            share = graph.node("ReduceSum", share, last, keepdims=1, name="share")
            made = graph.node("Mul", run(states, expert), share, name="counted")
            total = made if total is None else graph.node("Add", total, made, name="total")
    assert total is not None
    return total


def _each_its_own(graph: Graph, states: Value, layers: Experts, choice: _Choice, run: Run) -> Value:
    """The tokens of each expert in rows behind those of the one before; then back to where they belong."""
    k, width = layers.chosen, layers.router.in_features
    rows = graph.node("Reshape", states, graph.constant([-1, width]), name="rows")
    flat = graph.node("Reshape", choice.experts, graph.constant([-1]), name="flat")  # (T * K,)
    places, made = [], []
    for number, expert in enumerate(layers.experts):
        with graph.scope(f"expert.{number}"):
            chosen = graph.node("Equal", flat, graph.constant(number), name="chosen")
            chosen = graph.node("NonZero", chosen, name="places")  # (1, n)
            mine = graph.node("Reshape", chosen, graph.constant([-1]), name="places")
            tokens = graph.node("Div", mine, graph.constant(k), name="tokens")
            made.append(run(graph.node("Gather", rows, tokens, name="rows"), expert))
            places.append(mine)
    place = graph.node("Concat", *places, axis=0, name="places")
    shape = graph.node("Shape", place, name="count")
    count = graph.node("Squeeze", shape, name="count")
    numbers = graph.node("Range", graph.constant(0), count, graph.constant(1), name="numbers")
    # Where each number of `place`, which has all of them once, stands in it.
    back = graph.node("ScatterElements", place, place, numbers, axis=0, name="back")
    sorted_back = graph.node("Gather", graph.node("Concat", *made, axis=0, name="made"), back, name="back")
    by_token = graph.node("Reshape", sorted_back, graph.constant([-1, k, width]), name="by_token")
    shares = graph.node("Reshape", choice.shares, graph.constant([-1, k, 1]), name="shares")
    total = graph.node(
        "ReduceSum", graph.node("Mul", by_token, shares, name="counted"), graph.constant([1]), keepdims=0, name="total"
    )
    return graph.node("Reshape", total, graph.node("Shape", states, name="shape"), name="total")
