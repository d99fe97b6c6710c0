"""The tensorrt target: standard operators on padded (B, S, H) token states, which TensorRT takes as one engine.

fp16: weights and states are float16; LayerNormalization, softmax, pooling and what follows are float32, said by casts
in the graph, because TensorRT itself would choose half precision for them too. The runtime gives the ranges of the
inputs' shapes as profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from . import distances, portable
from .graph import FLOAT, Graph, Value
from .portable import PORTABLE
from .target import Target, Tokens
from .weight import Array, Norm, Weight

OPSET = 17  # LayerNormalization; every TensorRT 10 reads it
FLOAT16 = int(TensorProto.FLOAT16)
DTYPES: dict[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


def target(precision: str) -> Target:
    """The target in fp16 or fp32."""

    def enter(graph: Graph, own_pooling_mask: bool) -> Tokens:
        graph.float_type = graph.state_type = DTYPES[precision]
        return portable.enter(graph, own_pooling_mask)

    return replace(
        PORTABLE,
        name="tensorrt",
        opset=OPSET,
        enter=enter,
        norm=norm,
        attention_bias=attention_bias,
        attention=attention,
        grouped_attention=grouped_attention,
        band=band,
        by_distance=by_distance,
        head_norm=head_norm,
        pools={mode: _wide_pool(pool) for mode, pool in PORTABLE.pools.items()},
    )


def wide(graph: Graph, states: Value) -> Value:
    """As float32."""
    return states if graph.state_type == np.float32 else graph.node("Cast", states, to=FLOAT, name="float")


def narrow(graph: Graph, states: Value) -> Value:
    """As token states are."""
    return states if graph.state_type == np.float32 else graph.node("Cast", states, to=FLOAT16, name="half")


def in_float32(graph: Graph, make: Callable[[], Value]) -> Value:
    """What `make` builds, with float32 weights and constants."""
    before, graph.float_type = graph.float_type, np.dtype(np.float32)
    try:
        return make()
    finally:
        graph.float_type = before


def norm(graph: Graph, states: Value, layer: Norm) -> Value:
    """Normalization in float32."""
    return narrow(graph, in_float32(graph, lambda: portable.norm(graph, wide(graph, states), layer)))


def head_norm(graph: Graph, states: Value, layer: Norm, heads: int) -> Value:
    """(B, S, N * D), each D by itself."""
    split = graph.node("Reshape", states, graph.constant([0, 0, heads, -1]), name="heads")
    return graph.node("Reshape", norm(graph, split, layer), graph.constant([0, 0, -1]), name="normed")


def attention_bias(graph: Graph, tokens: Tokens, by_distance: Weight | None) -> Value:
    """Float32, as the softmax is."""
    return in_float32(graph, lambda: portable.attention_bias(graph, tokens, by_distance))


def band(graph: Graph, tokens: Tokens, before: int | None, after: int | None) -> Value:
    """Float32, as the softmax is."""
    return in_float32(graph, lambda: distances.band(graph, tokens, before, after))


def by_distance(graph: Graph, states: Value, table: Weight, rows: Array, heads: int) -> Value:
    """Float32, as what they are added to; onnxruntime 1.32 crashes on its CPU over the half-precision ones."""
    return in_float32(graph, lambda: distances.by_distance(graph, wide(graph, states), table, rows, heads))


def attention(graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, bias: Value) -> Value:
    """softmax(Q K^T + bias) V with products in half precision and a softmax in float32."""
    return portable.attention(graph, tokens, query, key, value, heads, bias, softmax)


def grouped_attention(
    graph: Graph, tokens: Tokens, query: Value, key: Value, value: Value, heads: int, kv_heads: int, bias: Value
) -> Value:
    """The same with key and value (B, S, M * D)."""
    return portable.grouped_attention(graph, tokens, query, key, value, heads, kv_heads, bias, softmax)


def softmax(graph: Graph, scores: Value, bias: Value) -> Value:
    """Over the keys."""
    total = graph.node("Add", wide(graph, scores), bias, name="scores+bias")
    return narrow(graph, graph.node("Softmax", total, axis=-1, name="softmax"))


def _wide_pool(pool: Callable[[Graph, Tokens, Value], Value]) -> Callable[[Graph, Tokens, Value], Value]:
    def pooled(graph: Graph, tokens: Tokens, states: Value) -> Value:
        graph.float_type = np.dtype(np.float32)  # from here on everything is
        return pool(graph, tokens, wide(graph, states))

    return pooled
