"""Products with weights in a traced graph become linear layers, which compute what the graph computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from tolerances import close

from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.graph.graph import FLOAT, INT64, Graph
from fastembed_rt_export.graph.ops import Ops
from fastembed_rt_export.graph.portable import PORTABLE
from fastembed_rt_export.graph.target import Target
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.quantize import Sample, calibrate
from fastembed_rt_export.traced import optimum_export
from fastembed_rt_export.traced.products import product
from fastembed_rt_export.traced.tracing import STATES

WORDS, WIDTH = 50, 12
RANDOM = np.random.default_rng(3)
IDS = RANDOM.integers(0, WORDS, (3, 7))
LENGTHS = (7, 4, 2)  # tokens that count


def random(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


def traced(nodes: list[onnx.NodeProto], **tensors: Any) -> onnx.ModelProto:
    """What reads the states `x` (B, S, 12) of a table of words and ends in last_hidden_state."""
    given = [helper.make_tensor_value_info(name, INT64, ("b", "s")) for name in ("input_ids", "attention_mask")]
    made = [helper.make_tensor_value_info(STATES, FLOAT, None)]
    initializers = {"table": random(WORDS, WIDTH), **tensors}
    graph = helper.make_graph(
        [node("Gather", "table input_ids", "x"), *nodes],
        "traced",
        given,
        made,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def convolved(**attributes: Any) -> list[onnx.NodeProto]:
    return [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("Conv", "t w b", "c", **attributes),
        node("Transpose", "c", STATES, perm=[0, 2, 1]),
    ]


FLAT, CUT = node("Reshape", "x flat", "r"), node("Reshape", "g cut", STATES)
FLATTENED = {"flat": [-1, WIDTH], "cut": [-1, IDS.shape[1], 8]}
# By name: the graph, and how many layers it has.
GRAPHS = {
    "matmul": (traced([node("MatMul", "x w", STATES)], w=random(WIDTH, 8)), 1),
    "gpt2": (traced([FLAT, node("Gemm", "r w b", "g"), CUT], **FLATTENED, w=random(WIDTH, 8), b=random(8)), 1),
    "turned, no bias": (traced([FLAT, node("Gemm", "r w", "g", transB=1), CUT], **FLATTENED, w=random(8, WIDTH)), 1),
    "one token": (traced(convolved(), w=random(8, WIDTH, 1), b=random(8)), 1),
    "in groups": (traced(convolved(group=3), w=random(9, WIDTH // 3, 1), b=random(9)), 3),
    "squeezebert": (
        traced(
            [
                node("Transpose", "x", "t", perm=[0, 2, 1]),
                node("Conv", "t w", "q", group=3),
                node("Conv", "t v", "k", group=2),
                node("Conv", "t u b", "v3", group=3),
                node("Concat", "q k v3", "c", axis=1),
                node("Transpose", "c", STATES, perm=[0, 2, 1]),
            ],
            w=random(9, 4, 1),
            v=random(8, 6, 1),
            u=random(6, 4, 1),
            b=random(6),
        ),
        8,
    ),
    "xlnet": (
        traced(
            [
                node("Einsum", "x w", "heads", equation="ibh,hnd->ibnd"),
                node("Einsum", "heads o", STATES, equation="ibnd,hnd->ibh"),
            ],
            w=random(WIDTH, 3, 5),
            o=random(WIDTH, 3, 5),
        ),
        2,
    ),
}
OTHERS = {
    "neighbours": traced(convolved(pads=[1, 1]), w=random(8, WIDTH, 3), b=random(8)),
    "every second token": traced(convolved(strides=[2]), w=random(8, WIDTH, 1), b=random(8)),
    "a factor a channel": traced(convolved(group=WIDTH), w=random(WIDTH, 1, 1), b=random(WIDTH)),
    "a matrix a head": traced([node("MatMul", "x w", STATES)], w=random(3, WIDTH, 5)),
    "half": traced([FLAT, node("Gemm", "r w", "g", alpha=0.5), CUT], **FLATTENED, w=random(WIDTH, 8)),
    "a bias a token": traced([FLAT, node("Gemm", "r w b", "g"), CUT], **FLATTENED, w=random(WIDTH, 8), b=random(21, 8)),
    "by head": traced(
        [
            node("Reshape", "x heads", "h"),
            node("Einsum", "h w", "e", equation="bsnd,nde->bsne"),
            node("Reshape", "e joined", STATES),
        ],
        heads=[0, 0, 3, 4],
        joined=[0, 0, 15],
        w=random(3, 4, 5),
    ),
}


def appended(model: onnx.ModelProto, target: Target = PORTABLE, *, pooled: bool = False) -> Graph:
    """The graph of the states (B, S, H), or of their sums (B, H)."""
    graph, own = Graph(18), onnx.ModelProto.FromString(model.SerializeToString())  # its nodes are changed
    states = optimum_export._append(Ops(graph, target, target.enter(graph, False)), own)
    if pooled:
        states = graph.node("ReduceSum", states, graph.constant([1]), keepdims=0)
    graph.output(states, "made", FLOAT, ("b", "h") if pooled else ("b", "s", "h"))
    return graph


def outputs(model: Any) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    return session.run(None, {entry.name: given[entry.name] for entry in session.get_inputs()})[0]


@pytest.mark.parametrize("name", [*GRAPHS, *OTHERS])
def test_a_graph_with_layers_computes_what_was_traced(tmp_path: Path, name: str) -> None:
    model = GRAPHS[name][0] if name in GRAPHS else OTHERS[name]
    graph = appended(model)
    write(graph, tmp_path, "made.onnx", name="made", metadata={})
    close(outputs(str(tmp_path / "made.onnx")), outputs(model.SerializeToString()))
    left = {"Gemm", "Conv", "Einsum"} & {node.op_type for node in graph.nodes}
    assert not left if name in GRAPHS else left or name == "a matrix a head"


@pytest.mark.parametrize("name", GRAPHS)
def test_calibration_knows_every_layer_and_sees_no_padding(name: str) -> None:
    """A token that pads is a word of its own here, a hundred times as large as all others."""
    model, layers = GRAPHS[name]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    table = numpy_helper.to_array(tensors["table"]).copy()
    largest = float(np.abs(table[1:]).max())
    table[0] = 100 * largest
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    rows = [1 + row[:length] % (WORDS - 1) for row, length in zip(IDS, LENGTHS, strict=True)]
    sample = Sample(rows=rows, boundaries=np.zeros(3, np.int64), output="made")
    found = calibrate(lambda target: appended(model, target, pooled=True), sample, replace(sample), 1, PORTABLE)
    assert sum(len(group.rounded) for group in found.recipe.groups.values()) == layers
    ends = [max(-group.low, group.high) for group in found.recipe.groups.values()]
    assert min(ends) < 2 * largest
    assert max(ends) < 100 * largest


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_linear_layer_stays_what_it_is(name: str) -> None:
    model = OTHERS[name]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    assert [node for node in model.graph.node if product(node, tensors)] == []
    sample = Sample(rows=list(IDS), boundaries=np.zeros(3, np.int64), output="made")
    with pytest.raises(UnsupportedCheckpointError, match="int8 has nothing to do"):
        calibrate(lambda target: appended(model, target, pooled=True), sample, replace(sample), 1, PORTABLE)
