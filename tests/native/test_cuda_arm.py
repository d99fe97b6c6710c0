"""The operators for CUDA on Arm (Grace, Jetson): the library of the wheel, run under qemu beside that of x86.

`make neon` runs this: FASTEMBED_RT_ZIG is a Python that has ziglang, which compiles; qemu-aarch64 and the C library
for Arm are of the system (Debian: qemu-user, libc6-arm64-cross), the latter in FASTEMBED_RT_ARM_ROOT if elsewhere.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cuda_stand_in
import numpy as np
import numpy.typing as npt
import pytest

from fastembed_rt.native import build

ZIG = os.environ.get("FASTEMBED_RT_ZIG", "")
QEMU = shutil.which("qemu-aarch64")
ROOT = Path(os.environ.get("FASTEMBED_RT_ARM_ROOT", "/usr/aarch64-linux-gnu"))
pytestmark = [
    pytest.mark.skipif(not ZIG, reason="no cross compiler: FASTEMBED_RT_ZIG names a Python with ziglang (make neon)"),
    pytest.mark.skipif(not QEMU, reason="no qemu-aarch64: install qemu-user"),
    pytest.mark.skipif(not (ROOT / "lib").is_dir(), reason=f"no C library for Arm in {ROOT}"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compares with x86"),
]
TARGET = "linux-aarch64"
COMPILE = """
import sys
from pathlib import Path
from fastembed_rt.native import build
build.build_cuda(Path(sys.argv[1]), target=build.TARGETS[sys.argv[2]])
"""


def built(into: Path, compiler: list[str] | None) -> list[str]:
    """The harness with its two libraries, for Arm with a compiler of zig's, else for this machine: a command."""
    operators, harness = into / "operators.so", into / "harness"
    if compiler is None:
        build.build_cuda(operators)
    else:
        environment = {**os.environ, "PYTHONPATH": str(Path(build.__file__).parents[2])}
        subprocess.run([ZIG, "-c", COMPILE, str(operators), TARGET], env=environment, check=True)
    stand_in = cuda_stand_in.build(into, compiler)
    c = ["gcc"] if compiler is None else [compiler[0], "-m", "ziglang", "cc", *compiler[1:]]
    source = cuda_stand_in.HERE / "harness.c"
    flags = ["-std=gnu11", "-O1", "-w", f"-I{build.SOURCES}"]
    subprocess.run([*c, *flags, "-o", str(harness), str(source), "-ldl"], check=True)
    return [str(harness), str(operators), str(stand_in)]


def said(command: list[str]) -> list[tuple[str, str]]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in done.stdout.splitlines())]


def numbers(name: str, text: str) -> npt.NDArray[Any]:
    """Outputs of float32 as floats, all others as integers in whose order the numbers of a sign are."""
    floats = name.startswith(("Mean", "WordWeights", "Unit", "Dense"))
    small = name in ("Fp8LinearFp8", "Fp8AddNorm", "Fp8Quantize")
    return np.frombuffer(bytes.fromhex(text), np.float32 if floats else np.int8 if small else np.int16)


def test_the_library_for_arm_computes_what_that_for_x86_does(tmp_path: Path) -> None:
    for name in ("x86", "arm"):
        (tmp_path / name).mkdir()
    here = said(built(tmp_path / "x86", None))
    there = said([str(QEMU), "-L", str(ROOT), *built(tmp_path / "arm", [ZIG, "-target", build.TARGETS[TARGET].zig])])
    assert [name for name, _ in here] == [name for name, _ in there]
    assert len(here) == 2 * 10 + 5 + 1
    assert here[-1] == there[-1]
    assert "out_features is 12 and has to be a multiple of 8" in here[-1][1]
    for (name, x86), (_, arm) in zip(here[:-1], there[:-1], strict=True):
        left, right = numbers(name, x86), numbers(name, arm)
        assert len(left) == len(right) > 30, x86[:200]
        assert len(set(left.tolist())) > 10, name
        # Where libraries of mathematics differ in a last place, so may a result.
        if left.dtype == np.float32:
            np.testing.assert_allclose(left, right, rtol=2e-6, atol=1e-6, err_msg=name)
        else:
            assert np.abs(left.astype(np.int64) - right).max() <= 1, name
