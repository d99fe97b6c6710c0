"""The operations that architectures and heads are written in, with the savings that are exact in every target.

Query, key and value read one input; 1/sqrt(D) goes into the query weights; the key bias adds the same number to all
scores of a query, so softmax drops it; attention rows sum to one, so the value bias passes into the output bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import UnsupportedCheckpointError
from .experts import mixed
from .graph import FLOAT32, Graph, Value
from .layers import Angles, Attention, Experts, FeedForward, Heads, Projections, Relative, Residual, ScoreBias
from .portable import QUICK
from .target import Target, Tokens
from .weight import Linear, Norm, Weight

FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class Ops:
    """Operations on token states, in the terms of one target."""

    graph: Graph  # float32, as everything behind a pooling is
    target: Target
    tokens: Tokens
    only: str | None = None  # FIRST, LAST: the vector is the last layer's state of that token of each text
    _one: set[Value] = field(default_factory=set)  # states of one token a text
    _reaches: set[int] = field(default_factory=set)  # of attention that does not see all tokens before its own

    @property
    def token_graph(self) -> Graph:
        """The graph for what token states meet: weights and constants become of their type."""
        return self.graph.typed(self.target.state_type)

    @property
    def reach(self) -> int | None:
        """How many tokens before its own a token sees in the layer where it sees fewest; None: all."""
        return min(self._reaches, default=None)

    @property
    def behind_pooling(self) -> Ops:
        """The same operations for what pooling gives, which is float32 in every target."""
        return replace(self, target=replace(self.target, state_type=FLOAT32))

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name what is built inside."""
        with self.graph.scope(name):
            yield

    def embed(self, table: Weight) -> Value:
        """Rows of `table` (V, H) for the input ids -> token states."""
        return self.target.embed(self.token_graph, self.tokens, table)

    def add_positions(self, states: Value, table: Weight) -> Value:
        """Add row 0, 1, 2, ... of `table` (P, H) to the tokens of each text."""
        return self.target.add_positions(self.token_graph, self.tokens, states, table)

    def add_positions_after_pad(self, states: Value, table: Weight, pad: int) -> Value:
        """Add row pad + 1, pad + 2, ...; a token that is the pad id gets row `pad` and is not counted (RoBERTa)."""
        return self.target.add_positions_after_pad(self.token_graph, self.tokens, states, table=table, pad=pad)

    def fold_token_type(self, table: Weight, types: Weight) -> Weight:
        """Positions or words (P, H) with row 0 of `types` (2, H), a text alone's; `add_token_types` is for pairs."""
        if self.tokens.token_type_ids is not None:
            return table
        return table.map("+type", lambda array: array + types.load()[0])

    def add_token_types(self, states: Value, types: Weight) -> Value:
        """Add the row of `types` (2, H) that each token's type names, where texts come in pairs."""
        if self.tokens.token_type_ids is None:
            return states
        rows = self.token_graph.node("Gather", self.token_graph.weight(types), self.tokens.token_type_ids, name="type")
        return self.token_graph.node("Add", states, rows, name="word+type")

    def linear(self, states: Value, layer: Linear) -> Value:
        """states @ weight.T + bias."""
        return self.target.linears(self.token_graph, states, [layer])[0]

    def linears(self, states: Value, layers: Sequence[Linear]) -> list[Value]:
        """Several layers on one input."""
        return self.target.linears(self.token_graph, states, layers)

    def norm(self, states: Value, norm: Norm) -> Value:
        """Layer normalization over the last dimension."""
        return self.target.norm(self.token_graph, states, norm)

    def add_norm(self, left: Value, right: Value, norm: Norm, *, bias: Weight | None = None) -> Value:
        """Layer normalization of a sum; a `bias` (H,) is for targets that have `add_norm`."""
        if self.target.add_norm is not None:
            return self.target.add_norm(self.token_graph, left, right, norm, bias=bias)
        assert bias is None
        return self.norm(self.add(left, right), norm)

    def add(self, left: Value, right: Value) -> Value:
        """Elementwise sum."""
        return self.token_graph.node("Add", left, right, name="add")

    def multiply(self, left: Value, right: Value) -> Value:
        """Elementwise product."""
        return self.token_graph.node("Mul", left, right, name="multiply")

    def scaled(self, states: Value, factor: Weight) -> Value:
        """Every number times the one of `factor` (1,), or its channel's (H,)."""
        return self.token_graph.node("Mul", states, self.token_graph.weight(factor), name="scaled")

    def offset(self, states: Value, bias: Weight) -> Value:
        """Every number and its channel's of `bias` (H,)."""
        return self.token_graph.node("Add", states, self.token_graph.weight(bias), name="offset")

    def shifted(self, states: Value, by: int) -> Value:
        """The states of the token `by` places before each one in its text, zeros where none is; below 0: behind it."""
        return states if by == 0 else self.target.shift(self.token_graph, self.tokens, states, by=by)

    def activation(self, states: Value, name: str) -> Value:
        """Activation under the name that transformers' ACT2FN gives it."""
        function = self.target.activations.get(name)
        if function is None:
            raise UnsupportedCheckpointError(
                f"activation {name!r} is not known; known: {', '.join(sorted(self.target.activations))}"
            )
        return function(self.token_graph, states)

    def attention_bias(
        self,
        by_distance: Weight | None = None,
        *,
        before: int | None = None,
        after: int | None = None,
        cap: float | None = None,
        relative: bool = False,
    ) -> ScoreBias:
        """What is added to the scores: the mask, and a bias (2P - 1, N) for key - query + P - 1.

        A token sees at most `before` tokens before it and `after` tokens behind it; None: all. `cap`: of the scores.
        `relative`: attention adds more by distance, as its `relative` says.
        """
        with self.scope("attention_bias"):
            tensor = self.target.attention_bias(self.token_graph, self.tokens, by_distance, relative=relative)
            if before is not None or after is not None:
                tensor = self._sum(tensor, self.target.band(self.token_graph, self.tokens, before=before, after=after))
        if before is not None:
            self._reaches.add(before)
        return ScoreBias(by_distance=by_distance, before=before, after=after, tensor=tensor, cap=cap)

    def _sum(self, left: Value | None, right: Value | None) -> Value | None:
        """Elementwise sum of those that there are."""
        return self.add(left, right) if left is not None and right is not None else left or right

    def angles(self, cosine: Weight, sine: Weight, scale: float = 1.0) -> Angles:
        """Rotary positions for `Attention.angles` from tables (P, D / 2): row 0, 1, 2, ... for the tokens of a text.

        `scale` is in the tables: what the cosine of no turn is.
        """
        with self.scope("rotary"):
            found = self.target.angles(self.token_graph, self.tokens, cosine=cosine, sine=sine)
        return replace(found, scale=scale)

    def self_attention(
        self,
        states: Value,
        attention: Attention,
        bias: ScoreBias,
        *,
        queries: Value | None = None,
        before: Norm | None = None,
        then: Residual | None = None,
    ) -> Value:
        """Multi-head self-attention with its output projection; `queries`: from `only_one`, nobody else asks.

        `before`, `then`: normalization of what it reads, and what is behind it, which some targets do at once.
        """
        attention = self._folded(attention)
        if self.target.by_distance is None and attention.relative:
            bias, attention = replace(bias, relative=attention.relative), replace(attention, relative=None)
        if queries is not None:
            assert before is None, "the queries are of normalized states"
            attention, late = self._without_output_bias(attention, then)
            return self.followed(self._attended_by_one(states, queries, attention, bias), then, late)
        if self.target.attention_block is not None and not attention.relative:
            block = self.target.attention_block(
                *(self.token_graph, self.tokens, states), attention=attention, bias=bias, before=before, then=then
            )
            if block is not None:
                return block
        states = states if before is None else self.norm(states, before)
        attention, late = self._without_output_bias(attention, then)
        return self.followed(self._attended(states, attention, bias), then, late)

    def followed(self, states: Value, then: Residual | None, bias: Weight | None = None) -> Value:
        """The states of a part of a layer with what is behind it; `bias` as in `add_norm`."""
        if then is None:
            return states
        if then.norm is None:
            return self.add(then.states, states)
        if then.norm_first:
            return self.add(then.states, self.norm(states, then.norm))
        return self.add_norm(then.states, states, then.norm, bias=bias)

    def _parted(self, layer: Linear, then: Residual | None) -> tuple[Linear, Weight | None]:
        """A layer without its bias, and the bias, where the normalization behind it adds one in the same pass."""
        if then is None or then.norm is None or then.norm_first or then.norm.rms or self.target.add_norm is None:
            return layer, None
        return Linear(layer.weight), layer.bias

    def _without_output_bias(self, attention: Attention, then: Residual | None) -> tuple[Attention, Weight | None]:
        """`_parted` of the output projection."""
        output, bias = self._parted(attention.projections.output, then)
        return replace(attention, projections=replace(attention.projections, output=output)), bias

    def _folded(self, attention: Attention) -> Attention:
        """The same attention with the savings of this module's first lines in its weights; scores have scale 1."""
        given, heads = attention.projections, attention.heads
        scale = 1.0 / math.sqrt(attention.head_size) if attention.scale is None else attention.scale
        # The norm of a head undoes a scale before it, turning does not.
        query = given.query if attention.query_norm else given.query.scaled(scale)
        query_norm = attention.query_norm.scaled(scale) if attention.query_norm else None
        # Softmax drops what a bias adds to all keys alike, not what norms and positions make of it.
        key = given.key if attention.turned else Linear(given.key.weight)
        value, output = given.value, given.output
        if attention.value_norm is None:
            output = fold_value_bias(value, output, heads)
            value = Linear(value.weight)
            if not heads.grouped:
                value, output = self.target.balance(value, output)
        return replace(attention, projections=Projections(query, key, value, output), query_norm=query_norm, scale=1.0)

    def _keys_and_values(self, states: Value, attention: Attention, *, queries: bool) -> list[Value]:
        """Key and value in the form that attention takes; before them the query where `queries`, as projected."""
        given, graph = attention.projections, self.token_graph
        layers = [*([given.query] if queries else []), given.key, given.value]
        if not attention.turned:
            return self.target.project(graph, self.tokens, states, layers)
        *query, key, value = self.target.linears(graph, states, layers)
        key = self._turned(
            key, attention.key_norm, attention.angles, heads=attention.heads.keys, width=given.key.out_features
        )
        value = self._turned(
            value, attention.value_norm, None, heads=attention.heads.keys, width=given.value.out_features
        )
        return [*query, *(self.target.spread(graph, self.tokens, part) for part in (key, value))]

    def _attended(self, states: Value, attention: Attention, bias: ScoreBias) -> Value:
        """Attention of all tokens, through the output projection."""
        given, heads, graph = attention.projections, attention.heads, self.token_graph
        query, key, value = self._keys_and_values(states, attention, queries=True)
        if attention.turned:
            query = self._turned(
                query, attention.query_norm, attention.angles, heads=heads.queries, width=given.query.out_features
            )
            query = self.target.spread(graph, self.tokens, query)
        if attention.relative:
            bias = self._with_distances(bias, attention.relative, query=query, key=key, heads=heads)
        mixed = self.target.attention(graph, self.tokens, query=query, key=key, value=value, heads=heads, bias=bias)
        return self.target.collect(graph, self.tokens, mixed, given.output)

    def _attended_by_one(self, states: Value, queries: Value, attention: Attention, bias: ScoreBias) -> Value:
        """Attention of one token a text, `queries`, to all, through the output projection: (B, H)."""
        assert self.target.attend_first is not None
        given, heads, angles = attention.projections, attention.heads, attention.angles
        key, value = self._keys_and_values(states, attention, queries=False)
        layer, norm = given.query, attention.query_norm
        if self.only == LAST:
            assert self.target.last is not None
            angles = None if angles is None else self.target.last.angles(self.token_graph, self.tokens, angles)
            bias = replace(bias, after=None, tensor=self.target.last.seen(self.token_graph, self.tokens))
        elif angles is not None:  # a first token is at position 0, where nothing is turned
            if angles.scale != 1.0:
                layer, norm = (layer.scaled(angles.scale), None) if norm is None else (layer, norm.scaled(angles.scale))
            angles = None
        query = self.linear(queries, layer)
        query = self._turned(query, norm, angles, heads=heads.queries, width=given.query.out_features)
        if attention.relative:
            bias = self._with_distances_of_first(bias, attention.relative, query=query, key=key, heads=heads)
        mixed = self.target.attend_first(
            self.token_graph, self.tokens, query=query, key=key, value=value, heads=heads, bias=bias
        )
        return self.linear(mixed, given.output)

    def _with_distances(
        self, bias: ScoreBias, relative: Relative, *, query: Value, key: Value, heads: Heads
    ) -> ScoreBias:
        """The bias with what queries and keys, in the form that attention takes, make of the distance between them."""
        tensor, graph = bias.tensor, self.token_graph
        with self.scope("distances"):
            assert self.target.by_distance is not None
            if relative.by_query:
                met = self.target.by_distance(graph, query, rows=relative.by_query, heads=heads.queries)
                tensor = self._sum(tensor, met)
            if relative.by_key:
                met = self.target.by_distance(graph, key, rows=relative.by_key, heads=heads.queries)
                tensor = self._sum(tensor, graph.node("Transpose", met, perm=[0, 1, 3, 2], name="met"))
        return replace(bias, tensor=tensor)

    def _with_distances_of_first(
        self, bias: ScoreBias, relative: Relative, *, query: Value, key: Value, heads: Heads
    ) -> ScoreBias:
        """Likewise for the first tokens alone."""
        graph, target = self.token_graph, self.target
        assert target.by_distance_of_first is not None, "distances need the queries of all tokens"
        with self.scope("distances"):
            met = target.by_distance_of_first(graph, query, key, relative=relative, heads=heads.queries)
            if bias.tensor is not None:
                row = graph.node("Gather", bias.tensor, graph.constant([0]), axis=2, name="row")
                met = self.add(row, met)
        return replace(bias, tensor=met)

    def _turned(self, states: Value, norm: Norm | None, angles: Angles | None, *, heads: int, width: int) -> Value:
        """Projected token states with each head normalized, then turned by its position."""
        if norm is not None:
            states = self.target.head_norm(self.token_graph, states, norm, heads=width // norm.weight.shape[0])
        return states if angles is None else self.target.rotate(self.token_graph, states, angles=angles, heads=heads)

    def keeps_one(self, attention: Attention | None, bias: ScoreBias | None) -> bool:
        """Whether the last layer needs no states but those of one token a text, and the target can do so.

        Of the last token only where attention is known, and that token sees all of its text, wherever it is in it.
        """
        if self.only == FIRST:
            return self.target.first is not None
        if self.only != LAST or self.target.last is None or attention is None or bias is None:
            return False
        return bias.before is None and bias.by_distance is None and attention.relative is None

    def only_one(
        self, states: Value, attention: Attention | None = None, bias: ScoreBias | None = None
    ) -> Value | None:
        """States (B, H) of one token a text where the last layer needs no others, else None; see `keeps_one`."""
        if not self.keeps_one(attention, bias):
            return None
        last = self.target.last
        part = last.states if self.only == LAST and last is not None else self.target.first
        assert part is not None
        return self.mark_one(part(self.token_graph, self.tokens, states))

    def mark_one(self, states: Value) -> Value:
        """Say that these states are of one token a text: pooling takes them as they are."""
        self._one.add(states)
        return states

    def norm_kept(self, states: Value, norm: Norm) -> Value:
        """Normalization behind the last layer: what it makes of one token a text is of one token a text."""
        normed = self.norm(states, norm)
        return self.mark_one(normed) if states in self._one else normed

    def linear_kept(self, states: Value, layer: Linear) -> Value:
        """`linear` behind the last layer; see `norm_kept`."""
        made = self.linear(states, layer)
        return self.mark_one(made) if states in self._one else made

    def feed_forward(
        self, states: Value, layers: FeedForward | Experts, *, before: Norm | None = None, then: Residual | None = None
    ) -> Value:
        """The feed-forward part of a layer, with normalization of what it reads and what follows it."""
        if isinstance(layers, Experts):
            states = states if before is None else self.norm(states, before)
            return self.followed(mixed(self.token_graph, self.target, states, layers, self.feed_forward), then)
        layers = _without_quick_gelu(layers)
        if layers.gate is not None:  # a factor of a channel of `up` passes through the product
            up, down = self.target.balance(layers.up, layers.down)
            layers = replace(layers, up=up, down=down)
        if self.target.feed_forward_block is not None:
            block = self.target.feed_forward_block(self.token_graph, states, layers=layers, before=before, then=then)
            if block is not None:
                return block
        states = states if before is None else self.norm(states, before)
        down, late = self._parted(layers.down, then)
        return self.followed(self.linear(self._wide(states, layers), down), then, late)

    def _wide(self, states: Value, layers: FeedForward) -> Value:
        """What the down projection reads."""
        if layers.gate is not None:
            gated, up = self.linears(states, layers.first)
            if self.target.gated is not None:
                width = layers.up.out_features
                made = self.target.gated(self.token_graph, gated, up, width=width, activation=layers.activation)
                if made is not None:
                    return made
            return self.token_graph.node("Mul", self.activation(gated, layers.activation), up, name="gated")
        return self.activated(states, layers.up, layers.activation)

    def activated(self, states: Value, layer: Linear, activation: str) -> Value:
        """A layer and its activation, at once where the target can."""
        if self.target.activated is not None:
            wide = self.target.activated(self.token_graph, states, layer, activation=activation)
            if wide is not None:
                return wide
        return self.activation(self.linear(states, layer), activation)

    def pool(self, states: Value, mode: str) -> Value:
        """Token states -> (B, H)."""
        if states in self._one:
            return states
        return self.target.pools[mode](self.token_graph, self.tokens, states)


def _without_quick_gelu(layers: FeedForward) -> FeedForward:
    """The same feed-forward by silu, which targets have faster: x * sigmoid(a x) = silu(a x) / a."""
    if layers.activation != "quick_gelu":
        return layers
    down = Linear(layers.down.weight.scaled(1 / QUICK), layers.down.bias)
    if layers.gate is None:
        return replace(layers, up=layers.up.scaled(QUICK), down=down, activation="silu")
    return replace(layers, gate=layers.gate.scaled(QUICK), down=down, activation="silu")


def fold_value_bias(value: Linear, output: Linear, heads: Heads) -> Linear:
    """Output layer whose bias already holds output.weight @ value.bias, computed in float64."""
    if value.bias is None:
        return output
    value_bias, weight, old = value.bias, output.weight, output.bias

    def load() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        by_head = value_bias.load().astype(np.float64).reshape(heads.keys, -1)
        bias = np.repeat(by_head, heads.served, axis=0).reshape(-1)
        folded = weight.load().astype(np.float64) @ bias
        return (folded if old is None else folded + old.load()).astype(np.float32)

    return Linear(weight, Weight(f"{weight.name}.bias+value", (output.out_features,), load))
