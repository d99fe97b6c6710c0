"""Nodes of our FP8 operators on the stand-ins; numpy has e4m3 numbers, onnxruntime takes and gives them as float16."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from fastembed_rt.native import cuda

from .sessions import Card, StandIn

Array = npt.NDArray[Any]
E4M3: np.dtype[Any] = np.dtype(ml_dtypes.float8_e4m3fn)
TYPES = {E4M3: TensorProto.FLOAT8E4M3FN, np.dtype(np.float16): TensorProto.FLOAT16, np.dtype(np.int64): 7}


def run(
    stand_in: StandIn | Card, op: str, given: dict[str, Array], wanted: list[int], **attributes: Any
) -> list[Array]:
    """A node's results; all inputs are constants but the first, which with e4m3 ones is given and taken by its bits."""
    first, *others = given
    eight = given[first].dtype == E4M3
    nodes = [helper.make_node(op, list(given), [f"r{k}" for k in range(len(wanted))], domain=cuda.DOMAIN, **attributes)]
    outputs = []
    for k, kind in enumerate(wanted):
        name = f"r{k}"
        if kind == TensorProto.FLOAT8E4M3FN:  # float16 holds every number of e4m3
            nodes.append(helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT16))
            name = f"{name}.wide"
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, None))
    if eight:
        nodes[0].input[0] = "narrow"
        nodes.insert(0, helper.make_node("Cast", [first], ["narrow"], to=TensorProto.FLOAT8E4M3FN))
    kind = TensorProto.FLOAT16 if eight else TYPES[given[first].dtype]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(first, kind, [None] * given[first].ndim)],
        outputs,
        [numpy_helper.from_array(np.ascontiguousarray(given[name]), name) for name in others],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(cuda.DOMAIN, 1)]
    session = stand_in.session(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    fed = given[first].astype(np.float16) if eight else given[first]
    found: list[Array] = session.run(None, {first: fed})
    return found
