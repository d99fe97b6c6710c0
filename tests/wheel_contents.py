"""Whether a wheel holds what its tags promise: a library where there are kernels, that runs where the tags say."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import shared_libraries

from fastembed_rt.native import build

ROOT = Path(__file__).parents[1]


def exported_by(modules: Iterable[str]) -> set[str]:
    """The functions that the C sources say a library has for others."""
    sources = [(build.SOURCES / f"{name}.c").read_text(encoding="utf-8") for name in modules]
    return {name for source in sources for name in re.findall(r"^EXPORTED [^(]*?(\w+)\(", source, flags=re.MULTILINE)}


EXPORTED, EXPORTED_FOR_CUDA = exported_by(build.MODULES), exported_by(build.CUDA_MODULES)
# Libraries that every system of a tag has, and nothing beside them.
ALLOWED = {
    "manylinux": {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"},
    "musllinux": {"libc.so"},
    "macosx": {"/usr/lib/libSystem.B.dylib"},
}


def built(kind: str, out: Path) -> Path:
    """The one file that `python -m build` makes of the source tree, a wheel or an sdist."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (made,) = out.iterdir()
    return made


def complaints(wheel: Path, target: build.Target) -> list[str]:
    """What is wrong with a wheel made for a target, a sentence each; empty where nothing is."""
    return list(_complaints(wheel, target))


def library(wheel: Path, file: str = build.LIBRARY) -> bytes | None:
    """The compiled operators in a wheel, if they are: those for CPUs, or another library's."""
    with zipfile.ZipFile(wheel) as archive:
        name = f"fastembed_rt/native/{file}"
        return archive.read(name) if name in archive.namelist() else None


def _complaints(wheel: Path, target: build.Target) -> Iterator[str]:
    wanted = {f"py3-none-{platform}" for platform in target.tags.split(".")}
    named = wheel.stem.split("-", 2)[2]
    if named != f"py3-none-{target.tags}":
        yield f"its name says {named}"
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        lines = archive.read(record).decode().splitlines()
        compiled = [name for name in archive.namelist() if Path(name).suffix in (".so", ".dylib", ".dll", ".pyd", ".o")]
    tags = {line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: ")}
    if tags != wanted:
        yield f"its tags are {sorted(tags)}"
    if "Root-Is-Purelib: false" not in lines:
        yield "it says that it is for any system"
    libraries = {build.LIBRARY: EXPORTED} if target.zig else {}
    if build.for_cuda(target):
        libraries[build.CUDA_LIBRARY] = EXPORTED_FOR_CUDA
    if sorted(compiled) != sorted(f"fastembed_rt/native/{file}" for file in libraries):
        yield f"its compiled files are {compiled}"
    for file, exported in libraries.items():
        data = library(wheel, file)
        if data is not None:
            yield from library_complaints(shared_libraries.read(data), target.tags, exported)


def library_complaints(found: shared_libraries.Library, tags: str, exported: set[str] = EXPORTED) -> Iterator[str]:
    """What of a library does not fit the platforms of a wheel."""
    platform = tags.partition("_")[0].rstrip("0123456789")
    if not tags.endswith(f"_{found.machine}"):
        yield f"its processor is {found.machine}"
    if found.form != ("mach-o" if platform == "macosx" else "elf"):
        yield f"its format is {found.form}"
    if stray := found.needed - ALLOWED[platform]:
        yield f"it needs {', '.join(sorted(stray))}"
    if found.form == "elf" and found.exported != exported:
        yield f"it exports {', '.join(sorted(found.exported))}"
    if not found.kept:
        yield "it can be unloaded, while the system still calls it for forks"
    if found.executable_stack:
        yield "it asks for an executable stack"
    if platform == "macosx" and found.system > _version(tags, r"macosx_(\d+)_(\d+)_"):
        yield f"it is for macOS {found.system[0]}.{found.system[1]} and later"
    if platform == "musllinux" and found.versions:
        yield f"it needs symbol versions {', '.join(sorted(found.versions))}"
    if platform == "manylinux":
        oldest = _version(tags, r"manylinux_(\d+)_(\d+)_")
        for name in sorted(found.versions):
            if not name.startswith("GLIBC_") or _version(f"{name}_", r"GLIBC_(\d+)\.(\d+)") > oldest:
                yield f"it needs {name}"


def _version(text: str, pattern: str) -> tuple[int, int]:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{text} has no {pattern}")
    return int(found[1]), int(found[2])
