"""INT8 on the cpu target: static scales, so that a vector never depends on what else is in the batch.

Weights int8, symmetric, per output channel; activations uint8 with one calibrated scale. Channels with rare huge values
are clipped like the others, and what the clip took is added back by a small float product, so they cost the rest no
resolution. Which groups of layers, which scale, which channels, which integers: a recipe, made by quantize/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from .cpu import CPU, with_linears
from .graph import FLOAT, Graph, Value
from .target import Target, Tokens
from .weight import Array, Linear, Weight

MICROSOFT = "com.microsoft"
LINEAR = "MatMulIntegerToFloat"
SMOOTHED = "/smoothed"
ROWS = 4096  # of a table that are made integers at a time


@dataclass(frozen=True)
class Rounded:
    """Integers of a layer's weight (K, N) int8, and the scale of each output (N,)."""

    values: Array
    scales: Array


@dataclass(frozen=True, kw_only=True)
class Tails:
    """A narrow range for operators that add back what lies beyond it, input by input.

    It may come with a smoothing of its own, and the integers that belong to it. Without integers those of the group
    are taken, with its smoothing.
    """

    scale: float
    zero_point: int
    bias_shift: tuple[Array, ...] = ()
    smooth: Array | None = None
    rounded: tuple[Rounded, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupRecipe:
    """How the layers that share one input are quantized."""

    scale: float
    zero_point: int  # of uint8
    smooth: Array | None = None  # (K,) the input is divided by it, the weights multiplied
    outliers: tuple[int, ...] = ()  # channels whose clipped part is added back in float
    bias_shift: tuple[Array, ...] = ()  # one (N,) a layer: the mean error over the calibration texts
    rounded: tuple[Rounded, ...] = ()  # one a layer, with the input's smoothing; none: the nearest integers
    tails: Tails | None = None  # instead of scale, zero point and outliers, where an operator can
    dither: bool = False  # where an operator can: rounding errors of tokens that are alike average out

    @property
    def with_tails(self) -> GroupRecipe:
        """The recipe as operators that know tails take it."""
        if self.tails is None:
            return self
        own, tails = bool(self.tails.rounded), self.tails
        return replace(
            self,
            scale=tails.scale,
            zero_point=tails.zero_point,
            outliers=(),
            bias_shift=tails.bias_shift,
            smooth=tails.smooth if own else self.smooth,
            rounded=tails.rounded if own else self.rounded,
        )

    @property
    def low(self) -> float:
        """Smallest input that is not clipped."""
        return (0 - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Largest input that is not clipped."""
        return (255 - self.zero_point) * self.scale


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Groups by `group_key`; a group that is not here stays float."""

    groups: Mapping[str, GroupRecipe]
    folds: Mapping[str, Array]  # output projections by weight name: smoothing folded into the value projection
    embedding: bool = True  # int8 word table, one scale a row


def weight_scales(weight: Array) -> Array:
    """(K, N) float -> (N,) scales, with which the largest weight of each output is 127."""
    scales: Array = np.maximum(np.abs(weight).max(axis=0) / 127.0, np.finfo(np.float32).tiny).astype(np.float32)
    return scales


def quantize_weight(weight: Array) -> tuple[Array, Array]:
    """(K, N) float -> (K, N) int8 and (N,) scales, symmetric."""
    scale = weight_scales(weight)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def target(recipe: Recipe, base: Target = CPU) -> Target:
    """The cpu target with quantized linear layers and word table; `base`: another one that is to be quantized."""

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        group = recipe.groups.get(group_key(layers))
        return base.linears(graph, states, layers) if group is None else _quantized(graph, states, layers, group)

    def balance(value: Linear, output: Linear) -> tuple[Linear, Linear]:
        smooth = recipe.folds.get(group_key([output]))
        return (value, output) if smooth is None else balanced(value, output, smooth)

    if base is not CPU:
        return replace(base, name=CPU.name, linears=linears)
    embed = embed_int8 if recipe.embedding else CPU.embed
    return replace(with_linears(CPU, linears), balance=balance, embed=embed)


def group_key(layers: Sequence[Linear]) -> str:
    """Name of a group of layers in a recipe: its first weight, and how many are with it.

    A layer may be in two groups: where only first tokens are wanted, the last layer's query stands alone, and ALBERT's
    last layer is its first one.
    """
    name = layers[0].weight.name.removesuffix(SMOOTHED)
    return name if len(layers) == 1 else f"{name}+{len(layers) - 1}"


def _quantized(graph: Graph, states: Value, layers: Sequence[Linear], group: GroupRecipe) -> list[Value]:
    smoothed, factor = states, smoothing(layers, group)
    if factor is not None:
        smoothed = graph.node("Mul", states, graph.weight(factor), name="smooth")
    scale = graph.constant(group.scale)
    zero = graph.constant(group.zero_point, np.uint8)
    # Of onnxruntime: its 1.23, the last for Macs with Intel processors, has no kernel for that of opset 23.
    quantized = graph.node("QuantizeLinear", smoothed, scale, zero, domain=MICROSOFT, name="quantize")
    excess = _excess(graph, smoothed, group) if group.outliers else None
    out = []
    for index in range(len(layers)):
        values, scales, bias = quantized_weights(layers, group, index)
        value = graph.node(
            LINEAR,
            quantized,
            graph.weight(values),
            scale,
            graph.weight(scales),
            zero,
            "",
            graph.weight(bias) if bias is not None else "",
            domain=MICROSOFT,
            name="linear",
        )
        if excess is not None:
            rows = outlier_rows(layers, group, index)
            extra = graph.node("MatMul", excess, graph.weight(rows), name="outliers")
            value = graph.node("Add", value, extra, name="linear+outliers")
        out.append(value)
    return out


def unsigned_where_shared(graph: Graph) -> None:
    """Layers that share a weight, as ALBERT's do, take it as uint8 around 128: the same integers, made once at load.

    Where products of signed weights overflow (overflow.py) onnxruntime makes each node's weight unsigned under the
    weight's name with a suffix, and stops at the second node with the same weight.
    """
    layers = [node for node in graph.nodes if node.op_type == LINEAR]
    shared = [name for name, count in Counter(node.input[1] for node in layers).items() if count > 1]
    behind = list(graph.nodes)
    graph.nodes.clear()
    unsigned = {}
    for name in shared:
        wide = graph.node("Cast", name, to=TensorProto.INT32, name=f"{name}.wide")
        moved = graph.node("Add", wide, graph.constant(128, np.int32), name=f"{name}.moved")
        unsigned[name] = graph.node("Cast", moved, to=TensorProto.UINT8, name=f"{name}.unsigned")
    graph.nodes += behind
    for node in layers:
        if node.input[1] in unsigned:
            node.input[1], node.input[5] = unsigned[node.input[1]], graph.constant(128, np.uint8)


def _excess(graph: Graph, states: Value, group: GroupRecipe) -> Value:
    """(..., K) -> (..., k): what the clip takes from the outlier channels."""
    channels = graph.node("Gather", states, graph.constant(list(group.outliers)), axis=-1, name="channels")
    inside = graph.node("Clip", channels, graph.constant(group.low), graph.constant(group.high), name="inside")
    return graph.node("Sub", channels, inside, name="excess")


def _smoothed(layer: Linear, group: GroupRecipe) -> Callable[[], Array]:
    def load() -> Array:
        weight = layer.weight.load().T.astype(np.float32)
        return weight if group.smooth is None else weight * group.smooth[:, None].astype(np.float32)

    return load


def _apart(layers: Sequence[Linear]) -> str:
    """Behind the names of a group's weights: a layer in two groups has two smoothings."""
    return "" if len(layers) == 1 else f"@{group_key(layers)}"


def smoothing(layers: Sequence[Linear], group: GroupRecipe, *, tails: bool = False) -> Weight | None:
    """What the input of a smoothed group is multiplied by, (K,); `tails`: for the narrow range."""
    smooth = (group.with_tails if tails else group).smooth
    if smooth is None:
        return None
    name = f"{group_key(layers)}.smooth{_own(group, tails)}"
    return Weight(name, smooth.shape, _held((1.0 / smooth).astype(np.float32)))


def _own(group: GroupRecipe, tails: bool) -> str:
    """Behind the names of what a group has once more, for operators that know tails."""
    return "@tails" if tails and group.tails is not None and group.tails.rounded else ""


def quantized_weights(
    layers: Sequence[Linear], group: GroupRecipe, index: int, *, tails: bool = False
) -> tuple[Weight, Weight, Weight | None]:
    """Values (K, N) int8, scales (N,) and bias (N,) of the group's layer `index`; `tails`: for the narrow range."""
    layer, apart, own = layers[index], _apart(layers), _own(group, tails)
    taken, what = (group.with_tails, "tails") if tails and group.tails is not None else (group, "shift")
    load, name, shape = _smoothed(layer, taken), layer.weight.name, (layer.in_features, layer.out_features)

    def integers() -> tuple[Array, Array]:
        if not taken.rounded:
            return quantize_weight(load())
        return taken.rounded[index].values, taken.rounded[index].scales

    values = Weight(f"{name}.int8{apart}{own}", shape, lambda: integers()[0], np.dtype(np.int8))
    scales = Weight(f"{name}.scale{apart}{own}", (layer.out_features,), lambda: integers()[1])
    bias, shifts = layer.bias, taken.bias_shift
    if shifts:
        shift = shifts[index].astype(np.float32)
        if bias is None:
            return values, scales, Weight(f"{name}.{what}{apart}", shift.shape, _held(shift))
        return values, scales, bias.map(f"+{what}{apart}", lambda array: array + shift)
    return values, scales, bias


def outlier_rows(layers: Sequence[Linear], group: GroupRecipe, index: int) -> Weight:
    """Float weights of the outlier channels of the group's layer `index`: (k, N)."""
    layer, apart = layers[index], _apart(layers)
    load, channels = _smoothed(layer, group), list(group.outliers)
    return Weight(f"{layer.weight.name}.outliers{apart}", (len(channels), layer.out_features), lambda: load()[channels])


def balanced(value: Linear, output: Linear, smooth: Array) -> tuple[Linear, Linear]:
    """Divide the value channels, multiply the output projection's columns: attention mixes tokens, not channels."""
    divided = value.weight.map("/smooth", lambda array: array / smooth[:, None].astype(np.float32))
    bias = value.bias.map("/smooth", lambda array: array / smooth.astype(np.float32)) if value.bias else None
    times = output.weight.map(SMOOTHED, lambda array: array * smooth.astype(np.float32))
    return Linear(divided, bias), Linear(times, output.bias)


def table_weights(table: Weight) -> tuple[Weight, Weight]:
    """Values (V, H) int8 of a table, and the scale of each row (V, 1)."""
    values = Weight(f"{table.name}.words.int8", table.shape, lambda: _rows_int8(table.load())[0], np.dtype(np.int8))
    return values, Weight(f"{table.name}.words.scale", (table.shape[0], 1), lambda: _rows_int8(table.load())[1])


def embed_int8(graph: Graph, tokens: Tokens, table: Weight) -> Value:
    """Rows of an int8 table, (V, H), times their own scale, (V, 1)."""
    values, scales = table_weights(table)
    rows = graph.node("Gather", graph.weight(values), tokens.input_ids, name="word")
    factors = graph.node("Gather", graph.weight(scales), tokens.input_ids, name="word.scale")
    return graph.node("Mul", graph.node("Cast", rows, to=FLOAT, name="word.float"), factors, name="word.scaled")


def _rows_int8(table: Array) -> tuple[Array, Array]:
    """Values (V, H) and scales (V, 1), some rows at a time: a word table is the largest weight there is."""
    values, scales = np.empty(table.shape, np.int8), np.empty((len(table), 1), np.float32)
    for begin in range(0, len(table), ROWS):
        part = slice(begin, begin + ROWS)
        found, scale = quantize_weight(table[part].T)
        values[part], scales[part] = found.T, scale[:, None]
    return values, scales


def _held(array: Array) -> Callable[[], Array]:
    return lambda: array
