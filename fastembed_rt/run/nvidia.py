"""Why an NVIDIA provider does not run here: which wheel, library or device is missing, and what to do about it.

onnxruntime itself only says that nodes went to the CPU. Nothing here is imported or opened before it is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

NVIDIA = ("cuda", "tensorrt")  # the providers that this module knows; doctor runs its file alone
CUDNN = 9  # major of the cuDNN that onnxruntime is built for since 1.19
TENSORRT = 10  # and of TensorRT; 11 has other library names and does not load
INSTALL_LIBRARIES = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
VISIBLE = "CUDA_VISIBLE_DEVICES"
INSTALL_DRIVER = "install the NVIDIA driver; in a container, pass the GPU in (docker run --gpus all)"
# What cuInit returns (cuda.h).
CUDA_ERRORS = {
    34: "the driver library is a stub",
    100: "no CUDA-capable device",
    101: "an invalid device in CUDA_VISIBLE_DEVICES",
    802: "the GPU is not ready yet",
    803: "driver and kernel module are of different versions",
    804: "this driver does not run this CUDA on this GPU",
    999: "the driver failed for an unknown reason",
}


@dataclass(frozen=True)
class Missing:
    """What is missing, and the cure."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


def distributions() -> tuple[dict[str, str], dict[str, str]]:
    """Installed distributions, and of them those that wrote the `onnxruntime` which is imported: name -> version."""
    packages, wheels = _distributions()
    return packages, dict(sorted(wheels.get(imported_from(wheels) or Path(), {}).items()))


def shadowed_wheels() -> dict[str, str]:
    """Wheels of onnxruntime in other directories of the path than the one it is imported from: "name version" -> where.

    They are in nobody's way.
    """
    wheels = _distributions()[1]
    first = imported_from(wheels)
    return {
        f"{name} {version}": str(folder)
        for folder, found in wheels.items()
        if folder != first
        for name, version in found.items()
    }


def imported_from(folders: Iterable[Path] = ()) -> Path | None:
    """The directory of the path that `onnxruntime` is imported from; where it is nowhere, the first of `folders`."""
    spec = PathFinder.find_spec("onnxruntime")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).resolve().parents[1]
    return next(iter(folders), None)


def _distributions() -> tuple[dict[str, str], dict[Path, dict[str, str]]]:
    """Installed distributions: name -> version; and by directory, those that bring the package `onnxruntime`."""
    import importlib.metadata  # slow, and for errors only

    packages: dict[str, str] = {}
    wheels: dict[Path, dict[str, str]] = {}
    for distribution in importlib.metadata.distributions():
        metadata_name = distribution.metadata["Name"]
        if not metadata_name:  # a damaged installation has metadata without a name
            continue
        name = re.sub(r"[-_.]+", "-", metadata_name).lower()
        packages.setdefault(name, distribution.version)  # the first on the path is the one imported
        # Some names begin alike and are other packages (onnxruntime-extensions, onnxruntime-genai).
        files = {str(file) for file in distribution.files or ()} if name.startswith(("onnxruntime", "ort-")) else ()
        if "onnxruntime/__init__.py" in files:
            folder = Path(str(distribution.locate_file(""))).resolve()
            wheels.setdefault(folder, {}).setdefault(name, distribution.version)
    return packages, wheels


def wheel(provider: str, onnxruntime_name: str, available: Iterable[str], package: str) -> Missing:
    """Why an onnxruntime lacks a provider: another wheel, or one written over the right one."""
    _, wheels = distributions()
    gpu = [name for name in wheels if name.endswith("-gpu")]
    what = f"provider {provider!r} is not in this onnxruntime ({', '.join(available)})"
    if provider in NVIDIA and gpu and len(wheels) > 1:
        installed = " and ".join(f"{name} {version}" for name, version in wheels.items())
        what += f": {installed} are both installed and overwrite each other's files"
        return Missing(what, f'pip uninstall -y {" ".join(wheels)}, then pip install "{package}"')
    if provider in NVIDIA and gpu:
        what += f": {gpu[0]} {wheels[gpu[0]]} is installed, but its files have no {onnxruntime_name}"
        return Missing(what, f'pip uninstall -y {gpu[0]}, then pip install "{package}"')
    return Missing(what, f"install {package}")


def libraries(provider: str, cuda: str) -> tuple[str, ...]:
    """Libraries that a provider of an onnxruntime built for this CUDA ("13.0") needs; none where it says no version."""
    major = cuda.partition(".")[0]
    if not major:
        return ()
    if sys.platform == "win32":
        names = (f"cudart64_{major}.dll", f"cublasLt64_{major}.dll", f"cublas64_{major}.dll", f"cudnn64_{CUDNN}.dll")
        return (*names, f"nvinfer_{TENSORRT}.dll") if provider == "tensorrt" else names
    # As `readelf -d libonnxruntime_providers_cuda.so` lists them; cuDNN is opened later.
    names = tuple(f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas"))
    names = (*names, "libcurand.so.10", f"libcudnn.so.{CUDNN}")
    if provider == "tensorrt":
        names = (*names, f"libnvinfer.so.{TENSORRT}", f"libnvonnxparser.so.{TENSORRT}")
    return names


def preload(onnxruntime: Any) -> None:
    """Load the CUDA, cuDNN and TensorRT libraries that pip installed, which no loader searches; what fails is found
    by `find`."""
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
    spec = importlib.util.find_spec("tensorrt_libs")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in (f"libnvinfer.so.{TENSORRT}", f"libnvonnxparser.so.{TENSORRT}"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(Path(folder) / name), mode=ctypes.RTLD_GLOBAL)


def failures(names: Iterable[str]) -> dict[str, str]:
    """Why each library does not load, "" if it does."""
    found = {}
    for name in names:
        try:
            ctypes.CDLL(name)
            found[name] = ""
        except OSError as error:
            found[name] = str(error).removeprefix(f"{name}: ")
    return found


def find(provider: str, onnxruntime: Any, device: int = 0) -> Missing | None:
    """The first thing that keeps an NVIDIA provider of this onnxruntime from running on a device, if one is known."""
    cuda = getattr(onnxruntime, "cuda_version", "") or ""
    for name, failure in failures(libraries(provider, cuda)).items():
        if failure:
            return library(name, failure, cuda, distributions()[0])
    count, why = devices()
    if not count:
        return Missing(f"no GPU: {why}", show_devices())
    if device >= count:
        what = f"no GPU {device}: the driver shows {count}, counted from 0"
        hidden = os.environ.get(VISIBLE)
        return Missing(
            what, "choose one of those" + (f", or change {VISIBLE}={hidden!r}" if hidden is not None else "")
        )
    return None


def show_devices() -> str:
    """The cure where the driver shows no device: it is asked not to, or is not there."""
    hidden = os.environ.get(VISIBLE)
    if hidden is None:
        return INSTALL_DRIVER
    return f"{VISIBLE} is {hidden!r}: unset it, or name there what nvidia-smi -L lists (of MIG, one instance a process)"


def library(name: str, failure: str, cuda: str, packages: Mapping[str, str]) -> Missing:
    """A library that does not load: not installed, or of another major."""
    what = f"{name} does not load: {failure}"
    if "nv" in name.partition("lib")[2][:2] or name.startswith("nvinfer"):
        others = _versions(packages, r"tensorrt(-cu\d+)?(-libs)?", TENSORRT)
        what += f"; this onnxruntime is built for TensorRT {TENSORRT}{others}"
        return Missing(what, f'pip install "tensorrt-cu{cuda.partition(".")[0]}=={TENSORRT}.*"')
    if "cudnn" in name:
        what += f"; this onnxruntime is built for cuDNN {CUDNN}{_versions(packages, r'nvidia-cudnn.*', CUDNN)}"
        return Missing(what, INSTALL_LIBRARIES)
    major = int(cuda.partition(".")[0])
    others = _versions(packages, r"nvidia-(cublas|cuda-runtime).*", major)
    return Missing(f"{what}; this onnxruntime is built for CUDA {major}{others}", INSTALL_LIBRARIES)


@cache
def devices() -> tuple[int, str]:
    """How many GPUs the driver shows, and why none; asked once a process, since it starts the driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0, f"there is no NVIDIA driver ({name} does not load)"
    status = int(driver.cuInit(0))
    if status:
        return 0, CUDA_ERRORS.get(status, f"cuInit fails with error {status}")
    count = ctypes.c_int(0)
    status = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    return (count.value, "") if status == 0 and count.value else (0, "the driver shows no device")


@cache
def device_name(device: int) -> str:
    """What the driver calls a GPU, "" where there is none."""
    if device >= devices()[0]:
        return ""
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    handle, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(handle), device) or driver.cuDeviceGetName(name, len(name), handle):
        return ""
    return name.value.decode(errors="replace")


def _versions(packages: Mapping[str, str], pattern: str, wanted: int) -> str:
    """Installed packages of another major than the one wanted, for a message."""
    others = sorted(
        f"{name} {version}"
        for name, version in packages.items()
        if re.fullmatch(pattern, name) and version.partition(".")[0] != str(wanted)
    )
    return f", and installed is {', '.join(others)}" if others else ""
