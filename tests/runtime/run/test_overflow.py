"""The probe for 16-bit overflow: it is the graph it says, and answers what the arithmetic here answers."""

from __future__ import annotations

import base64
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from fastembed_rt.run import overflow
from fastembed_rt.run.overflow import DEPTH, PROBE, ROWS, WEIGHT, overflows
from fastembed_rt.run.session import load_onnxruntime


def test_the_probe_is_the_graph_that_its_comment_says() -> None:
    weights = [
        numpy_helper.from_array(np.full((DEPTH, 16), WEIGHT, np.int8), "w"),
        numpy_helper.from_array(np.float32(1), "s"),
    ]
    node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "s", "s"], ["y"], domain="com.microsoft")
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, [ROWS, DEPTH])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, 16])
    graph = helper.make_graph([node], "probe", [given], [out], weights)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    wanted = helper.make_model(graph, opset_imports=domains, ir_version=8)
    found = ModelProto.FromString(zlib.decompress(base64.b85decode(PROBE)))
    checker.check_model(found)
    assert found.graph == wanted.graph
    assert list(found.opset_import) == list(wanted.opset_import)


def test_an_unsaturated_answer_is_no_overflow_here_where_vnni_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastembed_rt.machine import cpu_features

    features = cpu_features()
    if not any(name in features for name in ("avx512_vnni", "avx_vnni")):
        pytest.skip("this processor has no VNNI")
    assert not overflows(load_onnxruntime())


@pytest.mark.parametrize(("answer", "wanted"), [(255 * WEIGHT * DEPTH, False), (32767 * DEPTH // 2, True)])
def test_a_saturated_sum_is_an_overflow(answer: int, wanted: bool) -> None:
    session = SimpleNamespace(run=lambda *_: [np.full((ROWS, 16), answer, np.float32)])
    simulated: Any = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: session)
    assert overflow.overflows.__wrapped__(simulated) is wanted
