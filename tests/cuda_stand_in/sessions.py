"""Sessions of one node of our operators for CUDA, on the stand-ins."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import helper, numpy_helper

import cuda_stand_in
from fastembed_rt.native import build, cuda

Array = npt.NDArray[Any]
TYPES = {"Float16": np.dtype(np.float16), "BFloat16": np.dtype(ml_dtypes.bfloat16)}


class StandIn:
    """A copy of the operators with stand-ins open: the installed one may have the real libraries in this process."""

    def __init__(self, file: Path, standing_in: Path) -> None:
        self.file, self.standing_in = file, standing_in
        self.host = cuda_stand_in.functions(standing_in)
        assert cuda.open_libraries(file, str(standing_in), str(standing_in), stand_ins=True) is None

    @classmethod
    def built(cls, directory: Path) -> StandIn:
        """Compiled into a directory, with the sanitizers that `make sanitize` asks for."""
        watched = os.environ.get("FASTEMBED_RT_TEST_CUDA_FLAGS", "").split()
        return cls(build.build_cuda(directory / "operators.so", watched), cuda_stand_in.build(directory))

    def session(self, graph: bytes) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1  # the stand-in computes on the caller's; others would spin
        options.register_custom_ops_library(str(self.file))
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Card:
    """The installed operators on a GPU, in a StandIn's place."""

    def session(self, graph: bytes) -> onnxruntime.InferenceSession:
        """A session under the CUDA provider; skips a test that this card has no instructions for."""
        import pytest

        from fastembed_rt.run import cuda_operators, providers

        wanted = "fp8" if b"Fp8" in graph else "bf16" if b"BFloat16" in graph or b"Attention" in graph else "fp16"
        why = cuda_operators.why_not(wanted)
        if why is not None:
            pytest.skip(why)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.register_custom_ops_library(str(cuda_operators.opened()))
        provider = ("CUDAExecutionProvider", dict(providers.PROVIDERS["cuda"].options))
        return onnxruntime.InferenceSession(graph, options, providers=[provider], enable_fallback=False)


FLOAT_OUTPUT = ("Mean", "WordWeights", "Unit", "Dense")


def model(op: str, feeds: Mapping[str, Array], constants: Sequence[Array], **attributes: Any) -> bytes:
    """One node; the last of its outputs is "y"."""
    names = [f"c{k}" for k in range(len(constants))]
    outputs = ["sum", "y"] if op.startswith("SumNorm") else ["y"]
    node = helper.make_node(op, [*feeds, *names], outputs, domain=cuda.DOMAIN, **attributes)
    kind = helper.np_dtype_to_tensor_dtype
    own = TYPES["BFloat16" if op.endswith("BFloat16") else "Float16"]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, kind(a.dtype), [None] * a.ndim) for name, a in feeds.items()],
        [helper.make_tensor_value_info(y, 1 if op.startswith(FLOAT_OUTPUT) else kind(own), None) for y in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in zip(names, constants, strict=True)],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(cuda.DOMAIN, 1)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return made


def run(stand_in: StandIn, op: str, feeds: Mapping[str, Array], constants: Sequence[Array], **attributes: Any) -> Array:
    return fed(stand_in.session(model(op, feeds, constants, **attributes)), feeds)


def fed(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array], output: str = "y") -> Array:
    """What a session of one node gives as one output; bfloat16 goes by OrtValues, which numpy has not."""
    binding = session.io_binding()
    held = []
    for name, given in feeds.items():
        array = np.ascontiguousarray(given)
        if array.dtype == TYPES["BFloat16"]:
            value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), 16)
        else:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        held.append((array, value))
        binding.bind_ortvalue_input(name, value)
    binding.bind_output(output, "cpu")
    session.run_with_iobinding(binding)
    (value,) = binding.get_outputs()
    if value.data_type() != "tensor(bfloat16)":
        found: Array = value.numpy().copy()
        return found
    raw = (ctypes.c_char * (2 * int(np.prod(value.shape())))).from_address(value.data_ptr())
    bits: Array = np.array(raw).view(TYPES["BFloat16"]).reshape(value.shape())
    return bits
