"""Pretended installations for the doctor, and what it says of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastembed_rt.cli.doctor import Finding, diagnose
from fastembed_rt.cli.environment import Facts
from fastembed_rt.machine import Cpu, Machine

GIB = 1 << 30
CPU = Cpu(
    vendor="AuthenticAMD",
    model="EPYC",
    instruction_sets=frozenset({"avx2", "avx512f", "avx512_vnni"}),
    known=True,
)
MACHINE = Machine(cpus=16, affinity=8, quota=None, memory_limit=None, memory=64 * GIB, cpu=CPU)
HEALTHY = Facts(
    python="3.12.1 (CPython)",
    system="Linux-6.1-x86_64",
    packages={"numpy": "2.4.6", "tokenizers": "0.23.3", "huggingface-hub": "2.4.0", "onnxruntime": "1.32.0"},
    wheels={"onnxruntime": "1.32.0"},
    machine=MACHINE,
    onnxruntime="1.32.0",
    providers=("CPUExecutionProvider",),
    nvidia_smi="is not installed",
)
CUDA_LIBRARIES = {"libcudart.so.13": "", "libcublasLt.so.13": "", "libcudnn.so.9": ""}
GPU = dataclasses.replace(
    HEALTHY,
    packages={**HEALTHY.packages, "nvidia-cublas": "13.1.0", "nvidia-cudnn-cu13": "9.15.0"},
    wheels={"onnxruntime-gpu": "1.31.0"},
    providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    cuda="13.0",
    libraries=CUDA_LIBRARIES,
    tensorrt={"libnvinfer.so.10": ""},
    gpus=("NVIDIA L4, 23034 MiB, 580.82",),
    nvidia_smi="",
)


def with_machine(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    return dataclasses.replace(facts, machine=dataclasses.replace(facts.machine, **changes))


def with_cpu(*instruction_sets: str, known: bool = True) -> Facts:
    cpu = dataclasses.replace(CPU, instruction_sets=frozenset(instruction_sets), known=known)
    return with_machine(cpu=cpu)


def row(facts: Facts, check: str) -> Finding:
    """The only finding of that name."""
    (found,) = [finding for finding in diagnose(facts) if finding.check == check]
    return found


def problems(facts: Facts) -> list[str]:
    return [finding.check for finding in diagnose(facts) if finding.level == "problem"]
