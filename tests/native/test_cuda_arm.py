"""The operators for CUDA on Arm servers (Grace, Jetson): cross-compiled with zig, opened under qemu."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fastembed_rt.native import build

ZIG = os.environ.get("FASTEMBED_RT_ZIG", "")
QEMU, SYSROOT = shutil.which("qemu-aarch64"), Path("/usr/aarch64-linux-gnu")
pytestmark = [
    pytest.mark.skipif(not ZIG, reason="no cross compiler: FASTEMBED_RT_ZIG names a Python with ziglang (make neon)"),
    pytest.mark.skipif(not QEMU, reason="no qemu-aarch64: install qemu-user"),
    pytest.mark.skipif(not (SYSROOT / "lib").is_dir(), reason=f"no C library of Arm in {SYSROOT}"),
]
ROOT, STAND_IN = Path(__file__).parents[2], Path(__file__).parents[1] / "cuda_stand_in"
COMPILE = """
import sys
from pathlib import Path
from fastembed_rt.native import build
print(build.build_cuda(Path(sys.argv[1]), target=build.TARGETS["linux-aarch64"]))
"""
PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **given) {
    void *library = dlopen(given[1], RTLD_NOW);
    if (!library || count != 3) return printf("%s", dlerror()), 1;
    const char *(*open)(const char *, const char *, int) = dlsym(library, "fastembed_rt_cuda_open");
    int (*capability)(int) = dlsym(library, "fastembed_rt_cuda_capability");
    size_t (*version)(void) = dlsym(library, "fastembed_rt_cuda_version");
    if (!dlsym(library, "RegisterCustomOps")) return 2;
    const char *why = open(given[2], given[2], 1);
    printf("%s|%d|%zu", why, capability(0), version());
    return 0;
}
"""


def test_the_library_of_the_arm_wheel_opens_what_stands_for_cuda(tmp_path: Path) -> None:
    library, stand_in, program = tmp_path / "operators.so", tmp_path / "stand_in.so", tmp_path / "program"
    (tmp_path / "program.c").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    compiler = [ZIG, "-m", "ziglang"]
    target = ["-target", "aarch64-linux-gnu.2.17"]
    includes = [f"-I{STAND_IN}", f"-I{build.SOURCES}/cuda"]
    c, cpp = str(tmp_path / "c.o"), str(tmp_path / "cpp.o")
    for command in (
        [ZIG, "-c", COMPILE, str(library)],
        [*compiler, "cc", *target, "-O1", "-fPIC", "-c", str(STAND_IN / "cublaslt.c"), "-o", c],
        [
            *compiler,
            "c++",
            *target,
            "-std=c++17",
            "-O1",
            "-fPIC",
            *includes,
            "-c",
            str(STAND_IN / "driver.cpp"),
            "-o",
            cpp,
        ],
        [*compiler, "c++", *target, "-shared", "-o", str(stand_in), c, cpp],
        [*compiler, "cc", *target, "-o", str(program), str(tmp_path / "program.c"), "-ldl"],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    command = [str(QEMU), "-L", str(SYSROOT), str(program), str(library), str(stand_in)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "|90|130000"), done.stderr
