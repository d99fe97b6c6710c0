"""The doctor's facts: what is read of real installations, whatever state they are in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastembed_rt
from fastembed_rt.cli import doctor, environment
from fastembed_rt.cli.environment import gather
from fastembed_rt.run import nvidia


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


def test_a_trial_imports_what_this_process_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that shiv built add their packages to the path once they run."""
    (tmp_path / "only_here.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert environment._try([sys.executable, "-P", "-c", "import only_here; print('{}')"]) == ({}, "")
