"""The operations that architectures and heads are written in, with the savings that are exact in every target.

Query, key and value read one input; 1/sqrt(D) goes into the query weights; the key bias adds the same number to all
scores of a query, so softmax drops it; attention rows sum to one, so the value bias passes into the output bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..errors import UnsupportedCheckpointError
from .graph import Graph, Value
from .target import Residual, Target, Tokens
from .weight import Array, Linear, Norm, Weight


@dataclass(frozen=True)
class Relative:
    """What distances add to the scores: a row (N * D) of a table for each, met by queries, by keys or by both.

    Rows are numbered for distances from -(M - 1) to M, of the key from the query in `by_query`, the other way round in
    `by_key`.
    """

    by_query: tuple[Weight, Array] | None  # table (R, N * D) and (2M,) rows of it
    by_key: tuple[Weight, Array] | None


@dataclass(frozen=True)
class Attention:
    """The four projections of a self-attention."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    kv_heads: int | None = None  # of key and value; None: as many as of the query
    scale: float | None = None  # of the scores; None: 1 / sqrt(D)
    angles: tuple[Value, ...] = ()  # rotary positions, from `Ops.angles`
    query_norm: Norm | None = None  # of each head, or of all together where it is that wide, before they are turned
    key_norm: Norm | None = None
    relative: Relative | None = None  # its keys' table scaled as the scores are


@dataclass(frozen=True)
class Ops:
    """Operations on token states, in the terms of one target."""

    graph: Graph
    target: Target
    tokens: Tokens
    first_only: bool = False  # the vector is the last layer's state of each text's first token
    _first: set[Value] = field(default_factory=set)  # states of first tokens

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

    def fold_token_type(self, table: Weight, types: Weight) -> Weight:
        """Positions or words (P, H) with row 0 of `types` (2, H), a text alone's; `add_token_types` is for pairs."""
        if self.tokens.token_type_ids is not None:
            return table
        return table.map("+type", lambda array: array + types.load()[0])

    def add_token_types(self, states: Value, types: Weight) -> Value:
        """Add the row of `types` (2, H) that each token's type names, where texts come in pairs."""
        if self.tokens.token_type_ids is None:
            return states
        rows = self.graph.node("Gather", self.graph.weight(types), self.tokens.token_type_ids, name="type")
        return self.graph.node("Add", states, rows, name="word+type")

    def linear(self, states: Value, layer: Linear) -> Value:
        """states @ weight.T + bias."""
        return self.target.linears(self.graph, states, [layer])[0]

    def linears(self, states: Value, layers: Sequence[Linear]) -> list[Value]:
        """Several layers on one input."""
        return self.target.linears(self.graph, states, layers)

    def norm(self, states: Value, norm: Norm) -> Value:
        """Layer normalization over the last dimension."""
        return self.target.norm(self.graph, states, norm)

    def add_norm(self, left: Value, right: Value, norm: Norm) -> Value:
        """Layer normalization of a sum."""
        if self.target.add_norm is not None:
            return self.target.add_norm(self.graph, left, right, norm)
        return self.norm(self.add(left, right), norm)

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

    def attention_bias(
        self, by_distance: Weight | None = None, *, before: int | None = None, after: int | None = None
    ) -> Value:
        """What is added to the scores: the mask, and a bias (2M - 1, N) for key - query + M - 1.

        A token sees at most `before` tokens before it and `after` tokens behind it; None: all.
        """
        if self.target.limits is not None:
            return self.target.limits(by_distance, before, after)
        with self.scope("attention_bias"):
            bias = self.target.attention_bias(self.graph, self.tokens, by_distance)
            if before is None and after is None:
                return bias
            band = self.target.band(self.graph, self.tokens, before, after)
            return self.add(bias, band) if bias else band

    def angles(self, cosine: Weight, sine: Weight) -> tuple[Value, ...]:
        """Rotary positions for `Attention.angles` from tables (P, D / 2): row 0, 1, 2, ... for the tokens of a text."""
        with self.scope("rotary"):
            return self.target.angles(self.graph, self.tokens, cosine, sine)

    def self_attention(
        self,
        states: Value,
        attention: Attention,
        bias: Value,
        queries: Value | None = None,
        then: Residual | None = None,
    ) -> Value:
        """Multi-head self-attention with its output projection; `queries`: from `only_first`, nobody else asks.

        `then`: the residual and normalization behind it, which some targets do at once.
        """
        return self._followed(*self._attended(states, attention, bias, queries, then))

    def _followed(self, states: Value, then: Residual | None) -> Value:
        return states if then is None else self.add_norm(then.states, states, then.norm)

    def _attended(
        self, states: Value, attention: Attention, bias: Value, queries: Value | None, then: Residual | None
    ) -> tuple[Value, Residual | None]:
        """Attention, and what is still to follow it."""
        head = attention.query.out_features // attention.heads
        scale = 1.0 / math.sqrt(head) if attention.scale is None else attention.scale
        kv_heads = attention.kv_heads or attention.heads
        # The norm of a head undoes a scale before it, turning does not.
        query = attention.query if attention.query_norm else attention.query.scaled(scale)
        query_norm = attention.query_norm.scaled(scale) if attention.query_norm else None
        # Softmax drops what a bias adds to all keys alike, not what norms and positions make of it.
        turned = bool(attention.angles or attention.key_norm or attention.relative)
        key = attention.key if turned else Linear(attention.key.weight)
        output = fold_value_bias(attention.value, attention.output, kv_heads, attention.heads // kv_heads)
        value = Linear(attention.value.weight)
        if kv_heads == attention.heads:
            value, output = self.target.balance(value, output)
        plain = queries is None and not turned and attention.relative is None
        if self.target.attention_block is not None and plain:
            block = self.target.attention_block(
                self.graph, self.tokens, states, [query, key, value], output, attention.heads, kv_heads, bias, then
            )
            if block is not None:
                return block, None
        layers = [key, value] if queries is not None else [query, key, value]
        if turned:
            *rest, k, v = self.target.linears(self.graph, states, layers)
            k = self._turned(k, attention.key_norm, attention.angles, kv_heads, key.out_features)
            k, v = (self.target.spread(self.graph, self.tokens, part) for part in (k, v))
        else:
            *rest, k, v = self.target.project(self.graph, self.tokens, states, layers)
        if queries is not None:
            assert self.target.attend_first is not None
            assert attention.relative is None, "distances need the queries of all tokens"
            # A first token is at position 0, where nothing is turned.
            q = self._turned(self.linear(queries, query), query_norm, (), attention.heads, query.out_features)
            mixed = self.target.attend_first(self.graph, self.tokens, q, k, v, attention.heads, kv_heads, bias)
            return self.linear(mixed, output), then
        (q,) = rest
        if turned:
            q = self._turned(q, query_norm, attention.angles, attention.heads, query.out_features)
            q = self.target.spread(self.graph, self.tokens, q)
        if attention.relative:
            bias = self._with_distances(q, k, attention.relative, attention.heads, bias)
        if kv_heads == attention.heads:
            mixed = self.target.attention(self.graph, self.tokens, q, k, v, attention.heads, bias)
        else:
            mixed = self.target.grouped_attention(self.graph, self.tokens, q, k, v, attention.heads, kv_heads, bias)
        return self.target.collect(self.graph, self.tokens, mixed, output), then

    def _with_distances(self, q: Value, k: Value, relative: Relative, heads: int, bias: Value) -> Value:
        """The bias with what queries and keys, in the form that attention takes, make of the distance between them."""
        with self.scope("distances"):
            if relative.by_query:
                bias = self.add(bias, self.target.by_distance(self.graph, q, *relative.by_query, heads))
            if relative.by_key:
                met = self.target.by_distance(self.graph, k, *relative.by_key, heads)
                bias = self.add(bias, self.graph.node("Transpose", met, perm=[0, 1, 3, 2], name="met"))
            return bias

    def _turned(self, states: Value, norm: Norm | None, angles: tuple[Value, ...], heads: int, width: int) -> Value:
        """Projected token states with each head normalized, then turned by its position."""
        if norm is not None:
            states = self.target.head_norm(self.graph, states, norm, width // norm.weight.shape[0])
        return self.target.rotate(self.graph, states, angles, heads) if angles else states

    def only_first(self, states: Value) -> Value | None:
        """States (B, H) of the texts' first tokens where the last layer needs no others, else None."""
        if not self.first_only or self.target.first is None:
            return None
        return self.mark_first(self.target.first(self.graph, self.tokens, states))

    def mark_first(self, states: Value) -> Value:
        """Say that these states are of first tokens only: pooling takes them as they are."""
        self._first.add(states)
        return states

    def norm_kept(self, states: Value, norm: Norm) -> Value:
        """Normalization behind the last layer: what it makes of first tokens are first tokens."""
        normed = self.norm(states, norm)
        return self.mark_first(normed) if states in self._first else normed

    def feed_forward(
        self, states: Value, up: Linear, activation: str, down: Linear, then: Residual | None = None
    ) -> Value:
        """down(activation(up(states))), and what follows it."""
        if self.target.feed_forward_block is not None:
            block = self.target.feed_forward_block(self.graph, states, [up], activation, down, then)
            if block is not None:
                return block
        wide = None if self.target.activated is None else self.target.activated(self.graph, states, up, activation)
        if wide is None:
            wide = self.activation(self.linear(states, up), activation)
        return self._followed(self.linear(wide, down), then)

    def gated_feed_forward(self, states: Value, gate: Linear, up: Linear, activation: str, down: Linear) -> Value:
        """down(activation(gate(states)) * up(states))."""
        up, down = self.target.balance(up, down)  # a factor of a channel of `up` passes through the product
        if self.target.feed_forward_block is not None:
            block = self.target.feed_forward_block(self.graph, states, [gate, up], activation, down, None)
            if block is not None:
                return block
        gated, wide = self.target.linears(self.graph, states, [gate, up])
        product = self.graph.node("Mul", self.activation(gated, activation), wide, name="gated")
        return self.linear(product, down)

    def pool(self, states: Value, mode: str) -> Value:
        """Token states -> (B, H)."""
        if states in self._first:
            return states
        return self.target.pools[mode](self.graph, self.tokens, states)


def fold_value_bias(value: Linear, output: Linear, heads: int = 1, group: int = 1) -> Linear:
    """Output layer whose bias already holds output.weight @ value.bias, computed in float64.

    `heads` of the value serve a `group` of query heads each.
    """
    if value.bias is None:
        return output
    value_bias, weight, old = value.bias, output.weight, output.bias

    def load() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        bias = np.repeat(value_bias.load().astype(np.float64).reshape(heads, -1), group, axis=0).reshape(-1)
        folded = weight.load().astype(np.float64) @ bias
        return (folded if old is None else folded + old.load()).astype(np.float32)

    return Linear(weight, Weight(f"{weight.name}.bias+value", (output.out_features,), load))
