"""The portable target: standard ONNX operators on padded (B, S, H) token states, for any runtime.

From opset 17 (LayerNormalization); newer opsets use the operator that replaced a pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import distances
from .distances import MASKED, angles, band, by_distance, rotate
from .graph import BOOL, FLOAT, INT32, INT64, Graph, Value
from .layers import Heads, ScoreBias
from .target import Activation, MaskedTokens, Target, Tokens, masked
from .weight import Linear, Norm, Weight

EOS = "eos"  # the pooling by `Tokens.ends`
QUICK = 1.702  # quick_gelu's factor
MIN_OPSET, DEFAULT_OPSET, MAX_OPSET = 17, 17, 24


def enter(graph: Graph, own_pooling_mask: bool) -> MaskedTokens:
    """input_ids and attention_mask (B, S); pooling_mask only where prompts are left out of the pooling."""
    shape = ("batch", "sequence")
    ids = graph.input("input_ids", INT64, shape)
    mask = graph.input("attention_mask", INT64, shape)
    pooling = graph.input("pooling_mask", INT64, shape) if own_pooling_mask else mask
    return MaskedTokens(input_ids=ids, attention_mask=mask, pooling_mask=pooling)


def embed(graph: Graph, tokens: Tokens, table: Weight) -> Value:
    """(V, H) -> (B, S, H)."""
    return graph.node("Gather", graph.weight(table), tokens.input_ids, name="word")


def add_positions(graph: Graph, tokens: Tokens, states: Value, table: Weight) -> Value:
    """The first S rows of the table are the same for every text."""
    length = graph.node("Shape", tokens.input_ids, start=1, end=2, name="length")
    rows = graph.node("Slice", graph.weight(table), graph.constant([0]), length, name="position")
    return graph.node("Add", states, rows, name="word+position")


def add_positions_after_pad(graph: Graph, tokens: Tokens, states: Value, *, table: Weight, pad: int) -> Value:
    """Counted over the ids, not the mask: a pad token written in a text is skipped, as in training."""
    is_pad = graph.node("Equal", tokens.input_ids, graph.constant(pad), name="is_pad")
    is_token = graph.node("Cast", graph.node("Not", is_pad, name="is_token"), to=INT64, name="is_token")
    count = graph.node("CumSum", is_token, graph.constant(1), name="count")
    position = graph.node("Add", graph.node("Mul", count, is_token, name="count"), graph.constant(pad), name="position")
    rows = graph.node("Gather", graph.weight(table), position, name="position")
    return graph.node("Add", states, rows, name="word+position")


def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
    """MatMul and Add each."""
    out = []
    for layer in layers:
        value = graph.node("MatMul", states, graph.weight(layer.weight.transposed), name="linear")
        if layer.bias is not None:
            value = graph.node("Add", value, graph.weight(layer.bias), name="bias")
        out.append(value)
    return out


def norm(graph: Graph, states: Value, layer: Norm) -> Value:
    """LayerNormalization over the last axis."""
    if layer.rms:
        return rms_norm(graph, states, layer)
    parameters = [graph.weight(weight) for weight in (layer.weight, layer.bias) if weight is not None]
    return graph.node("LayerNormalization", states, *parameters, axis=-1, epsilon=layer.epsilon, name="norm")


def rms_norm(graph: Graph, states: Value, layer: Norm) -> Value:
    """x / sqrt(mean(x^2) + epsilon) * weight; an operator since opset 23."""
    weight = graph.weight(layer.weight)
    if graph.opset >= 23:
        return graph.node("RMSNormalization", states, weight, axis=-1, epsilon=layer.epsilon, name="norm")
    square = graph.node("Mul", states, states, name="norm/square")
    if graph.opset >= 18:
        mean = graph.node("ReduceMean", square, graph.constant([-1]), keepdims=1, name="norm/mean")
    else:
        mean = graph.node("ReduceMean", square, axes=[-1], keepdims=1, name="norm/mean")
    root = graph.node("Sqrt", graph.node("Add", mean, graph.constant(layer.epsilon), name="norm/sum"), name="norm/root")
    return graph.node("Mul", graph.node("Div", states, root, name="norm/unit"), weight, name="norm")


def head_norm(graph: Graph, states: Value, layer: Norm, *, heads: int) -> Value:
    """(B, S, N * D), each D by itself."""
    split = graph.node("Reshape", states, graph.constant([0, 0, heads, -1]), name="heads")
    return graph.node("Reshape", norm(graph, split, layer), graph.constant([0, 0, -1]), name="normed")


def shift(graph: Graph, tokens: Tokens, states: Value, *, by: int) -> Value:
    """(B, S, H): zeros come in at one end, and from behind a text, where padding may hold anything."""
    if by < 0:
        there = graph.node("Cast", masked(tokens).attention_mask, to=FLOAT, name="there")
        there = graph.node("Unsqueeze", there, graph.constant([2]), name="there")
        states = graph.node("Mul", states, graph.node("CastLike", there, states, name="there"), name="known")
    return moved(graph, states, by, axis=1, rank=3)


def moved(graph: Graph, states: Value, by: int, *, axis: int, rank: int) -> Value:
    """`by` places further along the axis, back where below 0, with zeros behind them."""
    ends = [0] * (2 * rank)
    ends[axis if by > 0 else rank + axis] = abs(by)
    padded = graph.node("Pad", states, graph.constant(ends), name="padded")
    cut = (0, -by) if by > 0 else (-by, np.iinfo(np.int64).max)
    bounds = [graph.constant([place]) for place in (*cut, axis)]
    return graph.node("Slice", padded, *bounds, name="moved")


def gelu(graph: Graph, states: Value) -> Value:
    """x * (1 + erf(x / sqrt 2)) / 2; an operator since opset 20."""
    if graph.opset >= 20:
        return graph.node("Gelu", states, approximate="none", name="gelu")
    erf = graph.node("Erf", graph.node("Div", states, graph.constant(np.sqrt(2.0)), name="gelu/div"), name="gelu/erf")
    shifted = graph.node("Add", erf, graph.constant(1.0), name="gelu/add")
    return graph.node("Mul", graph.node("Mul", states, shifted, name="gelu/mul"), graph.constant(0.5), name="gelu")


def gelu_tanh(graph: Graph, states: Value) -> Value:
    """The tanh approximation: gelu_new, gelu_pytorch_tanh, gelu_fast."""
    if graph.opset >= 20:
        return graph.node("Gelu", states, approximate="tanh", name="gelu")
    cube = graph.node("Mul", states, graph.node("Mul", states, states, name="gelu/square"), name="gelu/cube")
    inner = graph.node(
        "Add",
        states,
        graph.node("Mul", cube, graph.constant(0.044715), name="gelu/scaled"),
        name="gelu/inner",
    )
    tanh = graph.node(
        "Tanh",
        graph.node("Mul", inner, graph.constant(np.sqrt(2.0 / np.pi)), name="gelu/scaled"),
        name="gelu/tanh",
    )
    shifted = graph.node("Add", tanh, graph.constant(1.0), name="gelu/add")
    return graph.node("Mul", graph.node("Mul", states, shifted, name="gelu/mul"), graph.constant(0.5), name="gelu")


def silu(graph: Graph, states: Value) -> Value:
    """x * sigmoid(x)."""
    return graph.node("Mul", states, graph.node("Sigmoid", states, name="sigmoid"), name="silu")


def quick_gelu(graph: Graph, states: Value) -> Value:
    """x * sigmoid(1.702 x), whose factor is in the layers around it in a feed-forward."""
    scaled = graph.node("Mul", states, graph.constant(QUICK), name="quick_gelu/scaled")
    return graph.node("Mul", states, graph.node("Sigmoid", scaled, name="sigmoid"), name="quick_gelu")


def unary(op: str) -> Activation:
    """An activation that is one operator."""
    return lambda graph, states: graph.node(op, states, name=op.lower())


def attention_bias(graph: Graph, tokens: Tokens, by_distance: Weight | None, *, relative: bool) -> Value:
    """Additive (B, 1, 1, S), or (B, N, S, S) with a bias by distance."""
    absent = padding_bias(graph, tokens, graph.constant(MASKED))
    return absent if by_distance is None else with_distances(graph, absent, tokens.input_ids, by_distance)


def padding_bias(graph: Graph, tokens: Tokens, masked_score: Value) -> Value:
    """Additive (B, 1, 1, S): `masked_score` (1,) where there is no token."""
    mask = graph.node("Cast", masked(tokens).attention_mask, to=FLOAT, name="mask")
    absent = graph.node("Sub", graph.constant(1.0), mask, name="absent")
    additive = graph.node("Mul", absent, masked_score, name="additive")
    return graph.node("Unsqueeze", additive, graph.constant([1, 2]), name="additive")


def with_distances(graph: Graph, additive: Value, places: Value, table: Weight) -> Value:
    """(B, N, S, S): `additive`, and a bias by distance (2P - 1, N) over the columns of `places` (B, S)."""
    distance = distances.between(graph, distances.positions(graph, places))
    return graph.node("Add", distances.bias(graph, distance, table), additive, name="bias")


def capped(graph: Graph, scores: Value, cap: float | None) -> Value:
    """cap * tanh(score / cap) where there is a cap (Gemma Team 2024, arXiv:2408.00118)."""
    if cap is None:
        return scores
    small = graph.node("Tanh", graph.node("Div", scores, graph.constant(cap), name="scores/cap"), name="tanh")
    return graph.node("Mul", small, graph.constant(cap), name="capped")


def softmax(graph: Graph, scores: Value, bias: ScoreBias) -> Value:
    """Shares of the keys: scores (B, N, S, S) and a bias."""
    assert bias.tensor is not None
    total = graph.node("Add", capped(graph, scores, bias.cap), bias.tensor, name="scores+bias")
    return graph.node("Softmax", total, axis=-1, name="softmax")


def attention(
    graph: Graph,
    tokens: Tokens,
    *,
    query: Value,
    key: Value,
    value: Value,
    heads: Heads,
    bias: ScoreBias,
    shares: Callable[[Graph, Value, ScoreBias], Value] = softmax,
) -> Value:
    """softmax(capped(Q K^T) + bias) V: query (B, S, N * D), key and value (B, S, K * D).

    The scale is in the query weights.

    `shares`: of the keys, from scores and what is added to them.
    """
    if heads.grouped:
        key, value = (_repeated(graph, states, heads) for states in (key, value))
    shape = graph.constant([0, 0, heads.queries, -1])
    q = graph.node("Reshape", query, shape, name="query")
    q = graph.node("Transpose", q, perm=[0, 2, 1, 3], name="query")
    k = graph.node("Reshape", key, shape, name="key")
    k = graph.node("Transpose", k, perm=[0, 2, 3, 1], name="key")
    v = graph.node("Reshape", value, shape, name="value")
    v = graph.node("Transpose", v, perm=[0, 2, 1, 3], name="value")
    scores = graph.node("MatMul", q, k, name="scores")
    mixed = graph.node("MatMul", shares(graph, scores, bias), v, name="mixed")
    mixed = graph.node("Transpose", mixed, perm=[0, 2, 1, 3], name="mixed")
    return graph.node("Reshape", mixed, graph.constant([0, 0, -1]), name="mixed")


def _repeated(graph: Graph, states: Value, heads: Heads) -> Value:
    """Each head of (B, S, K * D) written once for every query head it serves: (B, S, N * D)."""
    split = graph.node("Reshape", states, graph.constant([0, 0, heads.keys, 1, -1]), name="heads")
    wide = graph.node("Expand", split, graph.constant([1, 1, 1, heads.served, 1]), name="repeated")
    return graph.node("Reshape", wide, graph.constant([0, 0, -1]), name="repeated")


def _float_mask(graph: Graph, tokens: Tokens) -> Value:
    return graph.node("Cast", masked(tokens).pooling_mask, to=FLOAT, name="mask")


def _int32_mask(graph: Graph, tokens: Tokens) -> Value:
    """onnxruntime's ArgMax has no int64 kernel (onnxruntime issue 10068)."""
    return graph.node("Cast", masked(tokens).pooling_mask, to=INT32, name="mask")


def _weighted_sum(graph: Graph, states: Value, weights: Value) -> Value:
    """(B, S, H) and (B, S) -> (B, H), as one product."""
    row = graph.node("Unsqueeze", weights, graph.constant([1]), name="weights")
    return graph.node("Squeeze", graph.node("MatMul", row, states, name="sum"), graph.constant([1]), name="sum")


def _sum(graph: Graph, value: Value) -> Value:
    total = graph.node("ReduceSum", value, graph.constant([1]), keepdims=1, name="total")
    return graph.node("Max", total, graph.constant(1e-9), name="total")  # sentence-transformers' clamp


def pool_mean(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Average of the token states."""
    mask = _float_mask(graph, tokens)
    return _weighted_sum(graph, states, graph.node("Div", mask, _sum(graph, mask), name="weights"))


def pool_mean_sqrt_len(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Sum of the token states over the square root of their number."""
    mask = _float_mask(graph, tokens)
    root = graph.node("Sqrt", _sum(graph, mask), name="root")
    return _weighted_sum(graph, states, graph.node("Div", mask, root, name="weights"))


def pool_weighted_mean(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Average with weights 1, 2, 3, ... from the first token of the text on, prompt included."""
    place = graph.node("CumSum", masked(tokens).attention_mask, graph.constant(1), name="place")
    weights = graph.node("Cast", place, to=FLOAT, name="place")
    weights = graph.node("Mul", weights, _float_mask(graph, tokens), name="weights")
    return _weighted_sum(graph, states, graph.node("Div", weights, _sum(graph, weights), name="weights"))


def pool_sum(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Sum of the token states."""
    return _weighted_sum(graph, states, _float_mask(graph, tokens))


def pool_max(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """Largest value of each channel over the tokens."""
    mask = graph.node("Cast", masked(tokens).pooling_mask, to=BOOL, name="mask")
    mask = graph.node("Unsqueeze", mask, graph.constant([2]), name="mask")
    low = graph.constant(float(np.finfo(np.float32).min))
    return reduce_max(graph, graph.node("Where", mask, states, low, name="masked"))


def reduce_max(graph: Graph, masked: Value) -> Value:
    """(B, S, H) -> (B, H)."""
    if graph.opset >= 18:
        return graph.node("ReduceMax", masked, graph.constant([1]), keepdims=0, name="max")
    return graph.node("ReduceMax", masked, axes=[1], keepdims=0, name="max")


def _take(graph: Graph, states: Value, index: Value) -> Value:
    """(B, S, H) at (B, 1) -> (B, H)."""
    return graph.node("GatherND", states, index, batch_dims=1, name="take")


def pool_cls(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the first token that counts."""
    first = graph.node("ArgMax", _int32_mask(graph, tokens), axis=1, keepdims=1, name="first")
    return _take(graph, states, first)


def pool_last(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the last token that counts; zeros where none does, as where a prompt that is left out fills the text."""
    mask = _int32_mask(graph, tokens)
    last = graph.node("ArgMax", mask, axis=1, keepdims=1, select_last_index=1, name="last")
    taken = _take(graph, states, last)
    given = masked(tokens)
    return taken if given.pooling_mask == given.attention_mask else where_any(graph, taken, given.pooling_mask)


def pool_end(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the token at the end of the text, which may have others behind it."""
    assert tokens.ends is not None
    ends = graph.node("Mul", tokens.ends, _float_mask(graph, tokens), name="ends")
    return _take(graph, states, graph.node("ArgMax", ends, axis=1, keepdims=1, name="end"))


def where_any(graph: Graph, vectors: Value, counts: Value) -> Value:
    """Vectors (B, H), zeros for texts none of whose tokens count in the mask (B, S)."""
    mask = graph.node("Cast", counts, to=FLOAT, name="mask")
    if graph.opset >= 18:
        found = graph.node("ReduceMax", mask, graph.constant([1]), keepdims=1, name="any")
    else:
        found = graph.node("ReduceMax", mask, axes=[1], keepdims=1, name="any")
    return graph.node("Mul", vectors, found, name="any")


PORTABLE = Target(
    name="portable",
    opset=None,
    enter=enter,
    embed=embed,
    add_positions=add_positions,
    add_positions_after_pad=add_positions_after_pad,
    linears=linears,
    balance=lambda value, output: (value, output),
    norm=norm,
    activations={
        "gelu": gelu,
        "gelu_python": gelu,
        "gelu_new": gelu_tanh,
        "gelu_fast": gelu_tanh,
        "gelu_pytorch_tanh": gelu_tanh,
        "gelu_accurate": gelu_tanh,
        "relu": unary("Relu"),
        "tanh": unary("Tanh"),
        "sigmoid": unary("Sigmoid"),
        "silu": silu,
        "swish": silu,
        "quick_gelu": quick_gelu,
        "linear": lambda _, states: states,
    },
    attention_bias=attention_bias,
    project=lambda graph, _, states, layers: linears(graph, states, layers),
    attention=attention,
    band=band,
    angles=angles,
    by_distance=by_distance,
    rotate=rotate,
    head_norm=head_norm,
    shift=shift,
    spread=lambda _, __, states: states,
    collect=lambda graph, _, mixed, layer: linears(graph, mixed, [layer])[0],
    first=None,
    attend_first=None,
    last=None,
    pools={
        "mean": pool_mean,
        "mean_sqrt_len_tokens": pool_mean_sqrt_len,
        "weightedmean": pool_weighted_mean,
        "max": pool_max,
        "sum": pool_sum,
        "cls": pool_cls,
        "lasttoken": pool_last,
        EOS: pool_end,
    },
    on_padded=lambda function: function,
)
TARGETS = {"portable": PORTABLE}
