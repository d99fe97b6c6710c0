"""The tensorrt target: standard operators on padded (B, S, H) token states, which TensorRT takes as one engine.

fp16: weights and states are float16; LayerNormalization, softmax, pooling and what follows are float32, said by casts
in the graph, because TensorRT itself would choose half precision for them too. The runtime gives the ranges of the
inputs' shapes as profiles.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from . import distances, portable
from .graph import FLOAT, FLOAT32, Graph, Value
from .layers import DistanceRows, Heads, ScoreBias
from .portable import PORTABLE
from .target import OfStates, Target, Tokens
from .weight import Norm, Weight

OPSET = 17  # LayerNormalization; every TensorRT 10 reads it
FLOAT16 = int(TensorProto.FLOAT16)
DTYPES: dict[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


def target(precision: str) -> Target:
    """The target in fp16 or fp32."""
    return replace(
        PORTABLE,
        name="tensorrt",
        opset=OPSET,
        state_type=DTYPES[precision],
        norm=norm,
        attention_bias=attention_bias,
        attention=attention,
        band=band,
        by_distance=by_distance,
        head_norm=head_norm,
        pools={mode: _wide_pool(pool) for mode, pool in PORTABLE.pools.items()},
        on_padded=_wide_pool,
    )


def wide(graph: Graph, states: Value) -> Value:
    """As float32."""
    return states if graph.float_type == FLOAT32 else graph.node("Cast", states, to=FLOAT, name="float")


def narrow(graph: Graph, states: Value) -> Value:
    """As token states are."""
    return states if graph.float_type == FLOAT32 else graph.node("Cast", states, to=FLOAT16, name="half")


def norm(graph: Graph, states: Value, layer: Norm) -> Value:
    """Normalization in float32."""
    return narrow(graph, portable.norm(graph.typed(FLOAT32), wide(graph, states), layer))


def head_norm(graph: Graph, states: Value, layer: Norm, *, heads: int) -> Value:
    """(B, S, N * D), each D by itself."""
    split = graph.node("Reshape", states, graph.constant([0, 0, heads, -1]), name="heads")
    return graph.node("Reshape", norm(graph, split, layer), graph.constant([0, 0, -1]), name="normed")


def attention_bias(graph: Graph, tokens: Tokens, by_distance: Weight | None, *, relative: bool) -> Value:
    """Float32, as the softmax is."""
    return portable.attention_bias(graph.typed(FLOAT32), tokens, by_distance, relative=relative)


def band(graph: Graph, tokens: Tokens, *, before: int | None, after: int | None) -> Value:
    """Float32, as the softmax is."""
    return distances.band(graph.typed(FLOAT32), tokens, before=before, after=after)


def by_distance(graph: Graph, states: Value, *, rows: DistanceRows, heads: int) -> Value:
    """Float32, as what they are added to; onnxruntime 1.32 crashes on its CPU over the half-precision ones."""
    return distances.by_distance(graph.typed(FLOAT32), wide(graph, states), rows=rows, heads=heads)


def attention(
    graph: Graph, tokens: Tokens, *, query: Value, key: Value, value: Value, heads: Heads, bias: ScoreBias
) -> Value:
    """softmax(capped(Q K^T) + bias) V with products in half precision and a softmax in float32."""
    return portable.attention(graph, tokens, query=query, key=key, value=value, heads=heads, bias=bias, shares=softmax)


def softmax(graph: Graph, scores: Value, bias: ScoreBias) -> Value:
    """Over the keys."""
    return narrow(graph, portable.softmax(graph.typed(FLOAT32), wide(graph, scores), bias))


def _wide_pool(pool: OfStates) -> OfStates:
    return lambda graph, tokens, states: pool(graph.typed(FLOAT32), tokens, wide(graph, states))
