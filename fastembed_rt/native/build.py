"""Compiling the operators: the C sources of this package -> one shared library beside this file.

Run by the build hook of the wheel (hatch_build.py); `python -m fastembed_rt.native.build` does it in a source tree.
Stands alone: a build environment has none of the runtime's packages.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "src"
LIBRARY = "fastembed_rt_operators.so"
MACHINES = ("x86_64", "AMD64")

# No contraction: a product and a sum are one operation where the source says so and nowhere else, so that every
# instruction set gives the same bits.
FLAGS = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
)
AVX2 = ("-mavx2", "-mfma")
KERNELS = {
    "kernels_avx512vnni": (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
    "kernels_avxvnni": (*AVX2, "-mavxvnni"),
    "kernels_avx2": AVX2,
}


MODULES = ("reader", "layers", "operators")


class BuildError(Exception):
    """The library cannot be made here; the message says why."""


def build(
    output: Path | None = None, kernels: Mapping[str, Sequence[str]] = KERNELS, extra: Sequence[str] = ()
) -> Path:
    """Compile the library, beside this file unless `output` says where; its path.

    `kernels` are the flags of each instruction set, `extra` those of everything, linking included.

    Raises:
        BuildError: another system or processor than Linux on x86-64, no compiler, or one that fails.
    """
    output = output or HERE / LIBRARY
    with tempfile.TemporaryDirectory() as work:
        objects = compiled(Path(work), kernels, extra)
        made = Path(work) / LIBRARY
        link(made, objects, ("-shared", "-Wl,-z,noexecstack", *extra))
        # Renamed into place: a process that has the old one mapped keeps it.
        beside = output.with_name(f".{output.name}.{os.getpid()}")
        shutil.copyfile(made, beside)
        beside.replace(output)
    return output


def compiled(
    directory: Path,
    kernels: Mapping[str, Sequence[str]] = KERNELS,
    extra: Sequence[str] = (),
    others: Sequence[Path] = (),
    plain: Sequence[str] = (),
) -> list[Path]:
    """Compile the operators, and other sources against their headers, into objects in `directory`; their paths.

    `extra` are flags for all of them but the kernels where `plain` has flags for those.

    Raises:
        BuildError: as for `build`.
    """
    compiler = _compiler()
    sources = [SOURCES / f"{name}.c" for name in MODULES] + list(others)
    jobs = [
        (name, SOURCES / "kernels.c", (*(plain or extra), *flags, f"-DKERNELS={name}"))
        for name, flags in kernels.items()
    ]
    jobs += [(source.stem, source, (f"-I{SOURCES}", *extra)) for source in sources]
    objects = [directory / f"{name}.o" for name, _, _ in jobs]
    commands = [
        [compiler, *FLAGS, *flags, "-c", str(source), "-o", str(made)]
        for (_, source, flags), made in zip(jobs, objects, strict=True)
    ]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for command, process in zip(commands, running, strict=True):
        _, errors = process.communicate()
        if process.returncode:
            raise BuildError(f"{' '.join(command)} failed:\n{errors.strip()[-2000:]}")
    return objects


def link(output: Path, objects: Sequence[Path], flags: Sequence[str] = ()) -> None:
    """Link objects into `output`, a program unless the flags say otherwise.

    Raises:
        BuildError: as for `build`.
    """
    _run([_compiler(), *flags, "-o", str(output), *map(str, objects), "-lm", "-lpthread"])


def _compiler() -> str:
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise BuildError(f"the operators are for Linux on x86-64, this is {sys.platform} on {platform.machine()}")
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise BuildError("no C compiler: install gcc or clang, or name one in CC")
    return compiler


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        sys.exit(f"error: {error}")
