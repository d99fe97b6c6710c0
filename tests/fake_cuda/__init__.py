"""CUDA without a GPU: libraries that let onnxruntime-gpu create sessions, to see that every node has a CUDA kernel.

gcc and nm make them of runtime.c and of the symbols that the provider's library lacks.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cuda_stand_in

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "runtime.c"
PROVIDER = "libonnxruntime_providers_cuda.so"
UNVERSIONED = ("libcuda.so.1", "libcudnn.so.9")
ALWAYS = ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1")


def build(python: str, into: Path) -> Path:
    """Libraries for the onnxruntime-gpu of a Python; the directory for LD_LIBRARY_PATH."""
    find = "import importlib.util; print(importlib.util.find_spec('onnxruntime').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", "--with-symbol-versions", str(Path(package) / "capi" / PROVIDER)],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted: dict[str, set[str]] = defaultdict(set)
    for line in listed.stdout.splitlines():
        found = re.fullmatch(r"\s+\w\s+(\w+)(?:@+(\S+))?", line)
        if found and (found[2] or "").startswith("libcu"):
            wanted[found[2]].add(found[1])
        elif found and found[2] is None and re.match(r"cu[A-Z]", found[1]):
            wanted["libcuda.so.1"].add(found[1])
    # cuDNN is opened by name at run time: every name of its functions that the provider knows.
    provider = (Path(package) / "capi" / PROVIDER).read_bytes()
    wanted["libcudnn.so.9"] = {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider)}
    head, *functions = re.split(r"(?m)^(?=(?:int|size_t|const char\*) \w+\()", SOURCE.read_text())
    written = {re.match(r"(?:int|size_t|const char\*) (\w+)", text)[1]: text for text in functions}  # type: ignore[index]
    written["cuInit"] = "int cuInit(unsigned f){return 0;}\n"
    written["cuDeviceGetCount"] = "int cuDeviceGetCount(int*n){*n=fake_devices();return 0;}\n"
    wanted["libcuda.so.1"] |= {"cuInit", "cuDeviceGetCount"}
    # Which our own operators call.
    wanted["libcublasLt.so.13"] |= set(cuda_stand_in.names("lt_names"))
    wanted["libcuda.so.1"] |= {*cuda_stand_in.names("cuda_names"), "cuDeviceGetName"}
    wanted["libcudart.so.13"] |= {
        "cudaHostRegister",
        "cudaHostUnregister",
        "cudaGetLastError",
        "cudaMemcpy",
        "cudaSetDevice",
        "cudaThreadExchangeStreamCaptureMode",
    }  # which this package calls
    state = into / "libfake_state.so"
    command = ["gcc", "-w", "-shared", "-fPIC", "-o", str(state), str(SOURCE.with_name("state.c")), "-lpthread"]
    subprocess.run(command, check=True)
    for library in {*ALWAYS, *wanted}:
        code = head + "".join(written.get(name, f"int {name}(void){{return 0;}}\n") for name in wanted[library])
        (into / "library.c").write_text(code)
        (into / "library.map").write_text(f"{library} {{ global: *; }};\n")
        command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(into / library)]
        versions = [] if library in UNVERSIONED else [f"-Wl,--version-script={into / 'library.map'}"]
        subprocess.run([*command, str(into / "library.c"), str(state), *versions], check=True)
    return into


def run(
    python: str,
    code: str,
    arguments: Sequence[object],
    work: Path,
    *,
    timeout: float = 300,
    devices: int = 1,
    capture_ms: int = 0,
    capability: int = 90,
    locks: bool = True,
) -> tuple[str, str]:
    """What code says on stdout and stderr, run by a Python with such libraries; its caches are `work` / "cache".

    There are so many `devices` of a compute capability, 90 for 9.0; a capture takes `capture_ms` more than it would;
    without `locks` no host memory is page-locked.

    Raises:
        AssertionError: it ended with an error.
    """
    libraries = work / "lib"
    libraries.mkdir(exist_ok=True)
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": str(build(python, libraries)),
        "PYTHONPATH": str(ROOT),
        "FASTEMBED_RT_CACHE": str(work / "cache"),
        "FAKE_CUDA_DEVICES": str(devices),
        "FAKE_CUDA_CAPTURE_MS": str(capture_ms),
        "FAKE_CUDA_CAPABILITY": str(capability),
        "FAKE_CUDA_LOCKS": str(int(locks)),
    }
    command = [python, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr
