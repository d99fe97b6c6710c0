"""Compiling the operators: the C sources of this package -> shared libraries beside this file, for CPUs and for CUDA.

Run by the build hook of the wheel (hatch_build.py); `python -m fastembed_rt.native.build` does it in a source tree.
For this machine with its C compiler, or for one of TARGETS with that of zig (PyPI's ziglang), which has the C libraries
of them all. Stands alone: a build environment has none of the runtime's packages.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = HERE / "src"
LIBRARY = "fastembed_rt_operators.so"
SYSTEMS = {"linux": "Linux", "darwin": "macOS"}  # which have kernels, on these processors
MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")

# No contraction: a product and a sum are one operation where the source says so and nowhere else, so that every
# instruction set gives the same bits.
FLAGS = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-fexceptions",  # those of onnxruntime's allocator pass through operators.c
    "-Wall",
    "-Wextra",
    "-Werror=implicit-function-declaration",
)
AVX2 = ("-mavx2", "-mfma")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni")
KERNELS = {
    "kernels_avx512vnni": AVX512,
    "kernels_avx512bf16": (*AVX512, "-mavx512bf16"),
    "kernels_amx": (*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
    "kernels_avxvnni": (*AVX2, "-mavxvnni"),
    "kernels_avx2": AVX2,
}
NEON_KERNELS = {  # gcc's header has the products of bytes from ARMv8.2 on
    "kernels_neoni8mm": ("-march=armv8.2-a+dotprod+i8mm",),
    "kernels_neondotprod": ("-march=armv8.2-a+dotprod",),
    "kernels_neon": ("-march=armv8-a",),
}
MODULES = (
    *("reader", "pages", "scratch", "shared", "layers", "create", "run", "selfcheck", "operators"),
    *("vocabulary", "wordpiece", "unigram", "bpe"),
)

# The operators for CUDA: plain C that finds CUDA's libraries when it is used, for every processor.
CUDA_LIBRARY = "fastembed_rt_cuda_operators.so"
CUDA_MODULES = ("reader", "cuda/libraries", "cuda/product", "cuda/device_kernels", "cuda/cuda_operators")
PTX = tuple(SOURCES / "cuda" / f"{name}.ptx" for name in ("kernels", "gated", "heads", "attention", "fp8"))

# Never unloaded: a C library before glibc 2.34 would still call what it has for forks (operators.c).
ELF = ("-Wl,-z,noexecstack", "-Wl,-z,nodelete")
LINKING = {"linux": ELF, "darwin": ()}


class Target(NamedTuple):
    """A system and processor that has a wheel of its own."""

    tags: str  # platforms of the wheel, as its name has them
    zig: str = ""  # what zig calls it, with the oldest C library; "" where there are no kernels and so no library
    linking: tuple[str, ...] = ELF


TARGETS = {
    "linux-x86_64": Target("manylinux2014_x86_64.manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17"),
    "linux-x86_64-musl": Target("musllinux_1_2_x86_64", "x86_64-linux-musl"),
    "linux-aarch64": Target("manylinux2014_aarch64.manylinux_2_17_aarch64", "aarch64-linux-gnu.2.17"),
    "linux-aarch64-musl": Target("musllinux_1_2_aarch64", "aarch64-linux-musl"),
    "macos-x86_64": Target("macosx_11_0_x86_64", "x86_64-macos.11.0", ()),
    "macos-arm64": Target("macosx_11_0_arm64", "aarch64-macos.11.0", ()),
    "windows-x86_64": Target("win_amd64"),
}


class BuildError(Exception):
    """The library cannot be made here; the message says why."""


def build(
    output: Path | None = None,
    kernels: Mapping[str, Sequence[str]] | None = None,
    extra: Sequence[str] = (),
    target: Target | None = None,
) -> Path:
    """Compile the library, beside this file unless `output` says where; its path.

    `kernels` are the flags of each instruction set, if not those that the processor's own have; `extra` those of
    everything, linking included. `target` is what to compile for with zig, instead of this machine with its compiler.

    Raises:
        BuildError: a system or processor without kernels, no compiler, or one that fails.
    """
    output = output or HERE / LIBRARY
    linking = LINKING.get(sys.platform, ()) if target is None else (*target.linking, "-s")
    with tempfile.TemporaryDirectory() as work:
        objects = compiled(Path(work), kernels, extra, target=target)
        made = Path(work) / LIBRARY
        link(made, objects, ("-shared", *linking, *extra), target)
        # Renamed into place: a process that has the old one mapped keeps it.
        beside = output.with_name(f".{output.name}.{os.getpid()}")
        shutil.copyfile(made, beside)
        beside.replace(output)
    return output


def compiled(
    directory: Path,
    kernels: Mapping[str, Sequence[str]] | None = None,
    extra: Sequence[str] = (),
    others: Sequence[Path] = (),
    plain: Sequence[str] = (),
    target: Target | None = None,
) -> list[Path]:
    """Compile the operators, and other sources against their headers, into objects in `directory`; their paths.

    `extra` are flags for all of them but the kernels where `plain` has flags for those. Kernels whose instructions this
    machine's compiler does not know are left out: the library has the others, and those for the oldest processors.

    Raises:
        BuildError: as for `build`.
    """
    compiler = _compiler(target)
    processor = "neon_processor" if _is_arm(target) else "processor"
    sources = [SOURCES / f"{name}.c" for name in (*MODULES, processor)] + list(others)
    kernels = kernels_of(target) if kernels is None else kernels
    # A wheel for others has them all, or is not made.
    left_out = _unknown_to(compiler, kernels, directory) if target is None else frozenset()
    jobs = [
        (name, SOURCES / "left_out.c", (*extra, f"-DKERNELS={name}"))
        if name in left_out
        else (name, SOURCES / "kernels.c", (*(plain or extra), *_spelled(flags, target), f"-DKERNELS={name}"))
        for name, flags in kernels.items()
    ]
    jobs += [(source.stem, source, (f"-I{SOURCES}", *extra)) for source in sources]
    objects = [directory / f"{name}.o" for name, _, _ in jobs]
    commands = [
        [*compiler, *FLAGS, *flags, "-c", str(source), "-o", str(made)]
        for (_, source, flags), made in zip(jobs, objects, strict=True)
    ]
    _run(*commands)
    return objects


def link(output: Path, objects: Sequence[Path], flags: Sequence[str] = (), target: Target | None = None) -> None:
    """Link objects into `output`, a program unless the flags say otherwise.

    Raises:
        BuildError: as for `build`.
    """
    _run([*_compiler(target), *flags, "-o", str(output), *map(str, objects), "-lm", "-lpthread"])


def kernels_of(target: Target | None = None) -> Mapping[str, Sequence[str]]:
    """The flags of each instruction set of a target's processor, or of this machine's."""
    return NEON_KERNELS if _is_arm(target) else KERNELS


def _unknown_to(compiler: Sequence[str], kernels: Mapping[str, Sequence[str]], directory: Path) -> frozenset[str]:
    """Of sets of kernels, those whose instructions a compiler does not know; never the last one, which is for all.

    gcc knows AVX512-BF16 and i8mm from version 10 on, AVX-VNNI and AMX from 11 on.
    """
    *newer, _ = kernels
    commands = [
        [*compiler, *FLAGS, *kernels[name], "-c", str(SOURCES / "probe.c"), "-o", str(directory / f"{name}.probe.o")]
        for name in newer
    ]
    with _side_by_side(commands) as running:
        for process in running:
            process.communicate()
    return frozenset(name for name, process in zip(newer, running, strict=True) if process.returncode)


def _is_arm(target: Target | None) -> bool:
    machine = platform.machine() if target is None else target.zig.partition("-")[0]
    return machine in ("aarch64", "arm64")


def _spelled(flags: Sequence[str], target: Target | None) -> list[str]:
    """Flags as the compiler has them: zig knows no -march of Arm's."""
    if target is None:
        return list(flags)
    return [re.sub(r"^-march=armv8(\.\d)?-a", "-mcpu=generic", flag) for flag in flags]


def for_cuda(target: Target | None = None) -> bool:
    """Whether there are operators for CUDA for a target, or for this machine: on Linux, whatever the processor."""
    return sys.platform == "linux" if target is None else "linux" in target.zig


def build_cuda(output: Path | None = None, extra: Sequence[str] = (), target: Target | None = None) -> Path:
    """Compile the library of the operators for CUDA, as `build` does the other; no part of CUDA is needed for it.

    Raises:
        BuildError: another system than Linux, no compiler, or one that fails.
    """
    if not for_cuda(target):
        raise BuildError("the operators for CUDA are for Linux")
    output = output or HERE / CUDA_LIBRARY
    compiler = c_compiler() if target is None else _compiler(target)
    with tempfile.TemporaryDirectory() as work:
        for file in PTX:
            name = f"{file.stem}_ptx"
            (Path(work) / f"{name}.h").write_text(_as_c_string(name, file.read_text(encoding="ascii")))
        made = Path(work) / CUDA_LIBRARY
        sources = [str(SOURCES / f"{name}.c") for name in CUDA_MODULES]
        linking = (*ELF, *(() if target is None else ("-s",)))
        flags = [*FLAGS, f"-I{work}", *extra, "-shared", *linking]
        _run([*compiler, *flags, "-o", str(made), *sources, "-ldl", "-lpthread"])
        beside = output.with_name(f".{output.name}.{os.getpid()}")
        shutil.copyfile(made, beside)
        beside.replace(output)
    return output


def _as_c_string(name: str, text: str) -> str:
    lines = [line.replace("\\", "\\\\").replace('"', '\\"') for line in text.splitlines()]
    return f"static const char {name}[] =\n" + "\n".join(f'"{line}\\n"' for line in lines) + ";\n"


def _compiler(target: Target | None) -> list[str]:
    if target is not None:
        if not target.zig:
            raise BuildError(f"there are no kernels for {target.tags} yet")
        return [sys.executable, "-m", "ziglang", "cc", "-target", target.zig]
    if sys.platform not in SYSTEMS or platform.machine() not in MACHINES:
        systems = " and ".join(SYSTEMS.values())
        here = f"{sys.platform} on {platform.machine()}"
        raise BuildError(f"the operators are for {systems} on x86-64 and Arm of 64 bits, this is {here}")
    return c_compiler()


def c_compiler() -> list[str]:
    """The words of this machine's C compiler: those of CC, which may be "ccache gcc", or the first that is installed.

    Raises:
        BuildError: there is none, or CC cannot be split into words.
    """
    named = os.environ.get("CC", "").strip()
    if named:
        try:
            return [named] if shutil.which(named) else shlex.split(named)  # a path may have spaces in it
        except ValueError as error:
            raise BuildError(f"CC is {named!r}, which is no command: {error}") from error
    found = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if found is None:
        raise BuildError("no C compiler: install gcc or clang, or name one in CC")
    return [found]


def _run(*commands: list[str]) -> None:
    """Run commands side by side. When one of them fails, the others are ended and waited for.

    Raises:
        BuildError: one failed, or its program does not run; with its last words.
    """
    with _side_by_side(commands) as running:
        for command, process in zip(commands, running, strict=True):
            _, errors = process.communicate()
            if process.returncode:
                raise BuildError(f"{' '.join(command)} failed:\n{errors.strip()[-2000:]}")


@contextmanager
def _side_by_side(commands: Sequence[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that run; those that still do at the end are ended and waited for.

    Raises:
        BuildError: a program does not run.
    """
    running: list[subprocess.Popen[str]] = []
    try:
        running.extend(map(_started, commands))
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with what the compiler has started
            with process:  # waits, and closes the pipe
                pass


def _started(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0)
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror or error}") from error


if __name__ == "__main__":
    try:
        print(build())
        if for_cuda():
            print(build_cuda())
    except BuildError as error:
        sys.exit(f"error: {error}")
