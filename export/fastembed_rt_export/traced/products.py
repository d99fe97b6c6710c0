"""Nodes of a traced graph that multiply token states with weights, as the linear layers that they are.

- MatMul: x @ W.
- Gemm: x @ W + b, what GPT-2's layers and all layers on (tokens, channels) become.
- Conv over one token, (B, C, S): group k of G reads the k-th part of the channels alone.
- Einsum that sums over the last dimensions of the states and over those of the weights alike, as XLNet's do.

A product of anything else (a convolution over neighbours, weights of a matrix a head) stays the node it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..graph import grouped
from ..graph.graph import Value
from ..graph.ops import Ops
from ..graph.weight import Array, Linear, Weight

Tensors = Mapping[str, TensorProto]


@dataclass(frozen=True)
class Product:
    """A node that is one linear layer, or one a group."""

    output: Value
    layers: tuple[Linear, ...]  # one a group
    channels_first: bool = False  # (B, C, S) in and out
    summed: int = 1  # dimensions of the input that are its channels, the last ones
    shape: tuple[int, ...] = ()  # what the output's channels are cut into; none: nothing


def product(node: NodeProto, tensors: Tensors) -> Product | None:
    """The node as linear layers; None: it is something else."""
    weight = tensors.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type != TensorProto.FLOAT or node.input[0] in tensors:
        return None
    made = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "Einsum": _einsum}.get(node.op_type)
    return None if made is None else made(node, weight, tensors)


def multiplied(ops: Ops, states: Value, products: Sequence[Product]) -> list[Value]:
    """Several products of the same states, which are quantized once: their outputs in the same order."""
    graph = ops.token_graph
    found: dict[Value, Value] = {}
    for kind in dict.fromkeys((one.channels_first, one.summed) for one in products):
        alike = [one for one in products if (one.channels_first, one.summed) == kind]
        turned, summed = kind
        given = states
        if turned:
            given = graph.node("Transpose", states, perm=[0, 2, 1], name="tokens")
        if summed > 1:
            given = graph.node("Reshape", states, graph.constant([0, 0, -1]), name="channels")
        values = grouped.linears(ops, given, [one.layers for one in alike])
        for one, made in zip(alike, values, strict=True):
            value = made
            if turned:
                value = graph.node("Transpose", made, perm=[0, 2, 1], name="channels")
            if one.shape:
                value = graph.node("Reshape", made, graph.constant([0, 0, *one.shape]), name="heads")
            found[one.output] = value
    return [found[one.output] for one in products]


def loader(tensor: TensorProto, change: Callable[[Array], Array] = lambda array: array) -> Callable[[], Array]:
    """Reads a tensor of the trace, and changes it."""

    def read() -> Array:
        return change(numpy_helper.to_array(tensor))

    return read


def _matmul(node: NodeProto, weight: TensorProto, _: Tensors) -> Product | None:
    if len(weight.dims) != 2:
        return None
    return Product(node.output[0], (_linear(weight, tuple(weight.dims), np.transpose),))


def _gemm(node: NodeProto, weight: TensorProto, tensors: Tensors) -> Product | None:
    given: dict[str, Any] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | _attributes(node)
    rows, columns = weight.dims
    turned = bool(given.pop("transB"))
    bias, place = _bias(node, tensors)
    if given != {"alpha": 1.0, "beta": 1.0, "transA": 0} or not place:
        return None
    if turned:
        layer = _linear(weight, (columns, rows), lambda array: array, bias)
    else:
        layer = _linear(weight, (rows, columns), np.transpose, bias)
    return None if bias is not None and bias.shape != (layer.out_features,) else Product(node.output[0], (layer,))


def _conv(node: NodeProto, weight: TensorProto, tensors: Tensors) -> Product | None:
    given: dict[str, Any] = {"group": 1, "strides": [1], "pads": [0, 0]} | _attributes(node)
    bias, place = _bias(node, tensors)
    if len(weight.dims) != 3 or weight.dims[2] != 1 or given["strides"] != [1] or any(given["pads"]) or not place:
        return None
    outputs, inputs, groups = weight.dims[0], weight.dims[1], int(given["group"])
    if inputs == 1:  # a factor a channel
        return None
    whole = _linear(weight, (inputs, outputs), lambda array: array[:, :, 0], bias)
    step = outputs // groups
    parts = tuple(
        Linear(whole.weight.rows(k, k + step), bias.rows(k, k + step) if bias is not None else None)
        for k in range(0, outputs, step)
    )
    return Product(node.output[0], (whole,) if groups == 1 else parts, channels_first=True)


def _einsum(node: NodeProto, weight: TensorProto, _: Tensors) -> Product | None:
    left, _arrow, out = _attributes(node)["equation"].decode().replace(" ", "").partition("->")
    states, _comma, weights = left.partition(",")
    summed = "".join(letter for letter in weights if letter in states)
    kept = "".join(letter for letter in weights if letter not in states)
    lead = states.removesuffix(summed)
    sizes = dict(zip(weights, weight.dims, strict=True))
    if len(lead) != 2 or lead == states or out != lead + kept or weights not in (summed + kept, kept + summed):
        return None
    inputs, outputs = (math.prod(sizes[letter] for letter in letters) for letters in (summed, kept))
    turned = weights == kept + summed

    def change(array: Array) -> Array:
        return array.reshape(outputs, inputs) if turned else array.reshape(inputs, outputs).T

    shape = tuple(int(sizes[letter]) for letter in kept) if len(kept) > 1 else ()
    return Product(node.output[0], (_linear(weight, (inputs, outputs), change),), summed=len(summed), shape=shape)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _bias(node: NodeProto, tensors: Tensors) -> tuple[Weight | None, bool]:
    """The node's bias, and whether it is none or one number an output."""
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        return None, True
    tensor = tensors.get(name)
    if tensor is None or len(tensor.dims) != 1:
        return None, False
    # Under another name: a trace shares what is equal, and others may read it as a constant.
    return Weight(f"{name}.bias", tuple(tensor.dims), loader(tensor)), True


def _linear(
    tensor: TensorProto, widths: tuple[int, ...], change: Callable[[Array], Array], bias: Weight | None = None
) -> Linear:
    """From the channels of its input to those of its output; `change`: to (out, in), as checkpoints have it."""
    inputs, outputs = widths
    return Linear(Weight(tensor.name, (outputs, inputs), loader(tensor, change)), bias)
