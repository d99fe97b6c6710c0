"""Any architecture without a builder: traced by optimum, then given the same heads, contract and gate as the others.

Its products with weights become linear layers of the target, so that they are quantized as those of the others are.
optimum pins an older transformers, so it lives in an extra and an environment of its own (`fastembed-rt[optimum]`).
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, load, numpy_helper

from .architectures import Architecture
from .architectures.blocks import Config, setting
from .errors import MissingDependencyError, UnsupportedCheckpointError
from .graph.graph import Graph, Value
from .graph.ops import Ops
from .graph.weight import Array, Linear, Weight
from .tensors import Tensors

STATES = "last_hidden_state"
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
    """
    if not available():
        raise MissingDependencyError(
            "optimum is not installed; pip install 'fastembed-rt[optimum]' in an environment of its own "
            "(it needs an older transformers)"
        )

    # Traced once, however many graphs are built of it.
    traced = cache(lambda opset: _trace(directory, opset))

    def encoder(ops: Ops, config: Config, tensors: Tensors) -> Value:
        model = ModelProto()
        model.CopyFrom(traced(max(ops.graph.opset, MIN_OPSET)))  # its nodes are changed
        return _append(ops, model)

    return Architecture(encoder, _positions, prefix="", traced=True)


def _positions(config: Config) -> int:
    return setting(config, "max_position_embeddings", int)


def _trace(directory: Path, opset: int) -> ModelProto:
    """The checkpoint as optimum's exporter writes it: token ids and masks -> last_hidden_state."""
    from optimum.exporters.onnx import main_export

    with tempfile.TemporaryDirectory() as work:
        main_export(
            str(directory),
            work,
            task="feature-extraction",
            library_name="transformers",  # the encoder alone: the heads are ours
            opset=opset,
            do_validation=False,
            no_post_process=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        model = load(str(Path(work) / "model.onnx"))
    names = {output.name for output in model.graph.output}
    if STATES not in names:
        raise UnsupportedCheckpointError(f"optimum's graph has outputs {sorted(names)}, expected {STATES}")
    return model


def _append(ops: Ops, model: ModelProto) -> Value:
    """Put the traced nodes into the graph under construction."""
    graph = ops.graph
    graph.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for entry in model.graph.input:
        _feed(graph, ops, entry.name)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    products: dict[
        str, list[NodeProto]
    ] = {}  # by what they read: all layers on one input at once, it is quantized once
    rest = []
    for node in model.graph.node:
        if _is_linear(node, tensors):
            products.setdefault(node.input[0], []).append(node)
        else:
            rest.append(node)
    for name in sorted({name for node in rest for name in node.input} & set(tensors)):
        _initializer(graph, tensors[name])
    became: dict[str, Value] = {}  # what the products' outputs are called here
    for node in model.graph.node:
        if node.output[0] in became:
            continue
        if not _is_linear(node, tensors):
            node.input[:] = [became.get(name, name) for name in node.input]
            graph.nodes.append(node)
            continue
        together = products[node.input[0]]
        layers = [_linear(tensors[other.input[1]]) for other in together]
        values = ops.target.linears(graph, became.get(node.input[0], node.input[0]), layers)
        became.update({other.output[0]: value for other, value in zip(together, values, strict=True)})
    return became.get(STATES, STATES)


def _is_linear(node: NodeProto, tensors: dict[str, TensorProto]) -> bool:
    """Whether a node multiplies states with a matrix of weights."""
    weight = tensors.get(node.input[1]) if node.op_type == "MatMul" else None
    return weight is not None and len(weight.dims) == 2 and weight.data_type == TensorProto.FLOAT


def _linear(tensor: TensorProto) -> Linear:
    """(in, out) as MatMul takes it -> (out, in) as checkpoints have it."""
    rows, columns = tensor.dims
    return Linear(Weight(tensor.name, (columns, rows), _loader(tensor, transposed=True)))


def _loader(tensor: TensorProto, *, transposed: bool = False) -> Callable[[], Array]:
    def read() -> Array:
        array: Array = numpy_helper.to_array(tensor)
        return array.T if transposed else array

    return read


def _feed(graph: Graph, ops: Ops, name: str) -> None:
    """Give the traced graph the input `name` from what our graphs take."""
    ids = ops.tokens.input_ids
    if name in (ids, ops.tokens.attention_mask):
        return
    if name != "token_type_ids":
        raise UnsupportedCheckpointError(
            f"optimum's graph takes {name!r}; known are input_ids, attention_mask and token_type_ids"
        )
    graph.nodes.append(helper.make_node("Sub", [ids, ids], [name], name=name))  # all of type 0


def _initializer(graph: Graph, tensor: TensorProto) -> None:
    array = numpy_helper.to_array(tensor)
    if array.nbytes <= SMALL:
        graph.constants[tensor.name] = numpy_helper.from_array(array, tensor.name)
    else:
        graph.weight(Weight(tensor.name, array.shape, _loader(tensor), np.dtype(array.dtype)))
