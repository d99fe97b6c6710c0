"""Tags and contents of wheels for other systems, without a cross compiler: what `make wheels` would refuse, and why."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import shared_libraries
from packaging.tags import parse_tag
from shared_libraries import Library
from wheel_contents import EXPORTED, EXPORTED_FOR_CUDA, built, complaints, library_complaints

from fastembed_rt import native
from fastembed_rt.native import build

runs = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads libraries of Linux")
GLIBC = Library(
    form="elf",
    machine="x86_64",
    needed=frozenset({"libc.so.6", "libpthread.so.0"}),
    versions=frozenset({"GLIBC_2.2.5", "GLIBC_2.16"}),
    exported=frozenset(EXPORTED),
)
MUSL = replace(GLIBC, needed=frozenset({"libc.so"}), versions=frozenset())
MACOS = Library(form="mach-o", machine="x86_64", needed=frozenset({"/usr/lib/libSystem.B.dylib"}), system=(11, 0))
ARM_GLIBC = replace(GLIBC, machine="aarch64", versions=frozenset({"GLIBC_2.17"}))
ARM_MACOS = replace(MACOS, machine="arm64")


@pytest.mark.parametrize("name", build.TARGETS)
def test_every_row_makes_tags_of_its_own_that_pip_reads(name: str) -> None:
    tags = {tag.platform for tag in parse_tag(f"py3-none-{build.TARGETS[name].tags}")}
    others = [
        tag.platform
        for other in build.TARGETS
        if other != name
        for tag in parse_tag(f"py3-none-{build.TARGETS[other].tags}")
    ]
    assert not tags & set(others)
    system, processor = name.split("-")[:2]
    assert all(tag.endswith({"windows": "win_amd64"}.get(system, processor)) for tag in tags)


@pytest.mark.parametrize("name", build.TARGETS)
def test_there_is_a_library_where_the_runtime_says_that_there_are_kernels(name: str) -> None:
    system, processor = name.split("-")[:2]
    said = native._why_missing({"macos": "darwin", "windows": "win32"}.get(system, system), processor)
    assert said.startswith("they were not compiled" if build.TARGETS[name].zig else "there are no kernels")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("linux-x86_64", GLIBC),
        ("linux-x86_64-musl", MUSL),
        ("macos-x86_64", MACOS),
        ("linux-aarch64", ARM_GLIBC),
        ("linux-aarch64-musl", replace(MUSL, machine="aarch64")),
        ("macos-arm64", ARM_MACOS),
    ],
)
def test_a_library_that_fits_has_no_complaints(tags: str, found: Library) -> None:
    assert list(library_complaints(found, build.TARGETS[tags].tags)) == []


@pytest.mark.parametrize(
    ("name", "found", "complaint"),
    [
        ("linux-x86_64", replace(GLIBC, machine="aarch64"), "its processor is aarch64"),
        ("linux-aarch64", GLIBC, "its processor is x86_64"),
        ("macos-arm64", MACOS, "its processor is x86_64"),
        ("linux-aarch64", replace(ARM_GLIBC, versions=frozenset({"GLIBC_2.18"})), "it needs GLIBC_2.18"),
        ("linux-x86_64", replace(GLIBC, needed=frozenset({"libgcc_s.so.1"})), "it needs libgcc_s.so.1"),
        ("linux-x86_64", replace(GLIBC, versions=frozenset({"GLIBC_2.18"})), "it needs GLIBC_2.18"),
        ("linux-x86_64", replace(GLIBC, versions=frozenset({"GLIBC_2.2.5", "GLIBC_3.0"})), "it needs GLIBC_3.0"),
        ("linux-x86_64", replace(GLIBC, versions=frozenset({"GCC_3.0"})), "it needs GCC_3.0"),
        ("linux-x86_64", replace(GLIBC, exported=frozenset({"RegisterCustomOps"})), "it exports RegisterCustomOps"),
        ("linux-x86_64", replace(GLIBC, kept=False), "it can be unloaded, while the system still calls it for forks"),
        ("linux-x86_64", replace(GLIBC, executable_stack=True), "it asks for an executable stack"),
        ("linux-x86_64", replace(MACOS, needed=frozenset()), "its format is mach-o"),
        ("linux-x86_64-musl", replace(MUSL, needed=frozenset({"libc.so.6"})), "it needs libc.so.6"),
        (
            "linux-x86_64-musl",
            replace(MUSL, versions=frozenset({"GLIBC_2.2.5"})),
            "it needs symbol versions GLIBC_2.2.5",
        ),
        ("macos-x86_64", replace(MACOS, system=(13, 0)), "it is for macOS 13.0 and later"),
        ("macos-x86_64", replace(MACOS, needed=frozenset({"@rpath/libomp.dylib"})), "it needs @rpath/libomp.dylib"),
    ],
)
def test_one_that_does_not_fit_is_told(name: str, found: Library, complaint: str) -> None:
    assert list(library_complaints(found, build.TARGETS[name].tags)) == [complaint]


@linux
@runs
def test_libraries_are_read_as_binutils_read_them() -> None:
    data = native.library().read_bytes()
    found = shared_libraries.read(data)

    def said(*command: str) -> str:
        return subprocess.run([*command, str(native.library())], capture_output=True, text=True, check=True).stdout

    try:
        symbols, dynamic, versions = said("nm", "-D"), said("readelf", "-d"), said("readelf", "-V")
    except FileNotFoundError:
        pytest.skip("no binutils")
    assert found.exported == {line.split()[2] for line in symbols.splitlines() if line.split()[1] == "T"}
    assert found.exported == EXPORTED, "what the sources say, or make wheels has complaints"
    assert found.needed == {line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line}
    named = (line.split("Name: ")[1].split()[0] for line in versions.splitlines() if "Name: GLIBC" in line)
    assert found.versions == set(named)
    assert found.kept == ("NODELETE" in dynamic)
    assert found.machine == platform.machine()
    assert not found.executable_stack


@linux
def test_the_operators_for_cuda_have_what_their_sources_say() -> None:
    file = build.HERE / build.CUDA_LIBRARY
    if not file.is_file():
        pytest.skip("not compiled here")
    assert shared_libraries.read(file.read_bytes()).exported == EXPORTED_FOR_CUDA


@linux
@runs
def test_an_executable_stack_and_one_that_can_be_unloaded_are_seen(tmp_path: Path) -> None:
    (tmp_path / "empty.c").write_text("int nothing;", encoding="utf-8")
    build._run(
        [
            *build._compiler(None),
            "-shared",
            "-fPIC",
            "-Wl,-z,execstack",
            "-o",
            str(tmp_path / "a.so"),
            str(tmp_path / "empty.c"),
        ]
    )
    found = shared_libraries.read((tmp_path / "a.so").read_bytes())
    assert found.executable_stack
    assert not found.kept
    assert "nothing" in found.exported


def test_what_is_no_library_is_refused() -> None:
    with pytest.raises(ValueError, match="neither ELF nor Mach-O"):
        shared_libraries.read(b"MZ\x90\x00\x03\x00")


def test_a_wheel_for_a_system_without_kernels_has_its_tag_and_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTEMBED_RT_TARGET", "windows-x86_64")
    wheel = built("wheel", tmp_path)
    assert wheel.name.endswith("-py3-none-win_amd64.whl")
    assert complaints(wheel, build.TARGETS["windows-x86_64"]) == []
    assert complaints(wheel, build.TARGETS["macos-x86_64"]) == [
        "its name says py3-none-win_amd64",
        "its tags are ['py3-none-win_amd64']",
        "its compiled files are []",
    ]
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"fastembed_rt/native/{native.LIBRARY}", b"")
    left = [f"its compiled files are ['fastembed_rt/native/{native.LIBRARY}']"]
    assert complaints(wheel, build.TARGETS["windows-x86_64"]) == left
