"""What the layers of an encoder are made of, as records: the arguments of `Ops` and of a target's functions.

B batch, S sequence, H hidden, N heads of queries, K heads of keys and values, D channels of a head, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .graph import Value
from .weight import Array, Linear, Norm, Weight


@dataclass(frozen=True)
class Heads:
    """How many parts of D channels attention cuts queries, keys and values into."""

    queries: int  # N
    keys: int  # K, of values too; each serves N / K heads of queries

    @classmethod
    def of(cls, count: int) -> Heads:
        """As many of keys and values as of queries."""
        return cls(count, count)

    @property
    def grouped(self) -> bool:
        """Whether a head of keys serves several of queries."""
        return self.queries != self.keys

    @property
    def served(self) -> int:
        """Heads of queries that one of keys serves."""
        return self.queries // self.keys


@dataclass(frozen=True)
class Projections:
    """The four linear layers of a self-attention."""

    query: Linear  # H -> N * D
    key: Linear  # H -> K * D
    value: Linear  # H -> K * D
    output: Linear  # N * D -> H


@dataclass(frozen=True)
class Angles:
    """Rotary positions, made ready for the tokens by a target: (..., D / 2) in the shape that it turns states in."""

    cosine: Value
    sine: Value
    scale: float = 1.0  # that is in both, and so what a token at position 0 is multiplied with


@dataclass(frozen=True)
class DistanceRows:
    """A row of a table for each distance between two tokens, to be multiplied with the states of one of them."""

    table: Weight  # (R, N * D)
    index: Array  # (2P,) int64, the row of the table for each distance from -(P - 1) to P

    def reaching(self, further: int) -> DistanceRows:
        """That go on with their last rows for distances up to `further` beyond them."""
        return replace(self, index=np.pad(self.index, (further, further), mode="edge"))


@dataclass(frozen=True)
class Relative:
    """What distances add to the scores: rows that are met by queries, by keys or by both.

    Rows are numbered by the distance of the key from the query in `by_query`, the other way round in `by_key`.
    """

    by_query: DistanceRows | None
    by_key: DistanceRows | None

    def reaching(self, further: int) -> Relative:
        """As the rows'."""
        ends = [rows.reaching(further) if rows else None for rows in (self.by_query, self.by_key)]
        return Relative(*ends)


@dataclass(frozen=True, kw_only=True)
class ScoreBias:
    """What attention adds to its scores (B, N, S, S), made once for all layers that share it: see `Ops.attention_bias`.

    Where there is a `cap`, a score becomes cap * tanh(score / cap) before anything is added. The rest is said in two
    ways, and a target takes the one that its attention knows: as numbers, and as the tensor of them.
    """

    by_distance: Weight | None = None  # (2P - 1, N): the row for distance key - query lies at that distance + P - 1
    relative: Relative | None = None  # of one layer, where a target's attention meets the rows itself
    before: int | None = None  # how many tokens before its own a token sees; None: all
    after: int | None = None  # and behind it; 0: causal
    tensor: Value | None = None  # broadcast to the scores, the mask of padding in it; None: attention adds no tensor
    cap: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A self-attention."""

    projections: Projections
    heads: Heads
    scale: float | None = None  # of the scores; None: 1 / sqrt(D)
    angles: Angles | None = None  # rotary positions, from `Ops.angles`
    query_norm: Norm | None = None  # of each head, or of all together where it is that wide, before they are turned
    key_norm: Norm | None = None
    value_norm: Norm | None = None  # of each head
    relative: Relative | None = None  # its keys' table scaled as the scores are

    @property
    def head_size(self) -> int:
        """D."""
        return self.projections.query.out_features // self.heads.queries

    @property
    def turned(self) -> bool:
        """Whether something happens to queries, keys or values between their projection and attention."""
        return bool(self.angles or self.key_norm or self.value_norm or self.relative)

    @property
    def normed_by_head(self) -> bool:
        """Whether no norm is of all heads together."""
        norms = (self.query_norm, self.key_norm, self.value_norm)
        return all(norm is None or norm.weight.shape[0] == self.head_size for norm in norms)


@dataclass(frozen=True)
class FeedForward:
    """down(activation(gate(x)) * up(x)); without a gate, down(activation(up(x)))."""

    up: Linear  # H -> the wide states
    down: Linear
    activation: str  # as transformers' ACT2FN calls it
    gate: Linear | None = field(default=None, kw_only=True)

    @property
    def first(self) -> list[Linear]:
        """The layers that read x, in the order in which they are quantized together."""
        return [self.up] if self.gate is None else [self.gate, self.up]


@dataclass(frozen=True)
class Experts:
    """Feed-forwards of which a router chooses a few for each token: their sum by the router's shares, and a bias."""

    router: Linear  # H -> E; the shares are the softmax over all E
    experts: tuple[FeedForward, ...]
    chosen: int  # for each token
    bias: Weight | None = None  # (H,)


@dataclass(frozen=True)
class Residual:
    """What follows a part of a layer: states are added, as a rule its input, and the sum is normalized."""

    states: Value
    norm: Norm | None = None
    norm_first: bool = field(default=False, kw_only=True)  # it is what the part gives that is normalized, not the sum
