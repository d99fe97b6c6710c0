"""Token types that a tokenizer gives the tokens of a text, by their places: at its beginning, at its end, between.

Most give all of them type 0. XLNet's last token is of type 2, Funnel's first one; whatever a template of special tokens
says, it says by place, so that a few texts show it. Knows arrays and graphs, neither torch nor a tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from fastembed_rt.run.batching import Ids

from ..graph.graph import Graph, Value
from ..graph.target import Tokens, masked


@dataclass(frozen=True)
class TokenTypes:
    """A rule: type of each of the first tokens, of the last ones, and of all between."""

    first: tuple[int, ...] = ()
    between: int = 0
    last: tuple[int, ...] = ()

    @classmethod
    def learned(cls, rows: Sequence[Sequence[int]]) -> TokenTypes | None:
        """The rule that the types of some texts, each (tokens,), all follow; None where they follow none."""
        longest = max(rows, key=len, default=())
        if not longest:
            return cls()
        between = longest[len(longest) // 2]
        first = tuple(takewhile(lambda kind: kind != between, longest))
        last = tuple(takewhile(lambda kind: kind != between, reversed(longest)))
        rule = cls(first, between, last[::-1])
        return rule if all(rule(np.ones((1, len(row)), np.int64))[0].tolist() == list(row) for row in rows) else None

    def __call__(self, mask: Ids) -> Ids:
        """Types (B, S) of texts with this attention mask (B, S), padded on the right; those of padding are any."""
        place = np.cumsum(mask, axis=1) - 1
        to_end = mask.sum(axis=1, keepdims=True) - 1 - place
        types = np.full_like(mask, self.between)
        for places, kinds in ((place, self.first), (to_end, self.last[::-1])):
            for number, kind in enumerate(kinds):
                types[places == number] = kind
        return types

    def nodes(self, graph: Graph, tokens: Tokens) -> Value:
        """The same in a graph: (B, S)."""
        none = graph.node("Sub", tokens.input_ids, tokens.input_ids, name="token_type_ids")
        if self == TokenTypes():
            return none
        mask = masked(tokens).attention_mask
        one = graph.constant(1)
        counted = graph.node("CumSum", mask, one, name="types/counted")
        place = graph.node("Sub", counted, one, name="types/place")
        total = graph.node("ReduceSum", mask, graph.constant([1]), keepdims=1, name="types/total")
        to_end = graph.node("Sub", total, counted, name="types/to_end")
        types = graph.node("Add", none, graph.constant(self.between), name="types/between")
        for places, kinds in ((place, self.first), (to_end, self.last[::-1])):
            for number, kind in enumerate(kinds):
                there = graph.node("Equal", places, graph.constant(number), name="types/there")
                types = graph.node("Where", there, graph.constant(kind), types, name="types")
        return types
