"""The doctor on GPUs: libraries, wheels and operators, right verdicts and the commands that cure them."""

from __future__ import annotations

import dataclasses

import pytest
from doctor_facts import CUDA_LIBRARIES, GPU, HEALTHY, problems, row

from fastembed_rt.cli.doctor import diagnose
from fastembed_rt.cli.environment import Operators


def test_a_healthy_gpu_has_nothing_to_fix() -> None:
    findings = diagnose(GPU)
    assert {finding.level for finding in findings} == {"ok"}
    assert row(GPU, "gpu").what == "NVIDIA L4, 23034 MiB, 580.82"
    assert row(GPU, "cuda wheels").what == "nvidia-cublas 13.1.0, nvidia-cudnn-cu13 9.15.0"
    loaded = [finding.what for finding in findings if finding.check == "cuda library"]
    assert loaded == [f"{library} loads" for library in CUDA_LIBRARIES]


def test_a_library_that_does_not_load_is_a_problem_where_there_is_a_gpu() -> None:
    facts = dataclasses.replace(GPU, libraries={**CUDA_LIBRARIES, "libcudnn.so.9": "cannot open"})
    (found,) = [finding for finding in diagnose(facts) if finding.level == "problem"]
    assert found.what == "libcudnn.so.9 does not load: cannot open; this onnxruntime is built for cuDNN 9"
    assert found.fix == 'pip install "onnxruntime-gpu[cuda,cudnn]"'


def test_onnxruntime_gpu_without_a_gpu_is_worth_notes_only() -> None:
    failing = {"libcudart.so.13": "cannot open"}
    facts = dataclasses.replace(GPU, gpus=(), nvidia_smi="is not installed", libraries=failing)
    assert problems(facts) == []
    found = row(facts, "gpu")
    assert found.level == "note"
    assert "nvidia-smi is not installed" in found.what
    assert "--gpus all" in found.fix


def test_a_gpu_wheel_whose_files_were_overwritten_is_a_problem() -> None:
    facts = dataclasses.replace(GPU, providers=("CPUExecutionProvider",))
    assert problems(facts) == ["cuda"]
    assert "CUDAExecutionProvider" in row(facts, "cuda").what
    assert "pip uninstall -y onnxruntime-gpu" in row(facts, "cuda").fix


def test_a_gpu_that_onnxruntime_cannot_use_is_worth_a_note() -> None:
    facts = dataclasses.replace(HEALTHY, gpus=GPU.gpus, nvidia_smi="")
    assert problems(facts) == []
    assert row(facts, "cuda").level == "note"
    assert row(facts, "cuda").fix == 'pip uninstall -y onnxruntime  then: pip install "fastembed-rt[gpu]"'


@pytest.mark.parametrize(
    ("library", "packages", "said", "fix"),
    [
        ("libcublas.so.13", {"nvidia-cublas-cu12": "12.8.4"}, "CUDA 13, and installed is nvidia-cublas-cu12", "[cuda"),
        ("libcudnn.so.9", {"nvidia-cudnn-cu12": "8.9.7"}, "cuDNN 9, and installed is nvidia-cudnn-cu12 8.9.7", "[cuda"),
    ],
)
def test_a_library_of_another_major_is_named(library: str, packages: dict[str, str], said: str, fix: str) -> None:
    facts = dataclasses.replace(GPU, packages={**HEALTHY.packages, **packages}, libraries={library: "cannot open"})
    found = row(facts, "cuda library")
    assert (found.level, said in found.what, fix in found.fix) == ("problem", True, True)


def test_without_tensorrt_a_note_says_what_to_install_for_it() -> None:
    packages = {**GPU.packages, "tensorrt-cu13": "11.0.1"}
    facts = dataclasses.replace(GPU, packages=packages, tensorrt={"libnvinfer.so.10": "cannot open"})
    assert problems(facts) == []
    found = row(facts, "tensorrt library")
    assert "built for TensorRT 10, and installed is tensorrt-cu13 11.0.1" in found.what
    assert found.fix == 'pip install "tensorrt-cu13==10.*"'


def test_cuda_libraries_of_the_system_are_an_answer_too() -> None:
    facts = dataclasses.replace(GPU, packages=HEALTHY.packages)
    assert row(facts, "cuda wheels").what.startswith("none")


def test_operators_for_cuda_run_or_the_plain_graphs_do() -> None:
    gpu = dataclasses.replace(HEALTHY, providers=("CUDAExecutionProvider",), gpus=("a card",))
    assert all(finding.check != "cuda operators" for finding in diagnose(gpu))
    runs = row(dataclasses.replace(gpu, cuda_operators=(Operators(fp16=""),)), "cuda operators")
    assert (runs.level, runs.what) == ("ok", "our own run (target cuda-native); fp8 too")
    old = row(dataclasses.replace(gpu, cuda_operators=(Operators(fp16="", fp8="fp8 wants 8.9"),)), "cuda operators")
    assert old.what == "our own run (target cuda-native); fp8 does not: fp8 wants 8.9"
    fails = row(
        dataclasses.replace(gpu, cuda_operators=(Operators(fp16="libcublasLt.so.13 does not load"),)), "cuda operators"
    )
    assert fails.level == "note"
    assert fails.what.startswith("our own do not run: libcublasLt.so.13 does not load; the plain graphs do")
    two = (Operators(name="NVIDIA H200", fp16=""), Operators(name="Tesla V100", fp16="fp16 wants 7.5"))
    both = diagnose(dataclasses.replace(gpu, cuda_operators=two))
    assert [(f.level, f.what.partition(";")[0]) for f in both if f.check == "cuda operators"] == [
        ("ok", "device 0, NVIDIA H200: our own run (target cuda-native)"),
        ("note", "device 1, Tesla V100: our own do not run: fp16 wants 7.5"),
    ]


def test_a_gpu_that_cuda_is_told_not_to_show_is_no_working_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi lists it all the same, and no driver has to be installed."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-another-machine")
    hidden = dataclasses.replace(
        HEALTHY,
        providers=("CUDAExecutionProvider",),
        wheels={"onnxruntime-gpu": "1.31.1"},
        gpus=("a card",),
        cuda_operators=(Operators(fp16="cuInit fails with error 100"),),
        no_device="no CUDA-capable device",
    )
    found = [finding for finding in diagnose(hidden) if finding.check in ("gpu", "cuda operators")]
    assert [finding.level for finding in found] == ["ok", "problem"]
    assert "CUDA shows none" in found[1].what
    assert found[1].what.endswith("no CUDA-capable device")
    assert found[1].fix.startswith("CUDA_VISIBLE_DEVICES is 'GPU-of-another-machine': unset it")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "driver" in next(f.fix for f in diagnose(hidden) if f.level == "problem" and f.check == "gpu")
