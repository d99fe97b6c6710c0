"""What a target is: a row of functions that turn the operations of an encoder into the nodes fastest there.

B batch, S sequence, H hidden, N heads of queries, K heads of keys and values, D channels of a head, P positions. A
target decides how token states lie in memory (padded (B, S, H) in the portable one); architectures and heads only pass
them from one operation to the next. "Token states" below are in that form, "projected" ones N * D or K * D wide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .graph import FLOAT32, Graph, Value
from .layers import Angles, Attention, DistanceRows, FeedForward, Heads, Relative, Residual, ScoreBias
from .weight import Linear, Norm, Weight


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The graph inputs that every target has, and what is derived from them once."""

    input_ids: Value  # (B, S) int64
    unseen: int = 0  # so many places, at most, that the mask hides hold tokens of their own, which see the others
    token_type_ids: Value | None = None  # as input_ids: 0 in the first text of a pair, 1 in the second; None: all 0
    ends: Value | None = None  # as input_ids, float32: the end of a text is the first of its highest; None: nobody asks


@dataclass(frozen=True, kw_only=True)
class MaskedTokens(Tokens):
    """Tokens with their masks at hand, as padded states need them."""

    attention_mask: Value  # (B, S) int64, 1 for tokens
    pooling_mask: Value  # (B, S) int64, 1 for tokens that count in the pooling


def masked(tokens: Tokens) -> MaskedTokens:
    """The tokens of a target that pads, or of one that made their masks."""
    assert isinstance(tokens, MaskedTokens)
    return tokens


class Enter(Protocol):
    """Declare the inputs; `own_pooling_mask`: pooling has a mask that is not attention's."""

    def __call__(self, graph: Graph, own_pooling_mask: bool, /) -> Tokens: ...


class Embed(Protocol):
    """Rows of `table` (V, H) for the input ids -> token states."""

    def __call__(self, graph: Graph, tokens: Tokens, table: Weight, /) -> Value: ...


class AddPositions(Protocol):
    """Add row 0, 1, 2, ... of `table` (P, H) to the tokens of each text."""

    def __call__(self, graph: Graph, tokens: Tokens, states: Value, table: Weight, /) -> Value: ...


class AddPositionsAfterPad(Protocol):
    """Add row pad + 1, pad + 2, ... of `table`; a token that is the pad id gets row `pad` and is not counted."""

    def __call__(self, graph: Graph, tokens: Tokens, states: Value, *, table: Weight, pad: int) -> Value: ...


class Linears(Protocol):
    """Several linear layers on one input, their outputs in the same order."""

    def __call__(self, graph: Graph, states: Value, layers: Sequence[Linear], /) -> list[Value]: ...


class Balance(Protocol):
    """A layer and the one that reads its output, rescaled channel by channel: together they compute the same."""

    def __call__(self, value: Linear, output: Linear, /) -> tuple[Linear, Linear]: ...


class Normalize(Protocol):
    """Normalization of the last dimension."""

    def __call__(self, graph: Graph, states: Value, layer: Norm, /) -> Value: ...


class AddNorm(Protocol):
    """The normalized sum of two states and, where `bias` (H,) is one, of a bias; no bias comes with a norm by RMS."""

    def __call__(
        self, graph: Graph, left: Value, right: Value, layer: Norm, /, *, bias: Weight | None = None
    ) -> Value: ...


class Activation(Protocol):
    """A function of every number."""

    def __call__(self, graph: Graph, states: Value, /) -> Value: ...


class Activated(Protocol):
    """A layer and the activation of its output; None: not for this layer, not for this activation."""

    def __call__(self, graph: Graph, states: Value, layer: Linear, *, activation: str) -> Value | None: ...


class Gated(Protocol):
    """activation(gate) * up of two projections `width` wide; None: not for this width or activation."""

    def __call__(self, graph: Graph, gate: Value, up: Value, *, width: int, activation: str) -> Value | None: ...


class Dense(Protocol):
    """A layer behind the pooling, float32: (B, inputs) -> (B, outputs)."""

    def __call__(self, graph: Graph, vectors: Value, layer: Linear, /) -> Value: ...


class Unit(Protocol):
    """Token states of `width` numbers -> float32, each divided by its L2 norm; None: not of this width."""

    def __call__(self, graph: Graph, states: Value, *, width: int) -> Value | None: ...


class WordWeights(Protocol):
    """Logits of `width` words -> (B, width) float32: log(1 + max(x, 0)), `times` times over, pooled over a text.

    `added`: their sum, else the largest.
    """

    def __call__(self, graph: Graph, logits: Value, *, width: int, times: int, added: bool) -> Value: ...


class Largest(Protocol):
    """Several linear layers on one input, of each output the largest of a text's tokens: (B, outputs) float32 each."""

    def __call__(self, graph: Graph, tokens: Tokens, states: Value, layers: Sequence[Linear], /) -> list[Value]: ...


class AttentionBias(Protocol):
    """Tensor of the mask and of a bias by distance (2P - 1, N); None: attention adds no such tensor.

    `relative`: layers add to it by distance, each from states of its own.
    """

    def __call__(
        self, graph: Graph, tokens: Tokens, by_distance: Weight | None, /, *, relative: bool
    ) -> Value | None: ...


class Band(Protocol):
    """Tensor of the mask of keys too far before or behind a query; None: attention adds no such tensor.

    `before`, `after`: how many tokens it sees before and behind its own, one of them not None: all.
    """

    def __call__(self, graph: Graph, tokens: Tokens, *, before: int | None, after: int | None) -> Value | None: ...


class Project(Protocol):
    """Query, key and value of token states, in the form that attention takes; layers on one input."""

    def __call__(self, graph: Graph, tokens: Tokens, states: Value, layers: Sequence[Linear], /) -> list[Value]: ...


class Attend(Protocol):
    """softmax(capped(Q K^T) + bias) V for `query` N * D wide, `key` and `value` K * D wide.

    They have the form that attention takes. The scale of the scores is in the query. The result is as the query is.
    """

    def __call__(
        self, graph: Graph, tokens: Tokens, *, query: Value, key: Value, value: Value, heads: Heads, bias: ScoreBias
    ) -> Value: ...


class MakeAngles(Protocol):
    """Rotary positions from tables (P, D / 2), row 0, 1, 2, ... for the tokens of each text: once for all layers."""

    def __call__(self, graph: Graph, tokens: Tokens, *, cosine: Weight, sine: Weight) -> Angles: ...


class Rotate(Protocol):
    """Projected token states of `heads` heads, each turned by its token's angles."""

    def __call__(self, graph: Graph, states: Value, *, angles: Angles, heads: int) -> Value: ...


class HeadNorm(Protocol):
    """Projected token states, each of `heads` parts normalized by itself."""

    def __call__(self, graph: Graph, states: Value, layer: Norm, *, heads: int) -> Value: ...


class ByDistance(Protocol):
    """States in the form that attention takes times the row for the distance of each other token: (B, N, S, S)."""

    def __call__(self, graph: Graph, states: Value, *, rows: DistanceRows, heads: int) -> Value: ...


class ByDistanceOfFirst(Protocol):
    """What distances add to the scores of first tokens `query` (B, N * D) with all keys (B, S, N * D): (B, N, 1, S)."""

    def __call__(self, graph: Graph, query: Value, key: Value, *, relative: Relative, heads: int) -> Value: ...


class Shift(Protocol):
    """Token states of the token `by` places before each one in its text, zeros where none is; below 0: behind it."""

    def __call__(self, graph: Graph, tokens: Tokens, states: Value, *, by: int) -> Value: ...


class OfStates(Protocol):
    """Token states in another form: spread for attention, pooled (B, H), of the texts' first tokens (B, H)."""

    def __call__(self, graph: Graph, tokens: Tokens, states: Value, /) -> Value: ...


class OfAngles(Protocol):
    """Rotary positions of all tokens -> of the texts' last tokens, for `Rotate` of their states."""

    def __call__(self, graph: Graph, tokens: Tokens, angles: Angles, /) -> Angles: ...


class Seen(Protocol):
    """What is added to the scores of a token that sees all of its text, as `AttentionBias`."""

    def __call__(self, graph: Graph, tokens: Tokens, /) -> Value | None: ...


@dataclass(frozen=True, kw_only=True)
class LastToken:
    """What a target makes of the texts' last tokens alone; `Target.attend_first` attends by them to all keys."""

    states: OfStates  # (T, H) -> (B, H)
    angles: OfAngles
    seen: Seen


class Collect(Protocol):
    """What attention gives, through a layer -> token states."""

    def __call__(self, graph: Graph, tokens: Tokens, mixed: Value, layer: Linear, /) -> Value: ...


class AttentionBlock(Protocol):
    """Self-attention from token states to token states, and what follows; None: these layers are not for it.

    The scale of the scores is in the query; the states that it reads are normalized by `before`.
    """

    def __call__(
        self,
        graph: Graph,
        tokens: Tokens,
        states: Value,
        *,
        attention: Attention,
        bias: ScoreBias,
        before: Norm | None,
        then: Residual | None,
    ) -> Value | None: ...


class FeedForwardBlock(Protocol):
    """Feed-forward from token states to token states, and what follows; None: these layers are not for it.

    The states that it reads are normalized by `before`.
    """

    def __call__(
        self, graph: Graph, states: Value, *, layers: FeedForward, before: Norm | None, then: Residual | None
    ) -> Value | None: ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """Functions of one target.

    The graph that they are given makes float weights and constants of the type of token states (`Graph.typed`). What
    is wider says so itself, as do the poolings, whose results are float32.
    """

    name: str
    opset: int | None  # None: the user's choice
    state_type: np.dtype[Any] = FLOAT32  # of token states, and of the weights and constants that meet them
    enter: Enter
    embed: Embed
    add_positions: AddPositions
    add_positions_after_pad: AddPositionsAfterPad
    linears: Linears
    balance: Balance  # the value and the output projection, the up and the down projection behind a gate
    norm: Normalize
    activations: Mapping[str, Activation]  # under the names of transformers' ACT2FN
    attention_bias: AttentionBias
    band: Band
    project: Project
    attention: Attend
    angles: MakeAngles
    rotate: Rotate
    head_norm: HeadNorm
    shift: Shift
    by_distance: ByDistance | None  # None: attention meets the rows of `ScoreBias.relative` itself
    spread: OfStates  # projected token states -> the form that attention takes
    collect: Collect
    # Where only the first token of each text is wanted: (T, H) -> (B, H), and attention with one query a text, whose
    # query and result are (B, N * D). None: the target computes all tokens anyway.
    first: OfStates | None
    attend_first: Attend | None
    by_distance_of_first: ByDistanceOfFirst | None = None  # where there is `by_distance`
    last: LastToken | None  # likewise where only the last one is wanted; it goes with `attend_first`
    pools: Mapping[str, OfStates]  # token states -> (B, H) float32
    on_padded: Callable[[OfStates], OfStates]  # a function of float32 states (B, S, H) and masks -> of the target's
    # For targets with operators of their own; None: they are made of the functions above.
    attention_block: AttentionBlock | None = None
    feed_forward_block: FeedForwardBlock | None = None
    # Operators that do two things in one pass; None: the target has no such.
    add_norm: AddNorm | None = None
    activated: Activated | None = None
    gated: Gated | None = None
    dense: Dense | None = None
    unit: Unit | None = None  # None: the target has no vectors of tokens, or makes them of stock operators
    word_weights: WordWeights | None = None
    largest: Largest | None = None
    dispatches: bool = False  # each expert computes the tokens that are its own; else all compute all
    lanes: int = 1  # what the widths of products should be multiples of
