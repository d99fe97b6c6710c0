"""The doctor: right verdicts on pretended installations, the commands that cure them, and its exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastembed_rt
from fastembed_rt import native
from fastembed_rt.cli import doctor
from fastembed_rt.cli.doctor import Finding, diagnose
from fastembed_rt.cli.environment import Facts, Operators, gather
from fastembed_rt.machine import Cpu, Machine
from fastembed_rt.run import nvidia

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


def test_a_healthy_installation_has_nothing_to_fix() -> None:
    findings = diagnose(HEALTHY)
    assert {finding.level for finding in findings} == {"ok"}
    assert [finding.fix for finding in findings if finding.fix] == []


def test_versions_are_listed_and_what_is_missing_says_what_it_is_for() -> None:
    facts = dataclasses.replace(HEALTHY, packages={**HEALTHY.packages, "torch": "2.13.0"})
    assert row(facts, "numpy").what == "2.4.6"
    assert row(facts, "torch").what == "2.13.0"
    assert row(facts, "onnx") == Finding(level="ok", check="onnx", what="not installed (only for: export)")
    assert row(facts, "python").what == "3.12.1 (CPython) on Linux-6.1-x86_64"
    assert row(facts, "fastembed-rt").what == fastembed_rt.__version__


@pytest.mark.parametrize("name", ["numpy", "tokenizers", "huggingface-hub"])
def test_a_missing_dependency_is_a_problem(name: str) -> None:
    packages = {package: version for package, version in HEALTHY.packages.items() if package != name}
    facts = dataclasses.replace(HEALTHY, packages=packages)
    assert problems(facts) == [name]
    assert row(facts, name).fix == f"pip install {name}"


def test_no_onnxruntime_names_both_extras() -> None:
    facts = dataclasses.replace(HEALTHY, wheels={}, onnxruntime="", providers=(), import_error="not installed")
    assert problems(facts) == ["onnxruntime"]
    fix = row(facts, "onnxruntime").fix
    assert 'pip install "fastembed-rt[cpu]"' in fix
    assert 'pip install "fastembed-rt[gpu]"' in fix


def test_two_wheels_that_overwrite_each_other_are_a_problem_even_if_they_import() -> None:
    facts = dataclasses.replace(GPU, wheels={"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"})
    found = row(facts, "onnxruntime")
    assert found.level == "problem"
    assert "onnxruntime 1.32.0, onnxruntime-gpu 1.31.0" in found.what
    assert found.fix.startswith('pip uninstall -y onnxruntime onnxruntime-gpu  then: pip install "fastembed-rt[gpu]"')


@pytest.mark.parametrize("other", ["onnxruntime-openvino", "onnxruntime-directml", "ort-nightly"])
def test_of_clashing_wheels_the_special_one_is_kept(other: str) -> None:
    facts = dataclasses.replace(HEALTHY, wheels={"onnxruntime": "1.32.0", other: "1.24.1"})
    assert row(facts, "onnxruntime").fix.startswith(f"pip uninstall -y onnxruntime {other}  then: pip install {other}")


def test_an_onnxruntime_that_does_not_import_is_reinstalled() -> None:
    facts = dataclasses.replace(HEALTHY, import_error="ImportError: libgomp.so.1", providers=())
    found = row(facts, "onnxruntime")
    assert found.level == "problem"
    assert "libgomp.so.1" in found.what
    assert found.fix == 'pip uninstall -y onnxruntime  then: pip install "fastembed-rt[cpu]"'


def test_an_onnxruntime_built_by_hand_is_fine() -> None:
    assert row(dataclasses.replace(HEALTHY, wheels={}), "onnxruntime").what == "1.32.0 (no wheel)"


@pytest.mark.parametrize(
    ("instruction_sets", "level", "verdict"),
    [
        (("avx2", "avx512f", "avx512_vnni"), "ok", "full speed with AVX512-VNNI"),
        (("avx2", "avx512_vnni", "amx_int8"), "ok", "full speed with AMX"),
        (("avx2", "avx_vnni"), "ok", "full speed with AVX-VNNI"),
        (("asimd", "asimddp", "i8mm"), "ok", "full speed with ARM dot products"),
        (("avx2", "fma"), "note", "AVX2 without VNNI: INT8 runs right but slower"),
        (("avx2", "avx512f"), "note", "AVX2 without VNNI: INT8 runs right but slower"),
        ((), "note", "no AVX2, VNNI or ARM dot products: INT8 is slow"),
    ],
)
def test_the_instruction_sets_decide_about_int8(instruction_sets: tuple[str, ...], level: str, verdict: str) -> None:
    found = row(with_cpu(*instruction_sets), "int8")
    assert (found.level, found.what) == (level, verdict)
    assert bool(found.fix) == (level == "note")


def test_unknown_instruction_sets_are_no_verdict() -> None:
    assert row(with_cpu(known=False), "int8").what == "this system lists no instruction sets"


def test_the_cpu_is_named_with_its_instruction_sets() -> None:
    assert row(HEALTHY, "cpu").what == "AuthenticAMD EPYC: avx2, avx512_vnni, avx512f"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"affinity": 16}, "16 (the host has 16 CPUs)"),
        ({"affinity": None}, "16 (the host has 16 CPUs)"),
        ({}, "8 (CPU affinity allows 8)"),
        ({"quota": 2.5}, "2 (the cgroup's CPU quota grants 2.5)"),
        ({"quota": 32.0}, "8 (CPU affinity allows 8)"),
    ],
)
def test_the_thread_budget_comes_with_its_reason(changes: dict[str, Any], what: str) -> None:
    assert row(with_machine(**changes), "threads") == Finding(level="ok", check="threads", what=what)


def test_less_than_one_cpu_is_worth_a_note() -> None:
    found = row(with_machine(quota=0.5), "threads")
    assert found.level == "note"
    assert found.what.startswith("1 (the cgroup's CPU quota grants 0.5)")
    assert "CPU limit" in found.fix


def test_the_memory_limit_is_told() -> None:
    assert row(HEALTHY, "memory").what == "no limit (the host has 64.0 GiB)"
    assert row(with_machine(memory=None), "memory").what == "no limit (the host does not tell)"
    limited = row(with_machine(memory_limit=2 * GIB), "memory")
    assert (limited.level, limited.what) == ("ok", "the cgroup grants 2.0 GiB (the host has 64.0 GiB)")


def test_too_little_memory_is_worth_a_note() -> None:
    found = row(with_machine(memory_limit=256 << 20), "memory")
    assert (found.level, bool(found.fix)) == ("note", True)


# CUDA


def test_a_healthy_gpu_has_nothing_to_fix() -> None:
    findings = diagnose(GPU)
    assert {finding.level for finding in findings} == {"ok"}
    assert row(GPU, "gpu").what == "NVIDIA L4, 23034 MiB, 580.82"
    assert row(GPU, "cuda wheels").what == "nvidia-cublas 13.1.0, nvidia-cudnn-cu13 9.15.0"
    loaded = [finding.what for finding in findings if finding.check == "cuda library"]
    assert loaded == [f"{library} loads" for library in CUDA_LIBRARIES]


def test_a_library_that_does_not_load_is_a_problem_where_there_is_a_gpu() -> None:
    facts = dataclasses.replace(GPU, libraries={**CUDA_LIBRARIES, "libcudnn.so.9": "cannot open"})
    (found,) = [finding for finding in diagnose(facts) if finding.level == "problem"]
    assert found.what == "libcudnn.so.9 does not load: cannot open; this onnxruntime is built for cuDNN 9"
    assert found.fix == 'pip install "onnxruntime-gpu[cuda,cudnn]"'


def test_onnxruntime_gpu_without_a_gpu_is_worth_notes_only() -> None:
    failing = {"libcudart.so.13": "cannot open"}
    facts = dataclasses.replace(GPU, gpus=(), nvidia_smi="is not installed", libraries=failing)
    assert problems(facts) == []
    found = row(facts, "gpu")
    assert found.level == "note"
    assert "nvidia-smi is not installed" in found.what
    assert "--gpus all" in found.fix


def test_a_gpu_wheel_whose_files_were_overwritten_is_a_problem() -> None:
    facts = dataclasses.replace(GPU, providers=("CPUExecutionProvider",))
    assert problems(facts) == ["cuda"]
    assert "CUDAExecutionProvider" in row(facts, "cuda").what
    assert "pip uninstall -y onnxruntime-gpu" in row(facts, "cuda").fix


def test_a_gpu_that_onnxruntime_cannot_use_is_worth_a_note() -> None:
    facts = dataclasses.replace(HEALTHY, gpus=GPU.gpus, nvidia_smi="")
    assert problems(facts) == []
    assert row(facts, "cuda").level == "note"
    assert row(facts, "cuda").fix == 'pip uninstall -y onnxruntime  then: pip install "fastembed-rt[gpu]"'


@pytest.mark.parametrize(
    ("library", "packages", "said", "fix"),
    [
        ("libcublas.so.13", {"nvidia-cublas-cu12": "12.8.4"}, "CUDA 13, and installed is nvidia-cublas-cu12", "[cuda"),
        ("libcudnn.so.9", {"nvidia-cudnn-cu12": "8.9.7"}, "cuDNN 9, and installed is nvidia-cudnn-cu12 8.9.7", "[cuda"),
    ],
)
def test_a_library_of_another_major_is_named(library: str, packages: dict[str, str], said: str, fix: str) -> None:
    facts = dataclasses.replace(GPU, packages={**HEALTHY.packages, **packages}, libraries={library: "cannot open"})
    found = row(facts, "cuda library")
    assert (found.level, said in found.what, fix in found.fix) == ("problem", True, True)


def test_without_tensorrt_a_note_says_what_to_install_for_it() -> None:
    packages = {**GPU.packages, "tensorrt-cu13": "11.0.1"}
    facts = dataclasses.replace(GPU, packages=packages, tensorrt={"libnvinfer.so.10": "cannot open"})
    assert problems(facts) == []
    found = row(facts, "tensorrt library")
    assert "built for TensorRT 10, and installed is tensorrt-cu13 11.0.1" in found.what
    assert found.fix == 'pip install "tensorrt-cu13==10.*"'


def test_cuda_libraries_of_the_system_are_an_answer_too() -> None:
    facts = dataclasses.replace(GPU, packages=HEALTHY.packages)
    assert row(facts, "cuda wheels").what.startswith("none")


@pytest.mark.parametrize(
    "facts",
    [
        dataclasses.replace(HEALTHY, packages={}),
        dataclasses.replace(HEALTHY, wheels={"onnxruntime": "1", "onnxruntime-gpu": "1"}),
        dataclasses.replace(HEALTHY, wheels={}, import_error="not installed"),
        dataclasses.replace(GPU, libraries=dict.fromkeys(CUDA_LIBRARIES, "cannot open"), providers=()),
    ],
)
def test_every_problem_comes_with_a_cure(facts: Facts) -> None:
    found = [finding for finding in diagnose(facts) if finding.level == "problem"]
    assert found
    assert all(finding.fix for finding in found)


# The command


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    args = parser.parse_args(["doctor", *arguments])
    code: int = args.run(args)
    return code


def pretend(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gather", lambda: facts)


def test_the_table_is_aligned_and_ends_with_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(HEALTHY, monkeypatch)
    assert run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "no problem found"
    what = lines[0].index("3.12.1")
    assert all(line[what - 1] == " " and line[what] != " " for line in lines[:-2])


def test_problems_are_counted_shown_with_the_cure_and_exit_with_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(dataclasses.replace(HEALTHY, wheels={}, import_error="not installed"), monkeypatch)
    assert run([]) == 5
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("problem")]
    assert lines[at + 1].strip().startswith('fix: pip install "fastembed-rt[cpu]"')
    assert lines[-1] == "1 problem found"


def test_a_note_is_no_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(with_cpu("avx2"), monkeypatch)
    assert run([]) == 0
    assert "note" in capsys.readouterr().out


@pytest.mark.parametrize(("facts", "code"), [(HEALTHY, 0), (dataclasses.replace(HEALTHY, packages={}), 5)])
def test_machines_get_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], facts: Facts, code: int
) -> None:
    pretend(facts, monkeypatch)
    assert run(["--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == len(problems(facts))
    assert [Finding(**finding) for finding in report["findings"]] == diagnose(facts)


# Looking at real installations


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages that this interpreter and its children look into first."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def install(directory: Path, name: str, version: str, code: str = "", package: str = "onnxruntime") -> None:
    metadata = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "RECORD").write_text(f"{package}/__init__.py,,\n{metadata.name}/RECORD,,\n")
    (directory / package).mkdir(exist_ok=True)
    (directory / package / "__init__.py").write_text(code)


def onnxruntime(version: str, *providers: str, more: str = "") -> str:
    return f"__version__ = {version!r}\ndef get_available_providers(): return {list(providers)!r}\n{more}"


def test_this_installation_is_seen_as_it_is() -> None:
    import numpy

    facts = gather()
    assert facts.packages["numpy"] == numpy.__version__
    assert facts.import_error == ""
    assert "CPUExecutionProvider" in facts.providers
    assert set(facts.wheels) <= set(facts.packages)


def test_clashing_wheels_are_recognised_by_their_files(installation: Path) -> None:
    install(installation, "onnxruntime-gpu", "9.1", onnxruntime("9.1", "CPUExecutionProvider"))
    install(installation, "onnxruntime_OpenVINO", "9.2", onnxruntime("9.2", "CPUExecutionProvider"))
    install(installation, "onnxruntime-extensions", "9.3", package="onnxruntime_extensions")
    facts = gather()
    assert facts.wheels["onnxruntime-gpu"] == "9.1"
    assert facts.wheels["onnxruntime-openvino"] == "9.2"
    assert "onnxruntime-extensions" not in facts.wheels
    assert facts.packages["onnxruntime-extensions"] == "9.3"
    assert facts.onnxruntime == "9.2"
    assert facts.place == str(installation)


def test_wheels_in_two_directories_of_the_path_are_no_clash(
    installation: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overlay of a container, or --system-site-packages: the first is imported, whole."""
    behind = tmp_path_factory.mktemp("behind")
    monkeypatch.setattr(sys, "path", [sys.path[0], str(behind), *sys.path[1:]])
    install(installation, "onnxruntime", "9.1", onnxruntime("9.1", "CPUExecutionProvider"))
    install(behind, "onnxruntime-gpu", "9.2", onnxruntime("9.2", "CUDAExecutionProvider"))
    facts = gather()
    assert facts.wheels == {"onnxruntime": "9.1"}
    assert facts.shadowed["onnxruntime-gpu 9.2"] == str(behind)
    found = list(doctor.check_onnxruntime(facts))
    assert [finding.level for finding in found if finding.level == "problem"] == []
    assert found[0].what == f"onnxruntime 9.1 in {installation}"
    said = f"onnxruntime-gpu 9.2 in {behind} is not imported: {installation} comes before it on the path"
    assert said in [finding.what for finding in found]
    assert nvidia.wheel("cuda", "CUDAExecutionProvider", ["CPUExecutionProvider"], "x").fix == "install x"


def test_of_two_installations_the_one_that_is_imported_counts(installation: Path) -> None:
    install(installation, "numpy", "0.0.1", package="not_numpy")
    assert gather().packages["numpy"] == "0.0.1"


def test_an_import_that_fails_is_quoted(installation: Path) -> None:
    install(installation, "onnxruntime", "9.1", "raise ImportError('libsomething.so.1 is missing')")
    facts = gather()
    assert facts.import_error == "ImportError: libsomething.so.1 is missing"
    assert facts.providers == ()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_import_that_crashes_does_not_take_the_doctor_along(installation: Path) -> None:
    install(installation, "onnxruntime", "9.1", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert gather().import_error == "crashed with signal 11"


@pytest.mark.skipif(sys.platform != "linux", reason="names of shared libraries on Linux")
def test_cuda_libraries_are_tried_one_by_one_after_onnxruntime_has_looked_for_them(
    installation: Path,
) -> None:
    preload = "cuda_version = '99.1'\ndef preload_dlls(): print('looking')\n"
    code = onnxruntime("9.1", "CUDAExecutionProvider", more=preload)
    install(installation, "onnxruntime-gpu", "9.1", code)
    libraries = gather().libraries
    assert {"libcudart.so.99", "libcublasLt.so.99", "libcudnn.so.9"} <= set(libraries)
    assert "cannot open" in libraries["libcudart.so.99"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_cuda_libraries_that_crash_are_said_to_crash(installation: Path) -> None:
    crash = "import os, signal\ncuda_version = '99.1'\ndef preload_dlls(): os.kill(os.getpid(), signal.SIGSEGV)\n"
    code = onnxruntime("9.1", "CUDAExecutionProvider", more=crash)
    install(installation, "onnxruntime-gpu", "9.1", code)
    assert set(gather().libraries.values()) == {"crashed with signal 11"}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize(
    ("script", "gpus", "why"),
    [
        (
            "echo 'NVIDIA L4, 23034 MiB, 580.82'; echo 'NVIDIA L4, 23034 MiB, 580.82'",
            ("NVIDIA L4, 23034 MiB, 580.82",) * 2,
            "",
        ),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            (),
            "says: Failed to initialize NVML: Driver/library version mismatch",
        ),
    ],
)
def test_nvidia_smi_is_asked(installation: Path, script: str, gpus: tuple[str, ...], why: str) -> None:
    command = installation / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    facts = gather()
    assert (facts.gpus, facts.nvidia_smi) == (gpus, why)


def test_without_nvidia_smi_that_is_what_is_said(installation: Path) -> None:
    assert gather().nvidia_smi == "is not installed"


def test_operators_for_cuda_run_or_the_plain_graphs_do() -> None:
    gpu = dataclasses.replace(HEALTHY, providers=("CUDAExecutionProvider",), gpus=("a card",))
    assert all(finding.check != "cuda operators" for finding in diagnose(gpu))
    runs = row(dataclasses.replace(gpu, cuda_operators=(Operators(fp16=""),)), "cuda operators")
    assert (runs.level, runs.what) == ("ok", "our own run (target cuda-native); fp8 too")
    old = row(dataclasses.replace(gpu, cuda_operators=(Operators(fp16="", fp8="fp8 wants 8.9"),)), "cuda operators")
    assert old.what == "our own run (target cuda-native); fp8 does not: fp8 wants 8.9"
    fails = row(
        dataclasses.replace(gpu, cuda_operators=(Operators(fp16="libcublasLt.so.13 does not load"),)), "cuda operators"
    )
    assert fails.level == "note"
    assert fails.what.startswith("our own do not run: libcublasLt.so.13 does not load; the plain graphs do")
    two = (Operators(name="NVIDIA H200", fp16=""), Operators(name="Tesla V100", fp16="fp16 wants 7.5"))
    both = diagnose(dataclasses.replace(gpu, cuda_operators=two))
    assert [(f.level, f.what.partition(";")[0]) for f in both if f.check == "cuda operators"] == [
        ("ok", "device 0, NVIDIA H200: our own run (target cuda-native)"),
        ("note", "device 1, Tesla V100: our own do not run: fp16 wants 7.5"),
    ]


def test_the_doctor_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fastembed_rt.cli import doctor; doctor.diagnose(doctor.gather());"
        "print([n for n in ('onnxruntime', 'torch', 'transformers', 'tokenizers') if n in sys.modules])"
    )
    root = str(Path(fastembed_rt.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == "[]"


def test_a_compiler_is_named_only_where_compiling_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def remedy(system: str, machine: str, library: str | None) -> str:
        place = tmp_path / "operators.so"
        place.unlink(missing_ok=True)
        if library is not None:
            place.write_text(library)
        monkeypatch.setattr(native, "library", lambda: place)
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        return native.remedy()

    assert "install a C compiler" in remedy("linux", "x86_64", None)
    assert "install a C compiler" in remedy("linux", "aarch64", None)
    assert remedy("linux", "riscv64", None) == ""
    assert remedy("win32", "AMD64", None) == ""
    assert remedy("linux", "x86_64", "of another system") == ""
    missing = dataclasses.replace(HEALTHY, no_kernels="there are no kernels for Linux on riscv64 yet")
    assert row(missing, "operators").fix == ""
    told = dataclasses.replace(missing, kernel_remedy=native.COMPILE)
    assert row(told, "operators").fix == native.COMPILE


def test_kernels_that_the_compiler_left_out_are_named() -> None:
    facts = dataclasses.replace(HEALTHY, kernels="avx2", left_out="avxvnni", kernel_remedy=native.COMPILE_ALL)
    found = row(facts, "operators")
    assert (found.level, found.fix) == ("note", native.COMPILE_ALL)
    assert found.what == (
        "our own run, with avx2 kernels (target native); the avxvnni kernels, which are faster here, were left out: "
        "the compiler was too old"
    )
