"""Any architecture without a builder: traced by optimum, then given the same heads, contract and gate as the others.

Its products with weights become linear layers of the target, so that they are quantized as those of the others are.
optimum pins an older transformers, so it lives in an extra and an environment of its own (`fastembed-rt[optimum]`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..architectures import Architecture
from ..architectures.blocks import Config
from ..errors import MissingDependencyError, explained
from ..graph.graph import Graph, Value
from ..graph.ops import Ops
from ..graph.target import masked
from ..graph.weight import Weight
from ..tensors import Tensors
from . import padding, torch_model, tracing
from .products import Product, loader, multiplied, product
from .token_types import TokenTypes
from .tracing import STATES, Trace

MIN_OPSET = 18  # what optimum recommends
SMALL = 1024  # bytes up to which a tensor is a constant of the graph, such as a shape, and not a weight


def available() -> bool:
    """Whether optimum and its ONNX exporter are installed; imports neither."""
    return all(importlib.util.find_spec(name) for name in ("optimum", "torch")) and (
        importlib.util.find_spec("optimum.exporters") is not None
        and importlib.util.find_spec("optimum.exporters.onnx") is not None
    )


def architecture(directory: Path) -> Architecture:
    """A row like those of the built architectures, for the checkpoint in `directory`.

    Raises:
        MissingDependencyError: optimum is not installed.
        UnsupportedCheckpointError: a config that names no width or no positions.
    """
    if not available():
        raise MissingDependencyError(
            "optimum is not installed; pip install 'fastembed-rt[optimum]' in an environment of its own "
            "(it needs an older transformers)"
        )
    with explained(f"{directory / 'config.json'} is not that of an encoder"):
        facts = torch_model.facts(torch_model.config_of(directory))

    traces: dict[int, Trace] = {}  # traced once, however many graphs are built of it

    def traced(opset: int) -> Trace:
        if opset not in traces:
            traces[opset] = tracing.trace(directory, opset)
        return traces[opset]

    def encoder(ops: Ops, config: Config, tensors: Tensors) -> Value:
        found = traced(max(ops.graph.opset, MIN_OPSET))
        model = ModelProto()
        model.CopyFrom(found.model)  # its nodes are changed
        if not found.padding:
            ops = replace(ops, tokens=replace(ops.tokens, input_ids=padding.refuse_padding(ops.graph, ops.tokens)))
        return _append(ops, model, found.types)

    def padding_changes() -> str | None:
        change = traced(next(iter(traces), MIN_OPSET)).change
        return padding.NOTE.format(change=change) if change > padding.ROUNDING else None

    return Architecture(
        encoder,
        lambda _: facts.positions,
        prefix="",
        traced=True,
        settings={"hidden_size": facts.hidden_size},
        padding_changes=padding_changes,
        notes=facts.notes,
    )


def _append(ops: Ops, model: ModelProto, types: TokenTypes | None = None) -> Value:
    """Put the traced nodes into the graph under construction; `types`: of a text's tokens, where they ask for them."""
    graph = ops.graph
    graph.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    given = {entry.name: _feed(ops, entry.name, types or TokenTypes()) for entry in model.graph.input}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    # By what they read: all layers on one input at once, it is quantized once.
    products: dict[str, list[Product]] = {}
    rest = []
    for node in model.graph.node:
        if found := product(node, tensors):
            products.setdefault(node.input[0], []).append(found)
        else:
            rest.append(node)
    for name in sorted({name for node in rest for name in _reads(node)} & set(tensors)):
        _initializer(graph, tensors[name])
    layers = {one.output for together in products.values() for one in together}
    became: dict[str, Value] = given  # what inputs and the products' outputs are called here
    for node in model.graph.node:
        if node.output[0] in became:
            continue
        if node.output[0] not in layers:
            _rename(node, became)
            graph.nodes.append(node)
            continue
        together = products[node.input[0]]
        values = multiplied(ops, became.get(node.input[0], node.input[0]), together)
        became.update({one.output: value for one, value in zip(together, values, strict=True)})
    return became.get(STATES, STATES)


def _reads(node: NodeProto) -> set[str]:
    """Names that a node reads, and that the branches and loops in it read."""
    return {*node.input, *(name for inner in _inner(node) for name in _reads(inner))}


def _rename(node: NodeProto, became: Mapping[str, Value]) -> None:
    node.input[:] = [became.get(name, name) for name in node.input]
    for inner in _inner(node):
        _rename(inner, became)


def _inner(node: NodeProto) -> list[NodeProto]:
    return [inner for attribute in node.attribute for inner in attribute.g.node]


def _feed(ops: Ops, name: str, types: TokenTypes) -> Value:
    """What the traced graph's input `name` is among ours."""
    if name == "token_type_ids":
        return types.nodes(ops.graph, ops.tokens)
    return {"input_ids": ops.tokens.input_ids, "attention_mask": masked(ops.tokens).attention_mask}[name]


def _initializer(graph: Graph, tensor: TensorProto) -> None:
    array = numpy_helper.to_array(tensor)
    if array.nbytes <= SMALL:
        graph.constants[tensor.name] = numpy_helper.from_array(array, tensor.name)
    else:
        graph.weight(Weight(tensor.name, array.shape, loader(tensor), np.dtype(array.dtype)))
