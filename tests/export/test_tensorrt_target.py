"""Graphs of the tensorrt target: standard operators, and transformers' numbers on onnxruntime's CPU provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from checkpoints import CONFIGS, random_model, save_transformers
from tolerances import close

from fastembed_rt_export.checkpoint import read as checkpoints
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.graph import tensorrt
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.tasks.embedding import build

FLOAT_OPERATORS = {"LayerNormalization", "Softmax"}


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
@pytest.mark.parametrize("precision", list(tensorrt.DTYPES))
def test_vectors_are_those_of_transformers(tmp_path: Path, model_type: str, precision: str) -> None:
    checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
    graph = build(checkpoint, tensorrt.target(precision), tensorrt.OPSET).graph
    write(graph, tmp_path, "graph.onnx", name="test", metadata={})
    model = random_model(model_type)
    random = np.random.default_rng(0)
    lengths = np.array([20, 1, 7, 2, 19])
    mask = (np.arange(20) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask == 1, random.integers(5, 100, mask.shape), model.config.pad_token_id)
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    with torch.no_grad():
        states = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    wanted = (states * mask[..., None]).sum(axis=1) / lengths[:, None]
    cosine, _ = distances(found, wanted.astype(np.float32))
    assert cosine.min() >= (0.9995 if precision == "fp16" else 0.99999)
    if precision == "fp32":
        close(found, wanted)


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "modernbert"])
def test_operators_are_standard_and_sums_of_squares_and_softmax_are_float32(tmp_path: Path, model_type: str) -> None:
    checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
    graph = build(checkpoint, tensorrt.target("fp16"), tensorrt.OPSET).graph
    write(graph, tmp_path, "graph.onnx", name="test", metadata={})
    assert {node.domain for node in graph.nodes} == {""}
    model = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "graph.onnx")))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    watched = [node for node in model.graph.node if node.op_type in FLOAT_OPERATORS]
    assert {node.op_type for node in watched} == FLOAT_OPERATORS
    assert {types[node.output[0]] for node in watched} == {onnx.TensorProto.FLOAT}
    products = [types.get(node.output[0]) for node in model.graph.node if node.op_type == "MatMul"]
    assert products.count(onnx.TensorProto.FLOAT16) == len(products) - 1  # all but the pooling's
