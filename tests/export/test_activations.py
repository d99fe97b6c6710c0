"""Activations of Dense modules are those of torch, in the nodes of every target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoint_faults import refusal
from checkpoints import SIZES, assert_vectors_agree, change_json, save_with_heads
from sentence_transformers.sentence_transformer.modules import Dense

from fastembed_rt_export.checkpoint.activations import BUILT, KNOWN, OVER_VECTOR, activate
from fastembed_rt_export.checkpoint.modules import module_head
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.graph import cuda, tensorrt
from fastembed_rt_export.graph.cpu import CPU
from fastembed_rt_export.graph.graph import FLOAT, Graph
from fastembed_rt_export.graph.ops import Ops
from fastembed_rt_export.graph.portable import DEFAULT_OPSET, MIN_OPSET, PORTABLE
from fastembed_rt_export.graph.target import Target
from fastembed_rt_export.graph.writer import write

WIDTH = SIZES["hidden_size"]
TARGETS = [
    (PORTABLE, MIN_OPSET),
    (PORTABLE, DEFAULT_OPSET),
    (CPU, CPU.opset),
    (cuda.target("fp32"), cuda.target("fp32").opset),
    (tensorrt.target("fp32"), tensorrt.target("fp32").opset),
]
# Around zero and around the corners of all of them, and where an exponential overflows or vanishes.
ROWS = np.stack([np.linspace(-8, 8, 65), np.linspace(-0.6, 0.6, 65), np.linspace(-120, 120, 65)]).astype(np.float32)


@pytest.mark.parametrize(("target", "opset"), TARGETS, ids=lambda value: getattr(value, "name", str(value)))
@pytest.mark.parametrize("name", KNOWN)
def test_an_activation_is_that_of_torch(tmp_path: Path, name: str, target: Target, opset: int | None) -> None:
    graph = Graph(opset or DEFAULT_OPSET)
    ops = Ops(graph, target, target.enter(graph, False))
    del graph.inputs[:], graph.nodes[:]  # those of texts
    made = activate(ops, graph.input("x", FLOAT, ["batch", ROWS.shape[1]]), name)
    graph.output(made, "y", FLOAT, ("batch", ROWS.shape[1]))
    write(graph, tmp_path, "one.onnx", name="one", metadata={})
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "one.onnx")).run(["y"], {"x": ROWS})
    function = getattr(torch.nn, name)(*([1] if name in OVER_VECTOR else [])).eval()
    wanted = function(torch.from_numpy(ROWS.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["LeakyReLU", "Mish", "Softmax", "LogSigmoid", "RReLU"])
def test_a_dense_with_another_activation_gives_the_reference_vectors(tmp_path: Path, name: str) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10, activation_function=getattr(torch.nn, name)()))
    assert_vectors_agree(directory, tmp_path / "out")


@pytest.mark.parametrize("name", ["PReLU", "GLU", "Threshold", "Softmax2d", "MultiheadAttention", "Unheard"])
def test_an_activation_with_weights_or_arguments_is_refused_by_name(tmp_path: Path, name: str) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    full = f"torch.nn.modules.activation.{name}"
    change_json(directory / "2_Dense" / "config.json", activation_function=full)
    message = refusal(directory, UnsupportedCheckpointError)
    assert f"activation {full} is not built" in message
    assert ("weights of its own" in message) is (name in ("PReLU", "MultiheadAttention"))
    assert "LeakyReLU" in message


@pytest.mark.parametrize("name", OVER_VECTOR)
def test_a_softmax_on_token_states_is_refused(tmp_path: Path, name: str) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    changes = {"activation_function": f"torch.nn.{name}", "module_input_name": "token_embeddings"}
    change_json(directory / "2_Dense" / "config.json", **changes, module_output_name="token_embeddings")
    with pytest.raises(UnsupportedCheckpointError, match=f"{name} is not built on token states"):
        module_head("Dense", directory / "2_Dense", [], "token_embeddings")


def test_the_modules_of_a_model_name_the_activation(tmp_path: Path) -> None:
    function = torch.nn.LeakyReLU()
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10, activation_function=function))
    assert [str(head) for head in module_head("Dense", directory / "2_Dense", [])] == ["Dense(24 -> 10, leakyrelu)"]
    assert not set(BUILT) & {"Tanh", "Identity"}
