"""INT8 with our own operators (fastembed_rt/native): a layer of an encoder in two nodes, nothing padded anywhere.

The same weights as the stock INT8 graph (int8.py), whose file they are read from. Token states go through memory less
often: projections, attention, output, residual and normalization are one operator, the feed-forward another. Inputs
with rare large values have narrow ranges, and what lies beyond them is added back. Attention itself is in 16-bit
integers, by blocks of keys that are added in float: its error does not grow with the length of a text
(fastembed_rt/native/src/attention.h says how large it can be).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastembed_rt.native import DOMAIN

from . import int8
from .cpu import CPU, PackedTokens
from .graph import BOOL, INT64, Graph, Value
from .int8 import GroupRecipe, Recipe, group_key, outlier_rows, quantized_weights, smoothing
from .target import Residual, Target, Tokens
from .weight import Array, Linear, Weight

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
WITH_TAILS = frozenset(
    ("output", "down", "linear")
)  # groups whose result goes through no activation inside an operator


class NotNativeError(Exception):
    """An encoder needs something that the operators do not have; the message says what."""


@dataclass(frozen=True, kw_only=True)
class NativeTokens(PackedTokens):
    """The packed inputs, and `starts` (B + 1,): the number of tokens before each text, and in all."""

    starts: Value


class Limits(str):
    """What attention adds to its scores, said to the operator: a Value that names no tensor."""

    __slots__ = ("after", "before", "by_distance")
    by_distance: Weight | None
    before: int | None
    after: int | None


def enter(graph: Graph, own_pooling_mask: bool) -> Tokens:
    """Declare the packed inputs; those of padded states come when a pooling asks for them."""
    ids = graph.input("input_ids", INT64, ("tokens",))
    positions = graph.input("position_ids", INT64, ("tokens",))
    starts = graph.input("starts", INT64, ("batch_and_one",))
    pooling = graph.input("pooling_mask", INT64, ("batch", "sequence")) if own_pooling_mask else ""
    return NativeTokens(
        input_ids=ids,
        attention_mask="",
        pooling_mask=pooling,
        position_ids=positions,
        starts=starts,
        unpack="",
        pack="",  # nothing is packed again
        token_mask="",
    )


def padded(graph: Graph, tokens: Tokens) -> NativeTokens:
    """The same tokens with the inputs that padded states need, declared the first time."""
    assert isinstance(tokens, NativeTokens)
    known = {entry.name for entry in graph.inputs}
    if "unpack" not in known:
        graph.input("unpack", INT64, ("batch", "sequence"))
        graph.input("token_mask", BOOL, ("batch", "sequence"))
    mask = graph.node("Cast", "token_mask", to=INT64, name="attention_mask")
    return replace(
        tokens,
        attention_mask=mask,
        pooling_mask=tokens.pooling_mask or mask,
        unpack="unpack",
        token_mask="token_mask",
    )


def embed(graph: Graph, tokens: Tokens, table: Weight) -> Value:
    """Rows of the int8 table (V, H) times their own scales."""
    values, scales = int8.table_weights(table)
    inputs = (tokens.input_ids, graph.weight(values), graph.weight(scales))
    return graph.node("QuantEmbedding", *inputs, domain=DOMAIN, name="word")


def pool_mean(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Average of the token states."""
    if tokens.pooling_mask:  # tokens that do not count
        return CPU.pools["mean"](graph, padded(graph, tokens), states)
    return graph.node("PackedMean", states, _starts(tokens), domain=DOMAIN, name="mean")


def first(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """(T, H) -> (B, H): the first token of each text."""
    ends = (graph.constant([0]), graph.constant([-1]))
    places = graph.node("Slice", _starts(tokens), *ends, name="first")
    return graph.node("Gather", states, places, name="first")


def _on_padded(pool: Callable[[Graph, Tokens, Value], Value]) -> Callable[[Graph, Tokens, Value], Value]:
    return lambda graph, tokens, states: pool(graph, padded(graph, tokens), states)


def limits(by_distance: Weight | None, before: int | None, after: int | None) -> Value:
    """For `attention`: what it adds to scores, and how far a token sees."""
    found = Limits()
    found.by_distance, found.before, found.after = by_distance, before, after
    return found


def target(recipe: Recipe) -> Target:
    """The target with these quantized layers; layers that stay float are stock nodes."""
    base = int8.target(recipe)

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        group = recipe.groups.get(group_key(layers))
        if group is None:
            return CPU.linears(graph, states, layers)
        return [_linear(graph, states, layers, index, group) for index in range(len(layers))]

    def attention_block(
        graph: Graph,
        tokens: Tokens,
        states: Value,
        layers: Sequence[Linear],
        output: Linear,
        heads: int,
        kv_heads: int,
        bias: Value,
        then: Residual | None,
    ) -> Value | None:
        first, second = recipe.groups.get(group_key(layers)), recipe.groups.get(group_key([output]))
        if first is None or second is None:
            return None
        shape_inputs, shape = _shape(graph, bias, heads, kv_heads, layers[0].out_features // heads)
        node = _Node(graph, "QuantAttention", [states, _starts(tokens), *shape_inputs], shape)
        node.group("input", layers, first)
        node.group("output", [output], second)
        return node.finish(then)

    def feed_forward_block(
        graph: Graph, states: Value, layers: Sequence[Linear], activation: str, down: Linear, then: Residual | None
    ) -> Value | None:
        first, second = recipe.groups.get(group_key(layers)), recipe.groups.get(group_key([down]))
        gated = len(layers) == 2
        if first is None or second is None or activation not in ACTIVATIONS or (gated and down.in_features % LANES):
            return None
        node = _Node(graph, "QuantFeedForward", [states], {"activation": ACTIVATIONS[activation], "gated": int(gated)})
        node.group("up", layers, first)
        node.group("down", [down], second)
        return node.finish(then)

    return replace(
        base,
        name="native",
        enter=enter,
        embed=embed if recipe.embedding else CPU.embed,
        first=first,
        pools={**{mode: _on_padded(pool) for mode, pool in CPU.pools.items()}, "mean": pool_mean},
        linears=linears,
        project=lambda graph, _, states, layers: linears(graph, states, layers),
        collect=lambda graph, _, mixed, layer: linears(graph, mixed, [layer])[0],
        spread=lambda _, __, states: states,
        attention=_attention,
        grouped_attention=_grouped_attention,
        attend_first=_attend_first,
        by_distance=_by_distance,
        limits=limits,
        attention_block=attention_block,
        feed_forward_block=feed_forward_block,
    )


class _Node:
    """An operator under construction: inputs and attributes in the order of fastembed_rt/native/src/operators.c."""

    def __init__(self, graph: Graph, op: str, inputs: list[Value], attributes: dict[str, Any]) -> None:
        self.graph, self.op, self.inputs, self.attributes = graph, op, inputs, attributes

    def group(self, prefix: str, layers: Sequence[Linear], recipe: GroupRecipe, only: int | None = None) -> None:
        """Layers that share an input; `only` one of them."""
        chosen = [(index, layer) for index, layer in enumerate(layers) if only in (None, index)]
        tails = recipe.tails if prefix in WITH_TAILS else None
        self.attributes |= {
            f"{prefix}_scale": recipe.scale if tails is None else tails.scale,
            f"{prefix}_zero": recipe.zero_point if tails is None else tails.zero_point,
            f"{prefix}_layers": len(chosen),
        }
        if tails is not None:
            self.attributes[f"{prefix}_tails"] = 1
        outliers = recipe.outliers if tails is None else ()
        if outliers:
            self.attributes[f"{prefix}_outliers"] = list(outliers)
        if recipe.smooth is not None:
            self.attributes[f"{prefix}_smooth"] = 1
            self.inputs.append(self.graph.weight(smoothing(layers, recipe)))
        for index, layer in chosen:
            values, scales, bias = quantized_weights(layers, recipe, index, tails=tails is not None)
            bias = bias or _zeros(f"{layer.weight.name}.no_bias", layer.out_features)
            self.inputs += [self.graph.weight(weight) for weight in (values, scales, bias)]
            if outliers:
                self.inputs.append(self.graph.weight(outlier_rows(layers, recipe, index)))

    def finish(self, then: Residual | None = None) -> Value:
        """Append the node."""
        if then is not None:
            norm = then.norm
            self.inputs += [then.states, self.graph.weight(norm.weight)]
            self.attributes |= {"residual": 1, "norm": 1, "epsilon": norm.epsilon, "rms": int(norm.rms)}
            if norm.bias is not None:
                self.attributes["norm_bias"] = 1
                self.inputs.append(self.graph.weight(norm.bias))
        return self.graph.node(self.op, *self.inputs, domain=DOMAIN, name=self.op, **self.attributes)


def _linear(graph: Graph, states: Value, layers: Sequence[Linear], index: int, group: GroupRecipe) -> Value:
    node = _Node(graph, "QuantLinear", [states], {})
    node.group("linear", layers, group, only=index)
    return node.finish()


def _starts(tokens: Tokens) -> Value:
    assert isinstance(tokens, NativeTokens)
    if tokens.unseen:
        raise NotNativeError("tokens that see others and are not seen by them")
    return tokens.starts


def _shape(graph: Graph, bias: Value, heads: int, kv_heads: int, size: int) -> tuple[list[Value], dict[str, Any]]:
    """Inputs and attributes that tell an operator what attention is."""
    if not isinstance(bias, Limits):
        raise NotNativeError("attention adds to its scores what the operator does not know")
    shape: dict[str, Any] = {"heads": heads, "kv_heads": kv_heads, "size": size}
    if bias.before is not None:
        shape["before"] = bias.before
    if bias.after is not None:
        shape["after"] = bias.after
    if bias.by_distance is None:
        return [], shape
    table = bias.by_distance.map(".by_head", lambda array: np.ascontiguousarray(array.T), bias.by_distance.shape[::-1])
    return [graph.weight(table)], {**shape, "by_distance": 1}


def _attention(graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, bias: Value) -> Value:
    return _grouped_attention(graph, tokens, query, key, value, heads, heads, bias)


def _grouped_attention(
    graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, kv_heads: int, bias: Value
) -> Value:
    return _packed(graph, tokens, query, key, value, heads, kv_heads, bias, first_only=False)


def _attend_first(
    graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, kv_heads: int, bias: Value
) -> Value:
    return _packed(graph, tokens, query, key, value, heads, kv_heads, bias, first_only=True)


def _by_distance(graph: Graph, states: Value, table: Weight, rows: Array, heads: int) -> Value:
    raise NotNativeError("attention scores that distances meet with queries or keys")


def _packed(
    graph: Graph,
    tokens: Tokens,
    query: Value,
    key: Value,
    value: Value,
    heads: int,
    kv_heads: int,
    bias: Value,
    *,
    first_only: bool,
) -> Value:
    """(T, N * D), or (B, N * D) for first tokens."""
    inputs, shape = _shape(graph, bias, heads, kv_heads, 0)  # the operator divides the width by the heads
    return graph.node(
        "PackedAttention",
        *(query, key, value, _starts(tokens), *inputs),
        domain=DOMAIN,
        name="attention",
        first_only=int(first_only),
        **shape,
    )


def _zeros(name: str, width: int) -> Weight:
    return Weight(name, (width,), _nothing(width))


def _nothing(width: int) -> Callable[[], Array]:
    return lambda: np.zeros(width, np.float32)
