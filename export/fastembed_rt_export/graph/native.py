"""INT8 with our own operators (fastembed_rt/native): a layer of an encoder in two nodes, nothing padded anywhere.

The same weights as the stock INT8 graph (int8.py), whose file they are read from. Token states go through memory less
often: projections, attention, output, residual and normalization are one operator, the feed-forward another. Inputs
with rare large values have narrow ranges, and what lies beyond them is added back. Attention itself is in 16-bit
integers, by blocks of keys that are added in float: its error does not grow with the length of a text
(fastembed_rt/native/src/attention.h says how large it can be).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fastembed_rt.native import DOMAIN

from . import cpu, int8
from .cpu import CPU, PackedTokens, UnpackedTokens
from .graph import BOOL, INT64, Graph, Value
from .int8 import GroupRecipe, Recipe, group_key, outlier_rows, quantized_weights, smoothing
from .layers import Angles, Attention, FeedForward, Heads, Relative, Residual, ScoreBias
from .own_nodes import OwnNode, float_linear, zeros
from .portable import EOS
from .target import LastToken, OfStates, Target, Tokens
from .weight import Array, Linear, Norm, Weight

# Activations under the names of transformers -> those of the operators.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "tanh": "tanh",
}
LANES = 16
END = np.iinfo(np.int64).max  # of a slice: all that follows
HEAD_UNIT = 32  # channels: what an operator turns or normalizes by heads is a multiple of it


class NotNativeError(Exception):
    """An encoder needs something that the operators do not have; the message says what."""


@dataclass(frozen=True, kw_only=True)
class NativeTokens(PackedTokens):
    """The packed inputs."""

    starts: Value  # (B + 1,): the number of tokens before each text, and in all
    own_pooling_mask: Value | None  # (B, S) int64; None: all tokens count


def enter(graph: Graph, own_pooling_mask: bool) -> NativeTokens:
    """Declare the packed inputs; those of padded states come when a pooling asks for them."""
    ids = graph.input("input_ids", INT64, ("tokens",))
    positions = graph.input("position_ids", INT64, ("tokens",))
    starts = graph.input("starts", INT64, ("batch_and_one",))
    pooling = graph.input("pooling_mask", INT64, ("batch", "sequence")) if own_pooling_mask else None
    return NativeTokens(input_ids=ids, position_ids=positions, starts=starts, own_pooling_mask=pooling)


def padded(graph: Graph, tokens: Tokens) -> UnpackedTokens:
    """The tokens with the inputs that padded states need, declared the first time; nothing is packed again."""
    given = _native(tokens)
    unpack = graph.needed("unpack", INT64, ("batch", "sequence"))
    present = graph.needed("token_mask", BOOL, ("batch", "sequence"))
    mask = graph.node("Cast", present, to=INT64, name="attention_mask")
    return UnpackedTokens(
        input_ids=given.input_ids,
        attention_mask=mask,
        pooling_mask=given.own_pooling_mask or mask,
        position_ids=given.position_ids,
        unpack=unpack,
        token_mask=present,
    )


def embed(graph: Graph, tokens: Tokens, table: Weight) -> Value:
    """Rows of the int8 table (V, H) times their own scales."""
    values, scales = int8.table_weights(table)
    inputs = (tokens.input_ids, graph.weight(values), graph.weight(scales))
    return graph.node("QuantEmbedding", *inputs, domain=DOMAIN, name="word")


def pool_mean(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Average of the token states."""
    if _native(tokens).own_pooling_mask is not None:  # tokens that do not count
        return CPU.pools["mean"](graph, padded(graph, tokens), states)
    return graph.node("PackedMean", states, starts_of(tokens), domain=DOMAIN, name="mean")


def pool_end(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the token at the end of the text, which may have others behind it."""
    unpack = graph.needed("unpack", INT64, ("batch", "sequence"))
    return graph.node("Gather", states, cpu.end_places(graph, tokens, unpack), name="end")


def first(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, H): the first token of each text."""
    ends = (graph.constant([0]), graph.constant([-1]))
    places = graph.node("Slice", starts_of(tokens), *ends, name="first")
    return graph.node("Gather", states, places, name="first")


def last(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, H): the last token of each text."""
    return graph.node("Gather", states, _last_places(graph, tokens), name="last")


def _last_angles(graph: Graph, tokens: Tokens, angles: Angles) -> Angles:
    """(T, D / 2) -> (B, D / 2), twice."""
    cosine, sine = (last(graph, tokens, rows) for rows in (angles.cosine, angles.sine))
    return replace(angles, cosine=cosine, sine=sine)


def _last_places(graph: Graph, tokens: Tokens) -> Value:
    """(B,): the place before that where the next text begins."""
    behind = graph.node("Slice", starts_of(tokens), graph.constant([1]), graph.constant([END]), name="behind")
    return graph.node("Sub", behind, graph.constant(1), name="last")


def _on_padded(pool: OfStates) -> OfStates:
    return lambda graph, tokens, states: pool(graph, padded(graph, tokens), states)


def target(recipe: Recipe) -> Target:
    """The target with these quantized layers; layers that stay float are in float here too."""
    base = int8.target(recipe)

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        group = recipe.groups.get(group_key(layers))
        if group is None:
            return [float_linear(graph, [states], layer) for layer in layers]
        return [_linear(graph, [states], layers, index, group) for index in range(len(layers))]

    def largest(graph: Graph, tokens: Tokens, states: Value, layers: Sequence[Linear]) -> list[Value]:
        group, inputs = recipe.groups.get(group_key(layers)), [states, starts_of(tokens)]
        if group is None:
            return [float_linear(graph, inputs, layer, largest=1) for layer in layers]
        return [_linear(graph, inputs, layers, index, group, largest=1) for index in range(len(layers))]

    def attention_block(
        graph: Graph,
        tokens: Tokens,
        states: Value,
        *,
        attention: Attention,
        bias: ScoreBias,
        before: Norm | None,
        then: Residual | None,
    ) -> Value | None:
        given = attention.projections
        layers, output = [given.query, given.key, given.value], [given.output]
        first, second = recipe.groups.get(group_key(layers)), recipe.groups.get(group_key(output))
        if first is None or second is None or not fits_in_node(attention):
            return None
        node = _Node(graph, "QuantAttention", *attention_inputs(graph, tokens, states, attention, bias))
        node.group("input", layers, first)
        node.group("output", output, second)
        node.head_norms(attention)
        node.norm("before_", before)
        return node.finish(then)

    def feed_forward_block(
        graph: Graph, states: Value, *, layers: FeedForward, before: Norm | None, then: Residual | None
    ) -> Value | None:
        first, second = recipe.groups.get(group_key(layers.first)), recipe.groups.get(group_key([layers.down]))
        activation, gated = ACTIVATIONS.get(layers.activation), layers.gate is not None
        if first is None or second is None or activation is None or (gated and layers.down.in_features % LANES):
            return None
        node = _Node(graph, "QuantFeedForward", [states], {"activation": activation, "gated": int(gated)})
        node.group("up", layers.first, first)
        node.group("down", [layers.down], second)
        node.norm("before_", before)
        return node.finish(then)

    return replace(
        base,
        name="native",
        enter=enter,
        embed=embed if recipe.embedding else CPU.embed,
        first=first,
        pools={
            **{mode: _on_padded(pool) for mode, pool in CPU.pools.items()},
            "mean": pool_mean,
            EOS: pool_end,
        },
        on_padded=lambda function: _on_padded(CPU.on_padded(function)),
        linears=linears,
        largest=largest,
        project=lambda graph, _, states, layers: linears(graph, states, layers),
        collect=lambda graph, _, mixed, layer: linears(graph, mixed, [layer])[0],
        spread=lambda _, __, states: states,
        # What `ScoreBias` says in numbers goes into the operators' attributes.
        attention_bias=lambda _, __, ___, relative: None,
        band=_no_band,
        attention=partial(attention, first_only=False),
        attend_first=partial(attention, first_only=True),
        last=LastToken(states=last, angles=_last_angles, seen=lambda _, __: None),
        angles=_angles,
        rotate=_rotate,
        by_distance=None,
        attention_block=attention_block,
        feed_forward_block=feed_forward_block,
        dense=lambda graph, vectors, layer: float_linear(graph, [vectors], layer),
    )


class _Node(OwnNode):
    """An operator with groups of quantized layers."""

    def group(self, prefix: str, layers: Sequence[Linear], recipe: GroupRecipe, only: int | None = None) -> None:
        """Layers that share an input; `only` one of them."""
        chosen = [(index, layer) for index, layer in enumerate(layers) if only in (None, index)]
        taken = recipe.with_tails
        self.attributes |= {
            f"{prefix}_scale": taken.scale,
            f"{prefix}_zero": taken.zero_point,
            f"{prefix}_layers": len(chosen),
        }
        if recipe.tails is not None:
            self.attributes[f"{prefix}_tails"] = 1
        if recipe.dither and prefix != "down":  # which is quantized before its row is known
            self.attributes[f"{prefix}_dither"] = 1
        if taken.outliers:
            self.attributes[f"{prefix}_outliers"] = list(taken.outliers)
        factor = smoothing(layers, recipe, tails=True)
        if factor is not None:
            self.attributes[f"{prefix}_smooth"] = 1
            self.inputs.append(self.graph.weight(factor))
        for index, layer in chosen:
            values, scales, bias = quantized_weights(layers, recipe, index, tails=True)
            bias = bias or zeros(f"{layer.weight.name}.no_bias", layer.out_features)
            self.inputs += [self.graph.weight(weight) for weight in (values, scales, bias)]
            if taken.outliers:
                self.inputs.append(self.graph.weight(outlier_rows(layers, recipe, index)))


def _linear(
    graph: Graph, inputs: list[Value], layers: Sequence[Linear], index: int, group: GroupRecipe, **attributes: int
) -> Value:
    node = _Node(graph, "QuantLinear", list(inputs), {**attributes})
    node.group("linear", layers, group, only=index)
    return node.finish()


def _native(tokens: Tokens) -> NativeTokens:
    assert isinstance(tokens, NativeTokens)
    return tokens


def starts_of(tokens: Tokens) -> Value:
    """Where texts begin among the tokens: (B + 1,)."""
    return _native(tokens).starts


def attention_shape(
    graph: Graph, tokens: Tokens, heads: Heads, size: int, bias: ScoreBias
) -> tuple[list[Value], dict[str, Any]]:
    """Inputs and attributes that tell an operator what attention is; `size`: D, 0 for the width by the heads."""
    if bias.tensor is not None:
        raise NotNativeError("attention adds to its scores what the operator does not know")
    shape: dict[str, Any] = {"heads": heads.queries, "kv_heads": heads.keys, "size": size}
    texts = [starts_of(tokens)]
    if tokens.unseen:
        if bias.by_distance is not None:
            raise NotNativeError("a bias by distance beside tokens that see others and are not seen by them")
        if bias.before is not None and bias.before < tokens.unseen:
            raise NotNativeError("tokens that are not seen, and so many of them that the last may see none")
        texts.append(graph.needed("seen", INT64, ("batch",)))
        shape["seen"] = 1
    if bias.before is not None:
        shape["before"] = bias.before
    if bias.after is not None:
        shape["after"] = bias.after
    if bias.cap is not None:
        shape |= {"capped": 1, "cap": bias.cap}
    if bias.relative is not None:
        if tokens.unseen:
            raise NotNativeError("distances that queries and keys meet, beside tokens that are not seen")
        tables, own = _tables(graph, bias.relative, heads)
        return [*texts, *tables], {**shape, **own}
    if bias.by_distance is None:
        return texts, shape
    table = bias.by_distance.map(".by_head", lambda array: np.ascontiguousarray(array.T), bias.by_distance.shape[::-1])
    return [*texts, graph.weight(table)], {**shape, "by_distance": 1}


def _tables(graph: Graph, relative: Relative, heads: Heads) -> tuple[list[Value], dict[str, Any]]:
    """The row of each distance query - key and the tables that the rows are in, for an operator, and its attributes."""
    inputs: list[Value] = []
    shape: dict[str, Any] = {}
    rows: list[Array] = []
    if relative.by_query is not None:
        rows.append(relative.by_query.index[-2::-1])  # numbered by key - query
        inputs.append(graph.weight(relative.by_query.table))
        shape |= {"c2p": 1, "size": relative.by_query.table.shape[1] // heads.queries}
    if relative.by_key is not None:
        rows.append(relative.by_key.index[:-1])
        inputs.append(graph.weight(_columns(relative.by_key.table)))
        shape |= {"p2c": 1, "size": relative.by_key.table.shape[1] // heads.queries}
    rises = np.diff(rows[0])
    if any((other != rows[0]).any() for other in rows) or not ((rises == 0) | (rises == 1)).all():
        raise NotNativeError("distances whose rows do not follow one another")
    return [graph.constant(rows[0]), *inputs], shape


def _columns(table: Weight) -> Weight:
    """(R, N * D) -> (N * D, R), R rounded up to whole vectors."""
    rows, width = table.shape
    more = -rows % LANES

    def turned(array: Array) -> Array:
        return np.pad(array, ((0, more), (0, 0))).T

    return table.map(".columns", turned, (width, rows + more))


def fits_in_node(attention: Attention) -> bool:
    """Whether an operator does what happens to queries and keys before attention, if anything does."""
    return not attention.turned or (attention.head_size % HEAD_UNIT == 0 and attention.normed_by_head)


def attention_inputs(
    graph: Graph, tokens: Tokens, states: Value, attention: Attention, bias: ScoreBias
) -> tuple[list[Value], dict[str, Any]]:
    """Inputs in front of the layers', and attributes, of an operator that does all of an attention."""
    inputs, attributes = attention_shape(graph, tokens, attention.heads, attention.head_size, bias)
    angles = attention.angles
    if angles is not None:
        inputs, attributes = [*inputs, angles.cosine, angles.sine], {**attributes, "rotary": 1}
    return [states, *inputs], attributes


def _angles(graph: Graph, tokens: Tokens, *, cosine: Weight, sine: Weight) -> Angles:
    """(T, D / 2) each."""
    positions = _native(tokens).position_ids
    rows = [graph.node("Gather", graph.weight(table), positions, name="angle") for table in (cosine, sine)]
    return Angles(cosine=rows[0], sine=rows[1])


def _rotate(graph: Graph, states: Value, *, angles: Angles, heads: int) -> Value:
    """(T, N * D), where no operator does it."""
    one = [graph.node("Unsqueeze", rows, graph.constant([0]), name="angle") for rows in (angles.cosine, angles.sine)]
    return CPU.rotate(graph, states, angles=Angles(one[0], one[1]), heads=heads)


def _no_band(graph: Graph, tokens: Tokens, *, before: int | None, after: int | None) -> None:
    """Nothing: the operators take the numbers."""


def attention(
    graph: Graph,
    tokens: Tokens,
    *,
    query: Value,
    key: Value,
    value: Value,
    heads: Heads,
    bias: ScoreBias,
    first_only: bool,
    in_float: bool = False,
) -> Value:
    """(T, N * D), or (B, N * D) for first tokens; in 16-bit integers or in float."""
    inputs, shape = attention_shape(graph, tokens, heads, 0, bias)
    return graph.node(
        "PackedAttention",
        *(query, key, value, *inputs),
        domain=DOMAIN,
        name="attention",
        first_only=int(first_only),
        in_float=int(in_float),
        **shape,
    )
