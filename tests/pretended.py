"""An onnxruntime that pretends to have GPUs: CUDA's graphs run in numpy, TensorRT's on the CPU provider.

Models load and run through all of the runtime's own code: capture and replay, buffers, profiles, engine caches.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from packed_attention import evaluate

Array = npt.NDArray[Any]
CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


class Value:
    """An OrtValue on a device."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @staticmethod
    def ortvalue_from_shape_and_type(shape: tuple[int, ...], dtype: Any, device: str, number: int) -> Value:
        spare = np.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize + 256, np.uint8)
        start = -spare.ctypes.data % 256  # where CUDA puts it
        array = spare[start : len(spare) - 256 + start].view(dtype).reshape(shape)
        array[...] = np.nan if np.dtype(dtype).kind == "f" else 0xEE
        return Value(array)

    copies: ClassVar[list[str]] = []  # between host and device, of all values

    def update_inplace(self, array: Array) -> None:
        assert (array.shape, array.dtype) == (self.array.shape, self.array.dtype), "a captured graph has fixed shapes"
        self.copies.append("in")
        self.array[...] = array

    def numpy(self) -> Array:
        self.copies.append("out")
        return self.array.copy()

    def data_ptr(self) -> int:
        return self.array.ctypes.data


class Binding:
    """An IOBinding: arrays by name, in host memory by address or on the device."""

    def __init__(self) -> None:
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array | None] = {}

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value.array

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        assert device == "cuda", "copied by onnxruntime, each by itself"
        assert address % 256 == 0
        self.inputs[name] = at(address, dtype, shape)

    def bind_output(
        self, name: str, device: str, number: int = 0, dtype: Any = None, shape: Any = None, address: int = 0
    ) -> None:
        self.outputs[name] = at(address, dtype, shape) if address else None

    def copy_outputs_to_cpu(self) -> list[Array]:
        return [array for array in self.outputs.values() if array is not None]


def at(address: int, dtype: Any, shape: Any) -> Array:
    count = int(np.prod(shape))
    raw = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(raw, dtype, count).reshape(shape)


class CudaSession:
    """A session on the pretended CUDA provider: numpy evaluates the graph."""

    _sess = object()

    def __init__(self, path: str, shapes: Any) -> None:
        self._path = Path(path)
        self.get_inputs, self.get_outputs = shapes.get_inputs, shapes.get_outputs

    def get_providers(self) -> list[str]:
        return [CUDA]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        vectors = evaluate(self._path, binding.inputs)
        for name, place in binding.outputs.items():
            if place is None:
                binding.outputs[name] = vectors
            else:
                place[...] = vectors[: len(place)]


class SessionOptions(onnxruntime.SessionOptions):  # type: ignore[misc]
    """Takes the operators for CUDA: evaluated in numpy, they need no library."""

    def register_custom_ops_library(self, path: str) -> None:
        if "cuda" not in Path(path).name:
            super().register_custom_ops_library(path)


class Shapes:
    """What a session tells of a graph's inputs and outputs, read from the file: the CPU has no kernels for it."""

    def __init__(self, path: str) -> None:
        import onnx

        graph = onnx.load(path, load_external_data=False).graph
        self._inputs, self._outputs = map(self._told, (graph.input, graph.output))

    @staticmethod
    def _told(entries: Any) -> list[Any]:
        def told(entry: Any) -> Any:
            dims = [dim.dim_value or dim.dim_param for dim in entry.type.tensor_type.shape.dim]
            return type("NodeArg", (), {"name": entry.name, "shape": dims})()

        return [told(entry) for entry in entries]

    def get_inputs(self) -> list[Any]:
        return self._inputs

    def get_outputs(self) -> list[Any]:
        return self._outputs


def session(source: Any, sess_options: Any = None, providers: Any = (), **options: Any) -> Any:
    name = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if name == CUDA:
        return CudaSession(source, Shapes(source))
    if name != TENSORRT:
        return onnxruntime.InferenceSession(source, sess_options, providers=providers, **options)
    ((_, settings),) = providers
    cache = Path(settings["trt_engine_cache_path"])
    (cache / f"{settings['trt_engine_cache_prefix']}.engine").write_text("an engine")
    made = onnxruntime.InferenceSession(source, providers=[CPU])
    made.get_providers = lambda: [TENSORRT]
    return made


@pytest.fixture
def pretended_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """onnxruntime with CUDA and TensorRT, for one test."""
    from fastembed_rt.native import cuda
    from fastembed_rt.run import captures, cuda_operators, nvidia, staging

    fake = ModuleType("onnxruntime")
    fake.__dict__.update({name: value for name, value in vars(onnxruntime).items() if name != "InferenceSession"})
    fake.__dict__.update(
        InferenceSession=session,
        OrtValue=Value,
        SessionOptions=SessionOptions,
        cuda_version="13.0",
        get_available_providers=lambda: [TENSORRT, CUDA, CPU],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(nvidia, "find", lambda *_: None)
    monkeypatch.setattr(nvidia, "preload", lambda _: None)
    monkeypatch.setattr(nvidia, "device_name", lambda _: "pretended")
    monkeypatch.setattr(cuda_operators, "why_not", lambda precision, device=0: cuda.why_not_on(90, precision))
    monkeypatch.setenv("FASTEMBED_RT_CALIBRATE", "0")  # numpy is no card to measure
    for module in (captures, staging):
        monkeypatch.setattr(module, "cuda_runtime", lambda: None)  # a toolkit may be here
    monkeypatch.setattr(cuda_operators, "opened", cuda.library)
    monkeypatch.setattr(cuda_operators, "remembered", lambda *_: nullcontext())
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "cache"))
