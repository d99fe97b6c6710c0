"""The operations that architectures and heads are written in, with the savings that are exact in every target.

Query, key and value read one input; 1/sqrt(D) goes into the query weights; the key bias adds the same number to all
scores of a query, so softmax drops it; attention rows sum to one, so the value bias passes into the output bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedCheckpointError
from .graph import Graph, Value
from .target import Target, Tokens
from .weight import Linear, Norm, Weight


@dataclass(frozen=True)
class Attention:
    """The four projections of a self-attention."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int


@dataclass(frozen=True)
class Ops:
    """Operations on token states, in the terms of one target."""

    graph: Graph
    target: Target
    tokens: Tokens

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name what is built inside."""
        with self.graph.scope(name):
            yield

    def embed(self, table: Weight) -> Value:
        """Rows of `table` (V, H) for the input ids -> token states."""
        return self.target.embed(self.graph, self.tokens, table)

    def add_positions(self, states: Value, table: Weight) -> Value:
        """Add row 0, 1, 2, ... of `table` (P, H) to the tokens of each text."""
        return self.target.add_positions(self.graph, self.tokens, states, table)

    def add_positions_after_pad(self, states: Value, table: Weight, pad: int) -> Value:
        """Add row pad + 1, pad + 2, ...; a token that is the pad id gets row `pad` and is not counted (RoBERTa)."""
        return self.target.add_positions_after_pad(self.graph, self.tokens, states, table, pad)

    def linear(self, states: Value, layer: Linear) -> Value:
        """states @ weight.T + bias."""
        return self.target.linears(self.graph, states, [layer])[0]

    def norm(self, states: Value, norm: Norm) -> Value:
        """Layer normalization over the last dimension."""
        return self.target.norm(self.graph, states, norm)

    def add(self, left: Value, right: Value) -> Value:
        """Elementwise sum."""
        return self.graph.node("Add", left, right, name="add")

    def activation(self, states: Value, name: str) -> Value:
        """Activation under the name that transformers' ACT2FN gives it."""
        function = self.target.activations.get(name)
        if function is None:
            raise UnsupportedCheckpointError(
                f"activation {name!r} is not known; known: {', '.join(sorted(self.target.activations))}"
            )
        return function(self.graph, states)

    def attention_bias(self, by_distance: Weight | None = None) -> Value:
        """What is added to the scores of every layer: the mask, and a bias (2M - 1, N) for key - query + M - 1."""
        with self.scope("attention_bias"):
            return self.target.attention_bias(self.graph, self.tokens, by_distance)

    def self_attention(self, states: Value, attention: Attention, bias: Value) -> Value:
        """Multi-head self-attention with its output projection."""
        head = attention.query.out_features // attention.heads
        query = attention.query.scaled(1.0 / math.sqrt(head))
        key = Linear(attention.key.weight)
        output = fold_value_bias(attention.value, attention.output)
        value, output = self.target.balance(Linear(attention.value.weight), output)
        q, k, v = self.target.linears(self.graph, states, [query, key, value])
        mixed = self.target.attention(self.graph, self.tokens, q, k, v, attention.heads, bias)
        return self.linear(mixed, output)

    def feed_forward(self, states: Value, up: Linear, activation: str, down: Linear) -> Value:
        """down(activation(up(states)))."""
        return self.linear(self.activation(self.linear(states, up), activation), down)

    def pool(self, states: Value, mode: str) -> Value:
        """Token states -> (B, H)."""
        return self.target.pools[mode](self.graph, self.tokens, states)


def fold_value_bias(value: Linear, output: Linear) -> Linear:
    """Output layer whose bias already holds output.weight @ value.bias, computed in float64."""
    if value.bias is None:
        return output
    value_bias, weight, old = value.bias, output.weight, output.bias

    def load() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        folded = weight.load().astype(np.float64) @ value_bias.load().astype(np.float64)
        return (folded if old is None else folded + old.load()).astype(np.float32)

    return Linear(weight, Weight(f"{weight.name}.bias+value", (output.out_features,), load))
