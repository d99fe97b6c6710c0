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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastembed_rt.run.batching import LANES

from . import distances, portable
from .graph import BOOL, FLOAT, INT64, Graph, Value
from .layers import Angles, DistanceRows, Heads, Relative, ScoreBias
from .portable import EOS, PORTABLE
from .target import LastToken, Linears, MaskedTokens, OfStates, Target, Tokens
from .weight import Array, Linear, Norm, Weight

OPSET = 23  # the Attention operator
# Added to the scores of places without a token. They hold a copy of the text's last token, so their scores are no
# larger than a real one's, but for what distances add, and exp(-50) of it is lost in the rounding of the sum. Far
# lower, exp() gives subnormal numbers, with which the products after the softmax took twice as long (AVX-512,
# onnxruntime 1.32).
MASKED = -50.0


@dataclass(frozen=True, kw_only=True)
class PackedTokens(Tokens):
    """Tokens of all texts one after the other."""

    position_ids: Value  # (T,)


@dataclass(frozen=True, kw_only=True)
class UnpackedTokens(PackedTokens, MaskedTokens):
    """Packed tokens, and what leads to padded states and back."""

    unpack: Value  # (B, S)
    token_mask: Value  # (B, S) bool
    pack: Value | None = None  # (T,); None: nothing is packed again


def packed(tokens: Tokens) -> PackedTokens:
    """The tokens of a packed target."""
    assert isinstance(tokens, PackedTokens)
    return tokens


def unpacked(tokens: Tokens) -> UnpackedTokens:
    """The tokens of this target."""
    assert isinstance(tokens, UnpackedTokens)
    return tokens


def enter(graph: Graph, own_pooling_mask: bool) -> UnpackedTokens:
    """Declare the packed inputs."""
    ids = graph.input("input_ids", INT64, ("tokens",))
    positions = graph.input("position_ids", INT64, ("tokens",))
    unpack = graph.input("unpack", INT64, ("batch", "sequence"))
    pack = graph.input("pack", INT64, ("tokens",))
    present = graph.input("token_mask", BOOL, ("batch", "sequence"))
    mask = graph.node("Cast", present, to=INT64, name="attention_mask")
    pooling = graph.input("pooling_mask", INT64, ("batch", "sequence")) if own_pooling_mask else mask
    return UnpackedTokens(
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


def add_positions_after_pad(graph: Graph, tokens: Tokens, states: Value, *, table: Weight, pad: int) -> Value:
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


def attention_bias(graph: Graph, tokens: Tokens, by_distance: Weight | None, *, relative: bool) -> Value:
    """Additive (B, 1, S, S); with a bias by distance (B, N, S, S)."""
    given = unpacked(tokens)
    if tokens.unseen or relative:  # scores of unseen tokens have no bound, nor what states make of distances
        masked = graph.constant(distances.MASKED)
    elif by_distance is not None:
        masked = graph.weight(by_distance.map(".masked", _masked_beside, (1,)))
    else:
        masked = graph.constant(MASKED)
    row = portable.padding_bias(graph, tokens, masked)
    if by_distance is not None:
        # The runtime rounds S up, so places beyond the last position exist; what they hold is masked.
        return portable.with_distances(graph, row, given.unpack, distances.reaching(by_distance, LANES))
    # Attention wants the query dimension spelled out.
    shape = graph.node("Shape", given.token_mask, name="shape")
    length = graph.node("Slice", shape, graph.constant([1]), graph.constant([2]), name="length")
    batch = graph.node("Slice", shape, graph.constant([0]), graph.constant([1]), name="batch")
    whole = graph.node("Concat", batch, graph.constant([1]), length, length, axis=0, name="whole")
    return graph.node("Expand", row, whole, name="mask")


def _masked_beside(table: Array) -> Array:
    """MASKED for places that stand behind the token of which they hold a copy: by as much lower as the bias by distance
    (2P - 1, N) may be larger there than at the token itself, which no query of the text stands behind.
    """
    onward = table[len(table) // 2 :]
    rise = (onward - np.minimum.accumulate(onward, axis=0)).max()
    return np.array([MASKED - rise], np.float32)


def attention(
    graph: Graph, tokens: Tokens, *, query: Value, key: Value, value: Value, heads: Heads, bias: ScoreBias
) -> Value:
    """Attend to padded key and value (B, S, K * D) from (B, S, N * D); the scale is in the query weights."""
    assert bias.tensor is not None
    if bias.cap is not None:
        # Attention has a cap too: before the mask in onnxruntime 1.32, behind it in 1.24.
        return portable.attention(graph, tokens, query=query, key=key, value=value, heads=heads, bias=bias)
    return graph.node(
        "Attention",
        *(query, key, value, bias.tensor),
        q_num_heads=heads.queries,
        kv_num_heads=heads.keys,
        scale=1.0,
        name="attention",
    )


def band(graph: Graph, tokens: Tokens, *, before: int | None, after: int | None) -> Value:
    """As in the portable target: scores outside may be larger than those inside, so MASKED would not do.

    The subnormal numbers that come of it cost less than the ways around them that were tried (a causal Attention,
    GroupQueryAttention, clearing them after a Softmax of its own).
    """
    return distances.band_mask(graph, unpacked(tokens).unpack, before=before, after=after)


def angles(graph: Graph, tokens: Tokens, *, cosine: Weight, sine: Weight) -> Angles:
    """The row of each token: (1, T, D / 2) each; the operator's own lookup wants no more tokens than there are rows."""
    return rows_of_angles(graph, packed(tokens).position_ids, cosine=cosine, sine=sine)


def rows_of_angles(graph: Graph, position_ids: Value, *, cosine: Weight, sine: Weight) -> Angles:
    """The rows of `position_ids` (T,): (1, T, D / 2) each."""

    def rows_of(table: Weight) -> Value:
        rows = graph.node("Gather", graph.weight(table), position_ids, name="angle")
        return graph.node("Unsqueeze", rows, graph.constant([0]), name="angle")

    return Angles(cosine=rows_of(cosine), sine=rows_of(sine))


def rotate(graph: Graph, states: Value, *, angles: Angles, heads: int) -> Value:
    """(T, N * D), four times faster than the operators it is made of."""
    one = graph.node("Unsqueeze", states, graph.constant([0]), name="text")
    turned = graph.node("RotaryEmbedding", one, angles.cosine, angles.sine, num_heads=heads, name="rotary")
    return graph.node("Squeeze", turned, graph.constant([0]), name="turned")


def by_distance(graph: Graph, states: Value, *, rows: DistanceRows, heads: int) -> Value:
    """The runtime rounds S up, so places beyond the last position exist; what they hold is masked."""
    return distances.by_distance(graph, states, rows=rows.reaching(LANES), heads=heads)


def by_distance_of_first(graph: Graph, query: Value, key: Value, *, relative: Relative, heads: int) -> Value:
    """As `by_distance`."""
    return distances.by_distance_of_first(graph, query, key, relative=relative.reaching(LANES), heads=heads)


def head_norm(graph: Graph, states: Value, layer: Norm, *, heads: int) -> Value:
    """(T, N * D), each D by itself."""
    split = graph.node("Reshape", states, graph.constant([0, heads, -1]), name="heads")
    return graph.node("Reshape", portable.norm(graph, split, layer), graph.constant([0, -1]), name="normed")


def shift(graph: Graph, tokens: Tokens, states: Value, *, by: int) -> Value:
    """(T, H): a token of the same text is as many positions away as it is places."""
    positions = packed(tokens).position_ids
    wanted = graph.node("Sub", positions, graph.constant(by), name="wanted")
    # One more than the position, of which no place without a token has 0.
    there = portable.moved(graph, graph.node("Add", positions, graph.constant(1), name="place"), by, axis=0, rank=1)
    same = graph.node("Equal", there, graph.node("Add", wanted, graph.constant(1), name="place"), name="same")
    same = graph.node("Unsqueeze", graph.node("Cast", same, to=FLOAT, name="same"), graph.constant([1]), name="same")
    return graph.node("Mul", portable.moved(graph, states, by, axis=0, rank=2), same, name="shifted")


def silu(graph: Graph, states: Value) -> Value:
    """x * sigmoid(x) in half the time of the two operators."""
    return graph.node("QuickGelu", states, alpha=1.0, domain="com.microsoft", name="silu")


def first(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, H): the first token of each text."""
    places = graph.node("Gather", unpacked(tokens).unpack, graph.constant(0), axis=1, name="first")
    return graph.node("Gather", states, places, name="first")


def attend_first(
    graph: Graph, tokens: Tokens, *, query: Value, key: Value, value: Value, heads: Heads, bias: ScoreBias
) -> Value:
    """Attention of the first tokens to padded key and value: (B, N * D), as the query is."""
    assert bias.tensor is not None
    one = graph.node("Unsqueeze", query, graph.constant([1]), name="query")
    row = graph.node("Gather", bias.tensor, graph.constant([0]), axis=2, name="row")
    mixed = attention(graph, tokens, query=one, key=key, value=value, heads=heads, bias=replace(bias, tensor=row))
    return graph.node("Squeeze", mixed, graph.constant([1]), name="mixed")


def last(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, H): the last token of each text."""
    return graph.node("Gather", states, _last_places(graph, tokens), name="last")


def last_angles(graph: Graph, tokens: Tokens, angles: Angles) -> Angles:
    """(1, T, D / 2) -> (1, B, D / 2), twice."""
    places = _last_places(graph, tokens)
    cosine, sine = (graph.node("Gather", rows, places, axis=1, name="last") for rows in (angles.cosine, angles.sine))
    return replace(angles, cosine=cosine, sine=sine)


def _last_places(graph: Graph, tokens: Tokens) -> Value:
    """(B,): the last column, which holds a text's last token wherever it ends."""
    return graph.node("Gather", unpacked(tokens).unpack, graph.constant(-1), axis=1, name="last")


def seen(graph: Graph, tokens: Tokens) -> Value:
    """(B, 1, 1, S): the padding alone."""
    return portable.padding_bias(graph, tokens, graph.constant(MASKED))


def unpack(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, S, H)."""
    return graph.node("Gather", states, unpacked(tokens).unpack, name="unpack")


def pack(graph: Graph, tokens: Tokens, padded: Value, width: int) -> Value:
    """(B, S, width) -> (T, width)."""
    places = unpacked(tokens).pack
    assert places is not None
    flat = graph.node("Reshape", padded, graph.constant([-1, width]), name="flat")
    return graph.node("Gather", flat, places, name="pack")


def with_linears(target: Target, linears: Linears) -> Target:
    """The target with other linear layers, those before and after attention too: they are on packed states."""

    def project(graph: Graph, tokens: Tokens, states: Value, layers: Sequence[Linear]) -> list[Value]:
        return [unpack(graph, tokens, value) for value in linears(graph, states, layers)]

    def collect(graph: Graph, tokens: Tokens, mixed: Value, layer: Linear) -> Value:
        return linears(graph, pack(graph, tokens, mixed, layer.in_features), [layer])[0]

    return replace(target, linears=linears, project=project, collect=collect)


def _padded(pool: OfStates) -> OfStates:
    """A pooling of padded states, on unpacked ones: once a batch, a small part of it."""
    return lambda graph, tokens, states: pool(graph, tokens, unpack(graph, tokens, states))


def pool_max(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Without a mask where all tokens count: places without one hold a copy of the text's last token."""
    given = unpacked(tokens)
    if given.pooling_mask != given.attention_mask:
        return _padded(portable.pool_max)(graph, tokens, states)
    return portable.reduce_max(graph, unpack(graph, tokens, states))


def pool_end(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the token at the end of the text, which may have others behind it."""
    return graph.node("Gather", states, end_places(graph, tokens, unpacked(tokens).unpack), name="end")


def end_places(graph: Graph, tokens: Tokens, unpack: Value) -> Value:
    """(B,): where those tokens are. Places without a token hold copies of the last one, which come after it."""
    assert tokens.ends is not None
    ends = graph.node("Gather", tokens.ends, unpack, name="ends")
    first = graph.node("ArgMax", ends, axis=1, keepdims=1, name="end")
    return graph.node("GatherND", unpack, first, batch_dims=1, name="end")


CPU = with_linears(
    replace(
        PORTABLE,
        name="cpu",
        opset=OPSET,
        enter=enter,
        add_positions=add_positions,
        add_positions_after_pad=add_positions_after_pad,
        attention_bias=attention_bias,
        attention=attention,
        band=band,
        angles=angles,
        by_distance=by_distance,
        rotate=rotate,
        head_norm=head_norm,
        shift=shift,
        spread=unpack,
        activations={**PORTABLE.activations, "silu": silu, "swish": silu},
        first=first,
        attend_first=attend_first,
        by_distance_of_first=by_distance_of_first,
        last=LastToken(states=last, angles=last_angles, seen=seen),
        dispatches=True,
        pools={
            **{mode: _padded(pool) for mode, pool in PORTABLE.pools.items()},
            "max": pool_max,
            EOS: pool_end,
        },
        on_padded=_padded,
    ),
    linears,
)
