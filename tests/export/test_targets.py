"""What targets are given and give: the type of what meets token states, and what is added to the scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastembed_rt_export.graph import cuda, native, tensorrt
from fastembed_rt_export.graph.cpu import CPU
from fastembed_rt_export.graph.graph import FLOAT, Graph
from fastembed_rt_export.graph.int8 import Recipe
from fastembed_rt_export.graph.layers import Heads, ScoreBias
from fastembed_rt_export.graph.ops import Ops
from fastembed_rt_export.graph.portable import DEFAULT_OPSET, EOS, PORTABLE
from fastembed_rt_export.graph.target import Target
from fastembed_rt_export.graph.weight import Linear, Weight

HALF = [cuda.target("fp16"), cuda.target("bf16"), tensorrt.target("fp16")]
NATIVE = native.target(Recipe(groups={}, folds={}))


def ops_of(target: Target) -> Ops:
    graph = Graph(target.opset or DEFAULT_OPSET)
    return Ops(graph, target, target.enter(graph, False))


def layer(name: str) -> Linear:
    return Linear(Weight(name, (8, 8), lambda: np.ones((8, 8), np.float32)))


@pytest.mark.parametrize("target", HALF, ids=lambda target: f"{target.name} {target.state_type}")
@pytest.mark.parametrize("mode", list(PORTABLE.pools))
def test_a_pooling_changes_the_type_of_nothing_but_its_result(target: Target, mode: str) -> None:
    ops = ops_of(target)
    ends = ops.graph.input("ends", FLOAT, ("tokens",)) if mode == EOS else None
    ops = replace(ops, tokens=replace(ops.tokens, ends=ends))
    states = ops.graph.input("states", FLOAT, ("tokens", 8))
    vectors = ops.pool(states, mode)
    assert {constant.split("/")[1] for constant in ops.graph.constants} <= {"int64", "float32"}
    ops.linear(states, layer("of tokens"))
    ops.behind_pooling.linear(vectors, layer("of vectors"))
    found = {weight.name.split(".")[0]: weight.dtype for weight in ops.graph.weights.values()}
    assert found == {"of tokens": target.state_type, "of vectors": np.dtype(np.float32)}


def test_nobody_changes_the_type_of_a_graph_under_construction() -> None:
    graph = Graph(DEFAULT_OPSET)
    half = graph.typed(np.dtype(np.float16))
    half.constant(0.5)
    graph.constant(0.5)
    assert [constant.split("/")[1] for constant in graph.constants] == ["float16", "float32"]
    assert half.constants is graph.constants
    with pytest.raises(AttributeError):
        graph.float_type = np.dtype(np.float16)  # type: ignore[misc]


def test_what_is_added_to_the_scores_keeps_its_numbers_beside_the_tensor() -> None:
    table = Weight("table", (9, 2), lambda: np.zeros((9, 2), np.float32))
    for target in (PORTABLE, CPU, cuda.target("fp32"), tensorrt.target("fp32"), NATIVE):
        ops = ops_of(target)
        bias = ops.attention_bias(table, before=3, after=0)
        assert (bias.by_distance, bias.before, bias.after) == (table, 3, 0)
        made = {name for node in ops.graph.nodes for name in node.output}
        assert (bias.tensor is None) == (target is NATIVE)
        assert bias.tensor is None or bias.tensor in made
    assert ops_of(cuda.target("fp32")).attention_bias() == ScoreBias()  # texts' boundaries are the mask


def test_our_operators_refuse_a_tensor_of_scores() -> None:
    ops = ops_of(NATIVE)
    bias = ScoreBias(tensor=ops.graph.input("bias", FLOAT, ("batch", 1, "sequence", "sequence")))
    with pytest.raises(native.NotNativeError, match="adds to its scores"):
        NATIVE.attention(ops.graph, ops.tokens, query="q", key="k", value="v", heads=Heads.of(2), bias=bias)
