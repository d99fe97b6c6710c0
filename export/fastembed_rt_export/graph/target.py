"""What a target is: a row of functions that turn the operations of an encoder into the nodes fastest there.

B batch, S sequence, H hidden, N heads, D head. A target decides how token states lie in memory (padded (B, S, H) in the
portable one); architectures and heads only pass them from one operation to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .graph import Graph, Value
from .weight import Array, Linear, Norm, Weight


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The graph inputs and what is derived from them once."""

    input_ids: Value  # (B, S) int64
    attention_mask: Value  # (B, S) int64, 1 for tokens
    pooling_mask: Value  # (B, S) int64, 1 for tokens that count in the pooling
    unseen: bool = False  # some places that the mask hides hold tokens of their own, which see the others
    token_type_ids: Value | None = None  # as input_ids: 0 in the first text of a pair, 1 in the second; None: all 0


@dataclass(frozen=True)
class Residual:
    """What follows a part of a layer: its input is added, and the sum normalized."""

    states: Value
    norm: Norm


@dataclass(frozen=True, kw_only=True)
class Target:
    """Functions of one target; each takes the graph under construction first."""

    name: str
    opset: int | None  # None: the user's choice
    enter: Callable[[Graph, bool], Tokens]  # declare the inputs; True: pooling has a mask of its own
    embed: Callable[[Graph, Tokens, Weight], Value]
    add_positions: Callable[[Graph, Tokens, Value, Weight], Value]  # positions 0, 1, 2, ...
    add_positions_after_pad: Callable[[Graph, Tokens, Value, Weight, int], Value]  # RoBERTa: pad + 1, pad + 2, ...
    linears: Callable[[Graph, Value, Sequence[Linear]], list[Value]]  # several layers on one input
    balance: Callable[
        [Linear, Linear], tuple[Linear, Linear]
    ]  # value and output projection, rescaled channel by channel
    norm: Callable[[Graph, Value, Norm], Value]
    activations: dict[str, Callable[[Graph, Value], Value]]
    attention_bias: Callable[[Graph, Tokens, Weight | None], Value]  # the mask, plus a bias by distance (2M - 1, N)
    # Query, key and value of token states, in the form that attention takes; layers on one input.
    project: Callable[[Graph, Tokens, Value, Sequence[Linear]], list[Value]]
    attention: Callable[[Graph, Tokens, Value, Value, Value, int, Value], Value]
    # The same with fewer heads of keys and values, each for several of the queries: heads, then those of the keys.
    grouped_attention: Callable[[Graph, Tokens, Value, Value, Value, int, int, Value], Value]
    band: Callable[[Graph, Tokens, int | None, int | None], Value]  # mask of keys too far before or after (None: never)
    # Rotary positions: cosines and sines (P, D / 2) made ready once, and projected token states turned by them.
    angles: Callable[[Graph, Tokens, Weight, Weight], tuple[Value, ...]]
    rotate: Callable[[Graph, Value, tuple[Value, ...], int], Value]
    head_norm: Callable[[Graph, Value, Norm, int], Value]  # each head of projected token states by itself
    # States in that form times the row of a table (R, N * D) for the distance of each other token: (B, N, S, S).
    # The row for a distance from -(M - 1) to M is in an array (2M,).
    by_distance: Callable[[Graph, Value, Weight, Array, int], Value]
    spread: Callable[[Graph, Tokens, Value], Value]  # projected token states -> the form that attention takes
    collect: Callable[[Graph, Tokens, Value, Linear], Value]  # what attention gives, through a layer -> token states
    # Where only the first token of each text is wanted: (T, H) -> (B, H), and attention with one query a text, whose
    # query and result are (B, N * D). None: the target computes all tokens anyway.
    first: Callable[[Graph, Tokens, Value], Value] | None
    attend_first: Callable[[Graph, Tokens, Value, Value, Value, int, int, Value], Value] | None
    pools: dict[str, Callable[[Graph, Tokens, Value], Value]]  # token states -> (B, H)
    # For targets with operators of their own; None: they are made of the functions above.
    # The mask, a bias by distance (2M - 1, N), and how far a token sees before and after it, for `attention`.
    limits: Callable[[Weight | None, int | None, int | None], Value] | None = None
    # Self-attention from token states to token states: states, (query, key, value), output, heads of queries and of
    # keys, limits, what follows. None where these layers are not for the operator.
    attention_block: (
        Callable[[Graph, Tokens, Value, Sequence[Linear], Linear, int, int, Value, Residual | None], Value | None]
        | None
    ) = None
    # Feed-forward: states, (up) or (gate, up), activation, down, what follows.
    feed_forward_block: (
        Callable[[Graph, Value, Sequence[Linear], str, Linear, Residual | None], Value | None] | None
    ) = None
    # Operators that do two things in one pass. None: the target has no such; a None from `activated`: not for this one.
    add_norm: Callable[[Graph, Value, Value, Norm], Value] | None = None  # the normalized sum
    activated: Callable[[Graph, Value, Linear, str], Value | None] | None = None  # a layer and its activation
