"""Any architecture without a builder: traced by optimum, then given the same heads, contract and gate as the others.

optimum pins an older transformers, so it lives in an extra and an environment of its own (`fastembed-rt[optimum]`).
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, load, numpy_helper

from .architectures import Architecture
from .architectures.blocks import Config, setting
from .errors import MissingDependencyError, UnsupportedCheckpointError
from .graph.graph import Graph, Value
from .graph.ops import Ops
from .graph.weight import Weight
from .tensors import Tensors

STATES = "last_hidden_state"
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

    def encoder(ops: Ops, config: Config, tensors: Tensors) -> Value:
        return _append(ops, directory)

    return Architecture(encoder, _positions, prefix="", traced=True)


def _positions(config: Config) -> int:
    return setting(config, "max_position_embeddings", int)


def _append(ops: Ops, directory: Path) -> Value:
    """Trace the checkpoint and put its nodes into the graph under construction."""
    from optimum.exporters.onnx import main_export

    graph = ops.graph
    with tempfile.TemporaryDirectory() as work:
        main_export(
            str(directory),
            work,
            task="feature-extraction",
            library_name="transformers",  # the encoder alone: the heads are ours
            opset=max(graph.opset, 18),  # what optimum recommends as a minimum
            do_validation=False,
            no_post_process=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        model = load(str(Path(work) / "model.onnx"))
    names = {output.name for output in model.graph.output}
    if STATES not in names:
        raise UnsupportedCheckpointError(f"optimum's graph has outputs {sorted(names)}, expected {STATES}")
    graph.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for entry in model.graph.input:
        _feed(graph, ops, entry.name)
    for tensor in model.graph.initializer:
        _initializer(graph, tensor)
    graph.nodes.extend(model.graph.node)
    return STATES


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
        graph.weight(Weight(tensor.name, array.shape, lambda: array, np.dtype(array.dtype)))
