"""What is said when a provider does not run, and what "auto" takes: pretended installations, and the real GPU wheel."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, ProviderUnavailableError
from fastembed_rt.run import nvidia, providers
from fastembed_rt.run.nvidia import Missing
from fastembed_rt.run.providers import PROVIDERS, choose

ROOT = Path(__file__).parents[3]
# The Python of an environment with onnxruntime-gpu, numpy, tokenizers and no CUDA.
GPU_WHEEL = os.environ.get("FASTEMBED_RT_GPU_WHEEL", "")
EVERY = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that lists GPU providers."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: EVERY)


def fits(_: str) -> None:
    return None


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_one_wheel_over_the_other_is_named_with_the_cure(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    wheels = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(nvidia, "distributions", lambda: (wheels, wheels))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailableError) as caught:
        EmbeddingModel(model_dir, provider=provider)
    message = str(caught.value)
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed and overwrite each other" in message
    assert 'pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "fastembed-rt[gpu]"' in message


def test_a_gpu_wheel_without_its_provider_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "distributions", lambda: ({}, {"onnxruntime-gpu": "1.31.1"}))
    found = nvidia.wheel("cuda", "CUDAExecutionProvider", ["CPUExecutionProvider"], "fastembed-rt[gpu]")
    assert "onnxruntime-gpu 1.31.1 is installed, but its files have no CUDAExecutionProvider" in found.what


@pytest.mark.parametrize(
    ("provider", "install"),
    [("openvino", "onnxruntime-openvino"), ("directml", "onnxruntime-directml"), ("coreml", "onnxruntime for macOS")],
)
def test_a_provider_that_is_passed_through_names_its_wheel(model_dir: Path, provider: str, install: str) -> None:
    if PROVIDERS[provider].onnxruntime_name in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    with pytest.raises(ProviderUnavailableError, match=f"install {install}, or pass provider='cpu'"):
        EmbeddingModel(model_dir, provider=provider)


# Libraries and devices


class Built:
    """An onnxruntime built for some CUDA."""

    def __init__(self, cuda: str) -> None:
        self.cuda_version = cuda


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Libraries that do not load, packages that are installed, and what the driver says."""

    def pretend(*broken: str, packages: dict[str, str] | None = None, device: str = "") -> None:
        def failures(names: Any) -> dict[str, str]:
            return {name: "cannot open shared object file" if name in broken else "" for name in names}

        monkeypatch.setattr(nvidia, "failures", failures)
        monkeypatch.setattr(nvidia, "distributions", lambda: (packages or {}, {}))
        monkeypatch.setattr(nvidia, "devices", lambda: (0, device) if device else (2, ""))
        monkeypatch.delenv(nvidia.VISIBLE, raising=False)

    return pretend


def test_nothing_is_missing_where_libraries_load_and_there_is_a_device(pretend: Callable[..., None]) -> None:
    pretend()
    assert nvidia.find("cuda", Built("13.0")) is None
    assert nvidia.find("tensorrt", Built("13.0")) is None


def test_cuda_of_another_major_is_told_from_the_one_wanted(pretend: Callable[..., None]) -> None:
    pretend("libcublasLt.so.13", packages={"nvidia-cublas-cu12": "12.8.4.1", "nvidia-cublas": "13.1.0"})
    found = nvidia.find("cuda", Built("13.0"))
    assert found is not None
    assert found.what.startswith("libcublasLt.so.13 does not load: cannot open shared object file; ")
    assert found.what.endswith("built for CUDA 13, and installed is nvidia-cublas-cu12 12.8.4.1")
    assert found.fix == 'pip install "onnxruntime-gpu[cuda,cudnn]"'


def test_tensorrt_11_is_not_tensorrt_10(pretend: Callable[..., None]) -> None:
    pretend("libnvinfer.so.10", packages={"tensorrt-cu13": "11.0.0.1"})
    assert nvidia.find("cuda", Built("13.0")) is None
    found = nvidia.find("tensorrt", Built("13.0"))
    assert found is not None
    assert "built for TensorRT 10, and installed is tensorrt-cu13 11.0.0.1" in found.what
    assert found.fix == 'pip install "tensorrt-cu13==10.*"'


def test_no_device_comes_with_the_drivers_reason(pretend: Callable[..., None]) -> None:
    pretend(device="no CUDA-capable device")
    assert nvidia.find("cuda", Built("13.0")) == Missing("no GPU: no CUDA-capable device", nvidia.INSTALL_DRIVER)


def test_devices_that_are_hidden_want_no_driver(pretend: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(device="no CUDA-capable device")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = nvidia.find("cuda", Built("13.0"))
    assert found is not None
    assert found.fix.startswith("CUDA_VISIBLE_DEVICES is '': unset it, or name there what nvidia-smi -L lists")
    pretend()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    found = nvidia.find("cuda", Built("13.0"), 2)
    assert found is not None
    assert found.fix == "choose one of those, or change CUDA_VISIBLE_DEVICES='MIG-a,MIG-b'"


def test_a_device_that_is_not_there_is_told_from_those_that_are(pretend: Callable[..., None]) -> None:
    pretend()
    assert nvidia.find("cuda", Built("13.0"), 1) is None
    assert nvidia.find("cuda", Built("13.0"), 2) == Missing(
        "no GPU 2: the driver shows 2, counted from 0", "choose one of those"
    )


def test_a_session_that_starts_without_cudnn_is_an_error_at_load(
    model_dir: Path, pretend: Callable[..., None], gpu_wheel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Started:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    pretend("libcudnn.so.9")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Started)
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    with pytest.raises(ProviderUnavailableError, match=r"starts here and does not run \(libcudnn.so.9 does not load"):
        EmbeddingModel(model_dir, provider="cuda")


def test_the_libraries_of_cuda_12_are_other_files() -> None:
    if os.name == "nt":
        pytest.skip("names of shared libraries on Linux")
    assert "libcublas.so.12" in nvidia.libraries("cuda", "12.8")
    assert "libnvinfer.so.10" in nvidia.libraries("tensorrt", "12.8")
    assert nvidia.libraries("cuda", "") == ()


class Driver:
    """libcuda, as ctypes sees it."""

    def __init__(self, status: int, count: int) -> None:
        self.status, self.count = status, count

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, place: Any) -> int:  # noqa: N802
        place._obj.value = self.count
        return 0


@pytest.mark.parametrize(
    ("status", "count", "why"),
    [
        (0, 1, ""),
        (0, 0, "the driver shows no device"),
        (100, 0, "no CUDA-capable device"),
        (803, 0, "driver and kernel module are of different versions"),
        (7, 0, "cuInit fails with error 7"),
    ],
)
def test_the_driver_is_asked_for_devices(monkeypatch: pytest.MonkeyPatch, status: int, count: int, why: str) -> None:
    monkeypatch.setattr("fastembed_rt.run.nvidia.ctypes.CDLL", lambda _: Driver(status, count))
    assert nvidia.devices.__wrapped__() == (count, why)


def test_preloading_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Wheel:
        @staticmethod
        def preload_dlls() -> None:
            print("Failed to load libcublas.so.13")

    nvidia.preload(Wheel)
    assert capfd.readouterr().out == ""


# "auto"


def test_auto_takes_cuda_where_it_runs(pretend: Callable[..., None], gpu_wheel: None) -> None:
    pretend()
    choice = choose("auto", fits)
    assert (choice.provider, choice.automatic) == ("cuda", True)
    assert choice.why == "auto took cuda (the first choice)"


def test_auto_says_what_it_passed_over(pretend: Callable[..., None], gpu_wheel: None) -> None:
    pretend(device="no CUDA-capable device")
    choice = choose("auto", fits)
    assert choice.provider == "cpu"
    assert choice.why == "auto took cpu (not cuda: no GPU: no CUDA-capable device)"


def test_auto_takes_the_cpu_for_a_model_that_cuda_does_not_run(pretend: Callable[..., None], gpu_wheel: None) -> None:
    pretend()
    choice = choose("auto", lambda name: "precision 'int8' is there for cpu" if name == "cuda" else None)
    assert choice.why == "auto took cpu (not cuda: precision 'int8' is there for cpu)"


def test_auto_without_a_gpu_wheel_is_the_cpu_and_the_model_says_so(model_dir: Path) -> None:
    if len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("this onnxruntime has GPUs")
    with EmbeddingModel(model_dir, provider="auto", threads=1) as model:
        assert model.provider == "cpu"
        assert "auto took cpu (not cuda: not in this onnxruntime" in model.provider_choice
        assert "provider='cpu' (auto)" in repr(model)
        assert model.encode("a").shape == (model.dim,)


def test_a_provider_asked_for_is_said_to_be(model: EmbeddingModel) -> None:
    assert model.provider_choice == "asked for"
    assert "provider='cpu'," in repr(model)


def test_what_auto_took_may_still_fail_and_nothing_steps_in(
    model_dir: Path, pretend: Callable[..., None], gpu_wheel: None
) -> None:
    pretend()
    with pytest.raises(ProviderUnavailableError, match="cuda"):
        EmbeddingModel(model_dir, provider="auto")


def test_an_unknown_provider_is_not_auto() -> None:
    with pytest.raises(InvalidInputError, match="directml, auto"):
        choose("automatic", fits)


def test_tokens_of_a_batch_are_the_providers() -> None:
    assert providers.PROVIDERS["cpu"].batch_tokens == 512
    assert providers.PROVIDERS["cuda"].batch_tokens > 512


# The real wheel


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ("cuda", r"provider 'cuda' was asked for and onnxruntime fell back to CPUExecutionProvider \(lib\w+\.so"),
        ("tensorrt", r"provider 'tensorrt' did not start \(lib\w+\.so"),
        ("auto", r"auto took cpu \(not cuda: lib\w+\.so"),
    ],
)
def test_the_gpu_wheel_without_cuda_names_the_library(model_dir: Path, provider: str, says: str) -> None:
    code = (
        "import sys, fastembed_rt\n"
        "try: print(fastembed_rt.EmbeddingModel(sys.argv[1], provider=sys.argv[2]).provider_choice)\n"
        "except fastembed_rt.FastembedRtError as error: print(error)"
    )
    command = [GPU_WHEEL, "-c", code, str(model_dir), provider]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert re.search(says, done.stdout), done.stdout + done.stderr


def test_the_providers_that_are_looked_into_are_nvidias() -> None:
    assert providers.NVIDIA == nvidia.NVIDIA
