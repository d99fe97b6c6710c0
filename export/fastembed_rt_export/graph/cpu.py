"""The cpu target: what onnxruntime's CPU provider runs fastest, on packed (T, H) token states without padding.

T tokens of all texts lie one after the other. Linear layers, norms and activations see no padding; only attention
unpacks to (B, S, H) with one Gather and packs again. The runtime feeds the indices:

    input_ids (T,)
    position_ids (T,)    0, 1, 2, ... in each text
    unpack (B, S)        token at each place; any token where there is none
    pack (T,)            place of each token in the flattened (B * S)
    token_mask (B, S)    bool
    pooling_mask (B, S)  int64, only where prompts are left out of the pooling
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastembed_rt.batching import LANES

from . import portable
from .graph import BOOL, INT64, Graph, Value
from .portable import PORTABLE
from .target import Tokens
from .weight import Linear, Weight

OPSET = 23  # the Attention operator


@dataclass(frozen=True, kw_only=True)
class PackedTokens(Tokens):
    """The packed inputs; attention_mask and pooling_mask are (B, S)."""

    position_ids: Value
    unpack: Value
    pack: Value
    token_mask: Value


def _packed(tokens: Tokens) -> PackedTokens:
    assert isinstance(tokens, PackedTokens)
    return tokens


def enter(graph: Graph, own_pooling_mask: bool) -> Tokens:
    """Declare the packed inputs."""
    ids = graph.input("input_ids", INT64, ("tokens",))
    positions = graph.input("position_ids", INT64, ("tokens",))
    unpack = graph.input("unpack", INT64, ("batch", "sequence"))
    pack = graph.input("pack", INT64, ("tokens",))
    present = graph.input("token_mask", BOOL, ("batch", "sequence"))
    mask = graph.node("Cast", present, to=INT64, name="attention_mask")
    pooling = graph.input("pooling_mask", INT64, ("batch", "sequence")) if own_pooling_mask else mask
    return PackedTokens(
        input_ids=ids,
        attention_mask=mask,
        pooling_mask=pooling,
        position_ids=positions,
        unpack=unpack,
        pack=pack,
        token_mask=present,
    )


def add_positions(graph: Graph, tokens: Tokens, states: Value, table: Weight) -> Value:
    """Rows by position in the text."""
    rows = graph.node("Gather", graph.weight(table), _packed(tokens).position_ids, name="position")
    return graph.node("Add", states, rows, name="word+position")


def add_positions_after_pad(graph: Graph, tokens: Tokens, states: Value, table: Weight, pad: int) -> Value:
    """Positions count the ids that are not the pad id, from the beginning of each text."""
    packed = _packed(tokens)
    is_pad = graph.node("Equal", packed.input_ids, graph.constant(pad), name="is_pad")
    is_token = graph.node("Cast", graph.node("Not", is_pad, name="is_token"), to=INT64, name="is_token")
    through = graph.node("CumSum", is_token, graph.constant(0), name="through")
    before = graph.node("Sub", through, is_token, name="before")
    # Tokens before the text: the count before its first token, which lies position_ids places back.
    total = graph.node("Squeeze", graph.node("Shape", packed.input_ids, name="total"), name="total")
    here = graph.node("Range", graph.constant(0), total, graph.constant(1), name="here")
    first = graph.node("Sub", here, packed.position_ids, name="first")
    count = graph.node("Sub", through, graph.node("Gather", before, first, name="earlier"), name="count")
    position = graph.node("Add", graph.node("Mul", count, is_token, name="count"), graph.constant(pad), name="position")
    rows = graph.node("Gather", graph.weight(table), position, name="position")
    return graph.node("Add", states, rows, name="word+position")


def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
    """Gemm with the bias inside."""
    return [
        graph.node(
            "Gemm",
            states,
            graph.weight(layer.weight.transposed),
            *([graph.weight(layer.bias)] if layer.bias else []),
            name="linear",
        )
        for layer in layers
    ]


def attention_bias(graph: Graph, tokens: Tokens, by_distance: Weight | None) -> Value:
    """(B, 1, S, S) bool; with a bias by distance (B, N, S, S) float."""
    if by_distance is not None:
        square = replace(_packed(tokens), input_ids=_packed(tokens).unpack)  # (B, S): the portable code reads its shape
        # The runtime rounds S up, so places beyond the last position exist; what they hold is masked.
        reach = by_distance.shape[0] + 2 * LANES
        wide = by_distance.map(
            ".wide", lambda array: np.pad(array, ((LANES, LANES), (0, 0)), mode="edge"), (reach, by_distance.shape[1])
        )
        return portable.attention_bias(graph, square, wide)
    present = _packed(tokens).token_mask
    row = graph.node("Unsqueeze", present, graph.constant([1, 2]), name="row")
    # Attention wants the query dimension spelled out.
    shape = graph.node("Shape", present, name="shape")
    length = graph.node("Slice", shape, graph.constant([1]), graph.constant([2]), name="length")
    batch = graph.node("Slice", shape, graph.constant([0]), graph.constant([1]), name="batch")
    whole = graph.node("Concat", batch, graph.constant([1]), length, length, axis=0, name="whole")
    return graph.node("Expand", row, whole, name="mask")


def attention(graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, bias: Value) -> Value:
    """Unpack, attend, pack; the scale is in the query weights."""
    packed = _packed(tokens)
    q, k, v = (
        graph.node("Gather", states, packed.unpack, name=f"unpack.{name}")
        for states, name in ((query, "query"), (key, "key"), (value, "value"))
    )
    mixed = graph.node("Attention", q, k, v, bias, q_num_heads=heads, kv_num_heads=heads, scale=1.0, name="attention")
    return pack(graph, packed, mixed)


def pack(graph: Graph, tokens: PackedTokens, padded: Value) -> Value:
    """(B, S, H) -> (T, H)."""
    flat = graph.node("Flatten", padded, axis=2, name="flat")
    return graph.node("Gather", flat, tokens.pack, name="pack")


def _padded(pool: Callable[[Graph, Tokens, Value], Value]) -> Callable[[Graph, Tokens, Value], Value]:
    """A pooling of padded states, on unpacked ones: once a batch, a small part of it."""

    def pooled(graph: Graph, tokens: Tokens, states: Value) -> Value:
        return pool(graph, tokens, graph.node("Gather", states, _packed(tokens).unpack, name="unpack"))

    return pooled


CPU = replace(
    PORTABLE,
    name="cpu",
    opset=OPSET,
    enter=enter,
    add_positions=add_positions,
    add_positions_after_pad=add_positions_after_pad,
    linears=linears,
    attention_bias=attention_bias,
    attention=attention,
    pools={mode: _padded(pool) for mode, pool in PORTABLE.pools.items()},
)
