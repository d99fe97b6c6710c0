"""What a target is: a row of functions that turn the operations of an encoder into the nodes fastest there.

B batch, S sequence, H hidden, N heads, D head. A target decides how token states lie in memory (padded (B, S, H) in the
portable one); architectures and heads only pass them from one operation to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .graph import Graph, Value
from .weight import Linear, Norm, Weight


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The graph inputs and what is derived from them once."""

    input_ids: Value  # (B, S) int64
    attention_mask: Value  # (B, S) int64, 1 for tokens
    pooling_mask: Value  # (B, S) int64, 1 for tokens that count in the pooling


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
    attention: Callable[[Graph, Tokens, Value, Value, Value, int, Value], Value]
    pools: dict[str, Callable[[Graph, Tokens, Value], Value]]  # token states -> (B, H)
