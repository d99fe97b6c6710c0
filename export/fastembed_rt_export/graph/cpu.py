"""The cpu target: what onnxruntime's CPU provider runs fastest, on packed (T, H) token states without padding.

T tokens of all texts lie one after the other. Linear layers, norms and activations see no padding; only attention
unpacks to (B, S, H) with one Gather and packs again. The runtime feeds the indices:

    input_ids (T,)
    position_ids (T,)    0, 1, 2, ... in each text
    unpack (B, S)        token at each place; the text's last token where there is none
    pack (T,)            place of each token in the flattened (B * S)
    token_mask (B, S)    bool
    pooling_mask (B, S)  int64, only where prompts are left out of the pooling
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastembed_rt.run.batching import LANES

from . import distances, portable
from .graph import BOOL, INT64, Graph, Value
from .portable import PORTABLE
from .target import Tokens
from .weight import Array, Linear, Norm, Weight

OPSET = 23  # the Attention operator
# Added to the scores of places without a token. They hold a copy of the text's last token, so their scores are no
# larger than a real one's, and exp(-50) of it is lost in the rounding of the sum. Far lower, exp() gives subnormal
# numbers, with which the products after the softmax took twice as long (AVX-512, onnxruntime 1.32).
MASKED = -50.0


Linears = Callable[[Graph, Value, Sequence[Linear]], list[Value]]


@dataclass(frozen=True, kw_only=True)
class PackedTokens(Tokens):
    """The packed inputs; attention_mask and pooling_mask are (B, S)."""

    position_ids: Value
    unpack: Value
    pack: Value
    token_mask: Value


def packed(tokens: Tokens) -> PackedTokens:
    """The tokens of this target."""
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
    rows = graph.node("Gather", graph.weight(table), packed(tokens).position_ids, name="position")
    return graph.node("Add", states, rows, name="word+position")


def add_positions_after_pad(graph: Graph, tokens: Tokens, states: Value, table: Weight, pad: int) -> Value:
    """Positions count the ids that are not the pad id, from the beginning of each text."""
    given = packed(tokens)
    is_pad = graph.node("Equal", given.input_ids, graph.constant(pad), name="is_pad")
    is_token = graph.node("Cast", graph.node("Not", is_pad, name="is_token"), to=INT64, name="is_token")
    through = graph.node("CumSum", is_token, graph.constant(0), name="through")
    before = graph.node("Sub", through, is_token, name="before")
    # Tokens before the text: the count before its first token, which lies position_ids places back.
    total = graph.node("Squeeze", graph.node("Shape", given.input_ids, name="total"), name="total")
    here = graph.node("Range", graph.constant(0), total, graph.constant(1), name="here")
    first = graph.node("Sub", here, given.position_ids, name="first")
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
    """Additive (B, 1, S, S); with a bias by distance (B, N, S, S)."""
    masked = distances.MASKED if tokens.unseen else MASKED  # scores of unseen tokens have no bound
    if by_distance is not None:
        square = replace(packed(tokens), input_ids=packed(tokens).unpack)  # (B, S): the portable code reads its shape
        # The runtime rounds S up, so places beyond the last position exist; what they hold is masked.
        reach = by_distance.shape[0] + 2 * LANES
        wide = by_distance.map(
            ".wide", lambda array: np.pad(array, ((LANES, LANES), (0, 0)), mode="edge"), (reach, by_distance.shape[1])
        )
        return portable.attention_bias(graph, square, wide, masked)
    present = packed(tokens).token_mask
    row = portable.attention_bias(graph, tokens, None, masked)
    # Attention wants the query dimension spelled out.
    shape = graph.node("Shape", present, name="shape")
    length = graph.node("Slice", shape, graph.constant([1]), graph.constant([2]), name="length")
    batch = graph.node("Slice", shape, graph.constant([0]), graph.constant([1]), name="batch")
    whole = graph.node("Concat", batch, graph.constant([1]), length, length, axis=0, name="whole")
    return graph.node("Expand", row, whole, name="mask")


def attention(graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, bias: Value) -> Value:
    """Attend to padded (B, S, N * D); the scale is in the query weights."""
    return grouped_attention(graph, tokens, query, key, value, heads, heads, bias)


def grouped_attention(
    graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, kv_heads: int, bias: Value
) -> Value:
    """The same with key and value (B, S, M * D)."""
    return graph.node(
        "Attention", query, key, value, bias, q_num_heads=heads, kv_num_heads=kv_heads, scale=1.0, name="attention"
    )


def band(graph: Graph, tokens: Tokens, before: int | None, after: int | None) -> Value:
    """As in the portable target: scores outside may be larger than those inside, so MASKED would not do.

    The subnormal numbers that come of it cost less than the ways around them that were tried (a causal Attention,
    GroupQueryAttention, clearing them after a Softmax of its own).
    """
    return distances.band_mask(graph, packed(tokens).unpack, before, after)


def angles(graph: Graph, tokens: Tokens, cosine: Weight, sine: Weight) -> tuple[Value, ...]:
    """The row of each token: (1, T, D / 2) each; the operator's own lookup wants no more tokens than there are rows."""
    found = []
    for table in (cosine, sine):
        rows = graph.node("Gather", graph.weight(table), packed(tokens).position_ids, name="angle")
        found.append(graph.node("Unsqueeze", rows, graph.constant([0]), name="angle"))
    return tuple(found)


def rotate(graph: Graph, states: Value, turn: tuple[Value, ...], heads: int) -> Value:
    """(T, N * D), four times faster than the operators it is made of."""
    one = graph.node("Unsqueeze", states, graph.constant([0]), name="text")
    turned = graph.node("RotaryEmbedding", one, *turn, num_heads=heads, name="rotary")
    return graph.node("Squeeze", turned, graph.constant([0]), name="turned")


def by_distance(graph: Graph, states: Value, table: Weight, rows: Array, heads: int) -> Value:
    """The runtime rounds S up, so places beyond the last position exist; what they hold is masked."""
    return distances.by_distance(graph, states, table, np.pad(rows, (LANES, LANES), mode="edge"), heads)


def head_norm(graph: Graph, states: Value, layer: Norm, heads: int) -> Value:
    """(T, N * D), each D by itself."""
    split = graph.node("Reshape", states, graph.constant([0, heads, -1]), name="heads")
    return graph.node("Reshape", CPU.norm(graph, split, layer), graph.constant([0, -1]), name="normed")


def silu(graph: Graph, states: Value) -> Value:
    """x * sigmoid(x) in half the time of the two operators."""
    return graph.node("QuickGelu", states, alpha=1.0, domain="com.microsoft", name="silu")


def first(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, H): the first token of each text."""
    places = graph.node("Gather", packed(tokens).unpack, graph.constant(0), axis=1, name="first")
    return graph.node("Gather", states, places, name="first")


def attend_first(
    graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, kv_heads: int, bias: Value
) -> Value:
    """Attention of the first tokens to padded key and value: (B, N * D), as the query is."""
    one = graph.node("Unsqueeze", query, graph.constant([1]), name="query")
    row = graph.node("Gather", bias, graph.constant([0]), axis=2, name="row")
    mixed = grouped_attention(graph, tokens, one, key, value, heads, kv_heads, row)
    return graph.node("Squeeze", mixed, graph.constant([1]), name="mixed")


def unpack(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, S, H)."""
    return graph.node("Gather", states, packed(tokens).unpack, name="unpack")


def pack(graph: Graph, tokens: Tokens, padded: Value, width: int) -> Value:
    """(B, S, width) -> (T, width)."""
    flat = graph.node("Reshape", padded, graph.constant([-1, width]), name="flat")
    return graph.node("Gather", flat, packed(tokens).pack, name="pack")


def around_attention(linears: Linears) -> dict[str, Any]:
    """The functions before and after attention: layers on packed states, unpacking after, packing before them."""

    def project(graph: Graph, tokens: Tokens, states: Value, layers: Sequence[Linear]) -> list[Value]:
        return [unpack(graph, tokens, value) for value in linears(graph, states, layers)]

    def collect(graph: Graph, tokens: Tokens, mixed: Value, layer: Linear) -> Value:
        return linears(graph, pack(graph, tokens, mixed, layer.in_features), [layer])[0]

    return {"linears": linears, "project": project, "collect": collect}


def _padded(pool: Callable[[Graph, Tokens, Value], Value]) -> Callable[[Graph, Tokens, Value], Value]:
    """A pooling of padded states, on unpacked ones: once a batch, a small part of it."""

    def pooled(graph: Graph, tokens: Tokens, states: Value) -> Value:
        return pool(graph, tokens, unpack(graph, tokens, states))

    return pooled


def pool_max(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Without a mask where all tokens count: places without one hold a copy of the text's last token."""
    if tokens.pooling_mask != tokens.attention_mask:
        return _padded(portable.pool_max)(graph, tokens, states)
    return portable.reduce_max(graph, unpack(graph, tokens, states))


CPU = replace(
    PORTABLE,
    name="cpu",
    opset=OPSET,
    enter=enter,
    add_positions=add_positions,
    add_positions_after_pad=add_positions_after_pad,
    **around_attention(linears),
    attention_bias=attention_bias,
    attention=attention,
    grouped_attention=grouped_attention,
    band=band,
    angles=angles,
    by_distance=by_distance,
    rotate=rotate,
    head_norm=head_norm,
    spread=unpack,
    activations={**PORTABLE.activations, "silu": silu, "swish": silu},
    first=first,
    attend_first=attend_first,
    pools={**{mode: _padded(pool) for mode, pool in PORTABLE.pools.items()}, "max": pool_max},
)
