"""FP8 for target cuda-native: products of e4m3 numbers, everything between them in 16 and 32 bits.

A weight has e4m3 numbers with one scale, and so has the input of a group of layers, both static: a vector does not
depend on its batch. e4m3 keeps four bits of every number whatever its size, so that a scale a channel changes nothing
(docs/gpu.md has figures); what helps is to take off the mean of a channel first, which is for nothing where a
normalization writes the input, and to round weights by what their inputs are (quantize/fp8.py). The mean comes back
through the bias.

What reads the numbers is made ready by what makes them: a normalization writes its rows twice, and the product before
an activation writes e4m3 alone. The output projection of attention stays in 16 bits: a pass that rounds what attention
gives costs about what half the bytes of so small a product save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, helper

from fastembed_rt.native.cuda import DOMAIN

from . import cuda_native
from .cpu import CPU, with_linears
from .graph import Graph, Value
from .int8 import group_key
from .target import Target, Tokens
from .weight import Array, Floats, Linear, Weight

E4M3: np.dtype[Any] = np.dtype(ml_dtypes.float8_e4m3fn)
FLOAT16: np.dtype[Any] = np.dtype(np.float16)
LARGEST = 448.0
MULTIPLE = 16  # inputs and outputs of a product, for cuBLASLt
# What a normalization is called that writes its rows a second time, in e4m3.
TWICE = {"AddNormFloat16": "Fp8AddNorm", "EmbedNormFloat16": "Fp8EmbedNorm"}
LINEAR, LINEAR_TO_FP8 = "Fp8Linear", "Fp8LinearFp8"


@dataclass(frozen=True)
class Rounded:
    """A layer's weight, (N, K) e4m3, the scale of all of it, and what its bias moves by, (N,)."""

    values: Array
    scale: float
    bias_shift: Floats


@dataclass(frozen=True, kw_only=True)
class GroupRecipe:
    """How the layers that share one input are quantized: as e4m3 of (input - center) / scale."""

    scale: float
    center: Floats | None  # (K,); None: the product before an activation writes the input, which takes nothing off
    layers: tuple[Rounded, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Groups by `group_key`; a group that is not here stays in 16 bits."""

    groups: Mapping[str, GroupRecipe]


@dataclass
class Groups:
    """The groups of a graph that may be quantized."""

    found: set[str] = field(default_factory=set)
    activated: set[str] = field(default_factory=set)  # of them, those that read what an activation gives
    attended: set[str] = field(default_factory=set)  # and queries, keys and values


def nearest(values: Array) -> None:
    """The nearest numbers of e4m3 in place, ties to even; what is beyond the largest becomes the largest."""
    np.clip(values, -LARGEST, LARGEST, out=values)
    values[...] = values.astype(E4M3)


def simulated(recipe: Recipe) -> Target:
    """The cpu target with what the card computes: rounded inputs and weights, in floats. All tokens are computed."""
    base = replace(CPU, first=None, attend_first=None, last=None, dispatches=False)

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        group = recipe.groups.get(group_key(layers))
        if group is None:
            return base.linears(graph, states, layers)
        zero = "fp8.zero"
        graph.constants.setdefault(zero, helper.make_tensor(zero, TensorProto.FLOAT8E4M3FN, [], [0.0]))
        scale = graph.constant(group.scale)
        if group.center is not None:
            states = graph.node("Sub", states, graph.weight(_center(layers, group.center)), name="centered")
        narrow = graph.node("QuantizeLinear", states, scale, zero, name="narrow")
        states = graph.node("DequantizeLinear", narrow, scale, name="wide")
        return base.linears(
            graph, states, [_as_floats(layer, own) for layer, own in zip(layers, group.layers, strict=True)]
        )

    return with_linears(base, linears)


def probe(groups: Groups) -> Target:
    """The target in 16 bits, noting which groups of layers may be quantized."""
    base = cuda_native.target("fp16")
    activated_values: set[Value] = set()

    def note(graph: Graph, states: Value, layers: Sequence[Linear]) -> None:
        if graph.float_type == FLOAT16 and all(_fits(layer) for layer in layers):
            groups.found.add(group_key(layers))
            if states in activated_values:
                groups.activated.add(group_key(layers))

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        note(graph, states, layers)
        return base.linears(graph, states, layers)

    def activated(graph: Graph, states: Value, layer: Linear, *, activation: str) -> Value | None:
        made = cuda_native.activated(graph, states, layer, activation=activation)
        if made is not None:
            note(graph, states, [layer])
            activated_values.add(made)
        return made

    def project(graph: Graph, _: Tokens, states: Value, layers: Sequence[Linear]) -> list[Value]:
        groups.attended.add(group_key(layers))
        return linears(graph, states, layers)

    return replace(base, linears=linears, activated=activated, project=project)


def target(recipe: Recipe) -> Target:
    """Target cuda-native with a recipe's products in FP8."""
    base = cuda_native.target("fp16")

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        group = recipe.groups.get(group_key(layers)) if graph.float_type == FLOAT16 else None
        return base.linears(graph, states, layers) if group is None else _products(graph, states, layers, group, "")

    def activated(graph: Graph, states: Value, layer: Linear, *, activation: str) -> Value | None:
        group, known = recipe.groups.get(group_key([layer])), cuda_native.ACTIVATIONS.get(activation)
        if group is None or known is None or graph.float_type != FLOAT16:
            return cuda_native.activated(graph, states, layer, activation=activation)
        return _products(graph, states, [layer], group, known)[0]

    def project(graph: Graph, _: Tokens, states: Value, layers: Sequence[Linear]) -> list[Value]:
        return linears(graph, states, layers)

    return replace(base, linears=linears, activated=activated, project=project)


def _fits(layer: Linear) -> bool:
    return layer.in_features % MULTIPLE == 0 and layer.out_features % MULTIPLE == 0


def _products(
    graph: Graph, states: Value, layers: Sequence[Linear], group: GroupRecipe, activation: str
) -> list[Value]:
    narrow, found = _narrowed(graph, states, layers, group), []
    for layer, own in zip(layers, group.layers, strict=True):
        attributes: dict[str, Any] = {"activation": activation} if activation else {}
        inputs = [narrow, graph.weight(_numbers(layer, layers, own)), graph.weight(_bias(layer, layers, own))]
        found.append(
            graph.node(
                *(LINEAR, *inputs),
                domain=DOMAIN,
                name="linear",
                in_features=layer.in_features,
                out_features=layer.out_features,
                bias=1,
                scale=float(group.scale * own.scale),
                **attributes,
            )
        )
    return found


def _narrowed(graph: Graph, states: Value, layers: Sequence[Linear], group: GroupRecipe) -> Value:
    """e4m3 of the states, (T, K): written by the node that makes them, where it can."""
    made_by = next((node for node in reversed(graph.nodes) if states in node.output), None)
    width, key = layers[0].in_features, group_key(layers)
    if made_by is not None and made_by.op_type == LINEAR and group.center is None:
        made_by.op_type = LINEAR_TO_FP8
        made_by.input.append(graph.constant(np.array([1.0 / group.scale]), np.float32))
        return states
    center = np.zeros(width, np.float32) if group.center is None else group.center
    if made_by is not None and made_by.op_type in TWICE:
        gamma, beta = _parameters(graph, made_by)
        made_by.op_type = TWICE[made_by.op_type]
        weights = gamma.map(f".{key}.fp8", lambda array: array.astype(np.float32) / group.scale)
        made_by.input.append(_held(graph, weights))
        moved = Weight(f"{key}.fp8.shifts", (width,), lambda: _shifted(beta, center) / np.float32(group.scale))
        made_by.input.append(_held(graph, moved))
        made_by.output.append(f"{states}.fp8")
        return f"{states}.fp8"
    factors = Weight(f"{key}.fp8.weights", (width,), lambda: np.full(width, 1.0 / group.scale, np.float32))
    shifts = Weight(f"{key}.fp8.shifts", (width,), lambda: -center / np.float32(group.scale))
    inputs = [states, _held(graph, factors), _held(graph, shifts)]
    return graph.node("Fp8Quantize", *inputs, domain=DOMAIN, name="narrow", width=width)


def _parameters(graph: Graph, node: NodeProto) -> tuple[Weight, Weight | None]:
    """Weight and bias of a normalization: its last inputs, but for the bias of a sum."""
    flags = {entry.name: entry.i for entry in node.attribute if entry.name in ("beta", "bias")}
    names = list(node.input)[: len(node.input) - flags.get("bias", 0)]
    if not flags["beta"]:
        return graph.weights[names[-1]], None
    return graph.weights[names[-2]], graph.weights[names[-1]]


def _shifted(beta: Weight | None, center: Floats) -> Floats:
    moved: Floats = -center if beta is None else beta.load().astype(np.float32) - center
    return moved


def _held(graph: Graph, weight: Weight) -> Value:
    """In float16, whatever it was made of."""
    return graph.weight(replace(weight, dtype=np.dtype(np.float32)).cast(FLOAT16))


def _apart(layers: Sequence[Linear]) -> str:
    return "" if len(layers) == 1 else f"@{group_key(layers)}"


def _numbers(layer: Linear, layers: Sequence[Linear], own: Rounded) -> Weight:
    return Weight(f"{layer.weight.name}.e4m3{_apart(layers)}", own.values.shape, lambda: own.values, E4M3)


def _bias(layer: Linear, layers: Sequence[Linear], own: Rounded) -> Weight:
    name, shape = f"{layer.weight.name}.bias.e4m3{_apart(layers)}", own.bias_shift.shape
    return Weight(name, shape, lambda: _moved(layer, own))


def _moved(layer: Linear, own: Rounded) -> Floats:
    moved: Floats = own.bias_shift if layer.bias is None else layer.bias.load() + own.bias_shift
    return moved.astype(np.float32)


def _as_floats(layer: Linear, own: Rounded) -> Linear:
    """The layer that a rounded one is, in floats."""
    name = f"{layer.weight.name}.e4m3"
    weight = Weight(name, own.values.shape, lambda: own.values.astype(np.float32) * np.float32(own.scale))
    return Linear(weight, Weight(f"{name}.bias", own.bias_shift.shape, lambda: _moved(layer, own)))


def _center(layers: Sequence[Linear], center: Floats) -> Weight:
    return Weight(f"{group_key(layers)}.center", center.shape, lambda: center)
