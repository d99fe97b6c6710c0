"""What is installed here and what the GPU side answers: the facts that `doctor` judges.

Nothing that may crash is imported: onnxruntime and CUDA's libraries are tried in a process of their own, where there is
another Python to start.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import native
from ..machine import Machine, describe, is_built_whole
from ..run import nvidia
from ..system.interpreter import environment

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
TRIAL_SECONDS = 120  # a first import from a cold network disk is slow

IMPORT_TRIAL = """
import json, onnxruntime as o
facts = {"version": o.__version__, "providers": o.get_available_providers()}
print(json.dumps({**facts, "cuda": getattr(o, "cuda_version", "") or ""}))
"""
# sys.argv: the file of the module that looks, which the installation tried need not have; then the libraries.
CUDA_TRIAL = """
import json, runpy, sys, onnxruntime
look = runpy.run_path(sys.argv[1], run_name="missing")
look["preload"](onnxruntime)
print(json.dumps(look["failures"](sys.argv[2:])))
"""
# sys.argv: where this package is.
OPERATORS_TRIAL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from fastembed_rt.run import cuda_operators, nvidia
def asked(device):
    why = {precision: cuda_operators.why_not(precision, device) or "" for precision in ("fp16", "fp8")}
    return {"name": nvidia.device_name(device), **why}
count, why = nvidia.devices()
print(json.dumps({"devices": [asked(device) for device in range(max(count, 1))], "hidden": why}))
"""


@dataclass(frozen=True, kw_only=True)
class Operators:
    """Why our own operators for CUDA do not run on a GPU, by precision; "" where they do."""

    name: str = ""  # the driver's, of the GPU
    fp16: str
    fp8: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the checks judge."""

    python: str
    system: str
    packages: Mapping[str, str]  # installed distributions: normalized name -> version
    wheels: Mapping[str, str]  # of them, those that wrote the package `onnxruntime` which is imported
    machine: Machine
    place: str = ""  # directory that onnxruntime is imported from
    shadowed: Mapping[str, str] = field(default_factory=dict)  # its wheels elsewhere on the path -> their directories
    import_error: str = ""  # why onnxruntime cannot be imported; "not installed" where nothing is there
    onnxruntime: str = ""  # its version, as it says itself
    providers: tuple[str, ...] = ()
    cuda: str = ""  # the version that it is built for
    libraries: Mapping[str, str] = field(default_factory=dict)  # CUDA's: why one does not load, "" if it does
    tensorrt: Mapping[str, str] = field(default_factory=dict)  # TensorRT's, where the provider is there
    gpus: tuple[str, ...] = ()
    nvidia_smi: str = ""  # why nvidia-smi lists no GPU, "" if it does
    kernels: str = ""  # of our own operators, those that run here
    bf16_products: str = ""  # what they multiply bfloat16 numbers with
    left_out: str = ""  # better ones for this processor, which the compiler of the operators did not know
    no_kernels: str = ""  # why none do, "" if some do
    kernel_remedy: str = ""  # what would help, "" where nothing does
    # By the number of a GPU, of one at least; empty without the provider.
    cuda_operators: tuple[Operators, ...] = ()
    no_device: str = ""  # why CUDA shows no GPU, "" where it does or was not asked


def gather() -> Facts:
    """Look at this interpreter and this machine; takes a second or two, for the trial import."""
    packages, wheels = nvidia.distributions()
    trial: dict[str, Any] = {}
    import_error = "not installed"
    frozen = is_built_whole()
    if frozen:  # started again, it would be this program
        trial, import_error = _imported()
        packages = {**_versions(("numpy", "tokenizers", "huggingface-hub")), **packages}
    elif wheels or importlib.util.find_spec("onnxruntime") is not None:
        trial, import_error = _try([sys.executable, "-P", "-c", IMPORT_TRIAL])
    gpus, nvidia_smi = _gpus()
    cuda, providers = str(trial.get("cuda", "")), tuple(trial.get("providers", ()))
    needed = nvidia.libraries("cuda", cuda)
    operators, no_device = _cuda_operators() if CUDA in providers and not frozen else ((), "")
    libraries = _libraries(cuda, with_tensorrt=TENSORRT in providers)
    return Facts(
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        system=platform.platform(),
        packages=packages,
        wheels=wheels,
        place=str(nvidia.imported_from() or ""),
        shadowed=nvidia.shadowed_wheels(),
        machine=describe(),
        import_error=import_error,
        onnxruntime=trial.get("version", ""),
        providers=providers,
        cuda=cuda,
        libraries={name: failure for name, failure in libraries.items() if name in needed},
        tensorrt={name: failure for name, failure in libraries.items() if name not in needed},
        gpus=gpus,
        nvidia_smi=nvidia_smi,
        kernels=native.kernels() or "",
        bf16_products=native.bf16_products(),
        left_out=native.left_out(),
        no_kernels=native.why_not() or "",
        kernel_remedy=native.remedy(),
        cuda_operators=operators,
        no_device=no_device,
    )


def _imported() -> tuple[dict[str, Any], str]:
    """What IMPORT_TRIAL says, in a program that has no other Python; of CUDA it is not asked."""
    try:
        import onnxruntime
    except ImportError as error:
        return {}, str(error)
    return {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}, ""


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Packages that import, by what they say of themselves: a program that was built whole has no metadata of most."""
    found = {}
    for name in names:
        with contextlib.suppress(ImportError):
            found[name] = str(importlib.import_module(name.replace("-", "_")).__version__)
    return found


def _cuda_operators() -> tuple[tuple[Operators, ...], str]:
    """Whether our own for CUDA run, on each GPU; and why CUDA shows none."""
    found, error = _try([sys.executable, "-P", "-c", OPERATORS_TRIAL, str(Path(nvidia.__file__).parents[2])])
    operators = tuple(Operators(**entry) for entry in found.get("devices", ()))
    return operators or (Operators(fp16=error),), str(found.get("hidden", ""))


def _libraries(cuda: str, *, with_tensorrt: bool) -> dict[str, str]:
    """Why each library that the NVIDIA providers need does not load, "" if it does; empty without CUDA."""
    names = nvidia.libraries("tensorrt" if with_tensorrt else "cuda", cuda)
    if not names:
        return {}
    failures, error = _try([sys.executable, "-P", "-c", CUDA_TRIAL, str(nvidia.__file__), *names])
    return {name: failures.get(name, error) for name in names}


def _gpus() -> tuple[tuple[str, ...], str]:
    """NVIDIA GPUs as nvidia-smi names them, and why there are none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return (), "is not installed"
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    output, error = _output(query)
    return tuple(output.splitlines()), "" if output else f"says: {error}"


def _try(command: list[str]) -> tuple[dict[str, Any], str]:
    """The JSON object a trial prints last, or why there is none."""
    output, error = _output(command)
    try:
        return json.loads(output.splitlines()[-1]), ""
    except (ValueError, IndexError):
        return {}, error or "it printed nothing"


def _output(command: list[str]) -> tuple[str, str]:
    """What a command prints, or in one line how it failed: its last words, or the signal that killed it."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TRIAL_SECONDS,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer in {TRIAL_SECONDS} s"
    except OSError as error:
        return "", str(error)
    if done.returncode == 0:
        return done.stdout.strip(), ""
    words = (done.stderr.strip() or done.stdout.strip()).splitlines()
    ended = f"crashed with signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return "", words[-1] if words and done.returncode > 0 else ended
