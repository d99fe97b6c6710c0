"""The wheel as a user gets it: built, installed into an empty environment, run from an empty directory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheel_contents import built

from fastembed_rt import native
from fastembed_rt.native import build

ROOT = Path(__file__).parents[2]
# What pip says where it reaches no index. A requirement that an index does not have is said otherwise, and fails.
NO_INDEX = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    home = tmp_path_factory.mktemp("source")
    with tarfile.open(built("sdist", tmp_path_factory.mktemp("archive"))) as archive:
        archive.extractall(home, filter="data")
    (unpacked,) = home.iterdir()
    return unpacked


def test_the_source_archive_has_what_its_tests_read(source: Path) -> None:
    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    here = [path for name in ("docs", "tests", "benchmarks", "export") for path in (ROOT / name).rglob("*.*")]
    wanted = {path.relative_to(ROOT).as_posix() for path in here if path.suffix in (".py", ".md", ".json", ".c", ".h")}
    pages = {"CONTRIBUTING.md", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "LICENSE"}
    assert pages | {"Makefile", "pyproject.toml"} | wanted <= names
    assert not any(name.endswith(".so") for name in names)


def test_the_source_archive_has_every_file_of_the_repository(source: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a repository")
    left_out = {name for name in listed.stdout.splitlines() if (ROOT / name).exists() and not (source / name).exists()}
    # Of use to a repository only.
    assert {name for name in left_out if not name.startswith((".ci/", ".pre-commit-config.yaml"))} == set()


def test_the_source_archive_builds_and_tests_itself(source: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, (source, source / "export")))
    environment = {**os.environ, "PYTHONPATH": paths, "FASTEMBED_RT_NATIVE": "0"}
    build_it = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    # Those that read the project's own files, and need no model.
    tests = ["tests/packaging/test_layers.py", "tests/packaging/test_version.py"]
    test_it = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", *tests]
    for command in (build_it, test_it):
        done = subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name.endswith("-py3-none-any.whl") for path in tmp_path.iterdir()] == [True]


def test_a_compiler_that_is_not_there_leaves_the_library_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent/gcc")
    pure = built("wheel", tmp_path)
    assert pure.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in zipfile.ZipFile(pure).namelist())


@pytest.mark.skipif(sys.platform not in build.SYSTEMS, reason="there are no kernels for this system")
def test_where_a_library_is_asked_for_the_build_says_what_is_wrong_with_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nonexistent/gcc")
    monkeypatch.setenv("FASTEMBED_RT_NATIVE", "1")
    with pytest.raises(AssertionError, match="/nonexistent/gcc does not run: No such file or directory"):
        built("wheel", tmp_path)


def test_both_packages_and_their_data_are_inside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "fastembed_rt/__init__.py",
        "fastembed_rt/py.typed",
        "fastembed_rt/cli/__init__.py",
        "fastembed_rt_export/pipeline.py",
        "fastembed_rt_export/py.typed",
        "fastembed_rt_export/data/parity.jsonl",
        "fastembed_rt_export/architectures/bert.py",
    ):
        assert wanted in names
    assert not any(name.startswith(("tests/", "benchmarks/", "export/")) for name in names)
    assert native.kernels() is None or f"fastembed_rt/native/{native.LIBRARY}" in names
    assert native.kernels() is None or (f"fastembed_rt/native/{build.CUDA_LIBRARY}" in names) == build.for_cuda()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_neither_onnxruntime_is_a_hard_dependency(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert required
    assert not any("onnx" in line or "torch" in line for line in required)
    extras = {line.split(": ")[1] for line in text.splitlines() if line.startswith("Provides-Extra:")}
    assert {"cpu", "gpu", "export", "optimum", "bench", "test"} <= extras


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a new environment with the wheel and its [cpu,export] extras: what production installs."""
    home = tmp_path_factory.mktemp("venv")
    outer = importlib.util.find_spec("pip") is not None  # which installs into other environments too
    venv.create(home, with_pip=not outer)
    interpreter = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter)] if outer else [str(interpreter), "-m", "pip"]
    # Of thousands of modules a few are imported, and compiled then.
    command = [*pip, "install", "--quiet", "--no-compile", f"fastembed-rt[cpu,export] @ {wheel.as_uri()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and any(said in done.stderr for said in NO_INDEX):
        pytest.skip("no package index is within reach, where the wheel's requirements would come from")
    assert done.returncode == 0, done.stderr
    return interpreter


def run(python: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_START")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    command = [str(python), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=directory, env=environment, timeout=120
    )


def test_a_checkpoint_becomes_vectors_without_torch(python: Path, tmp_path: Path) -> None:
    from checkpoints import save_sentence_transformers

    save_sentence_transformers(tmp_path / "checkpoint", max_seq_length=32)
    script = python.with_name("fastembed-rt")
    exported = run(script, tmp_path, "export", "checkpoint", "-o", "model")
    assert exported.returncode == 0, exported.stderr
    assert "not verified (torch and sentence-transformers not installed)" in exported.stdout
    code = (
        "import sys; from fastembed_rt import EmbeddingModel; v = EmbeddingModel('model').encode(['the cat', 'a dog']);"
        "print(v.shape, v.dtype, 'torch' in sys.modules)"
    )
    embedded = run(python, tmp_path, "-c", code)
    assert embedded.stdout.strip() == "(2, 24) float32 False", embedded.stderr
    assert run(script, tmp_path, "info", "model").returncode == 0
    assert run(script, tmp_path, "doctor").returncode == 0, run(script, tmp_path, "doctor").stdout
    verified = run(script, tmp_path, "verify", "model", "--against", "checkpoint")
    assert verified.returncode == 5
    assert "fastembed-rt[verify]" in verified.stderr


@pytest.fixture
def without_onnxruntime(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As after `pip uninstall onnxruntime`, until the test is over: other tests share the environment."""
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    aside = tmp_path_factory.mktemp("aside")
    taken = [path.rename(aside / path.name) for path in packages.glob("onnxruntime*")]
    assert taken
    yield
    for path in taken:
        path.rename(packages / path.name)


@pytest.mark.usefixtures("without_onnxruntime")
def test_without_onnxruntime_the_import_names_the_extras(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, "-c", "from fastembed_rt import EmbeddingModel")
    assert done.returncode == 1
    assert "fastembed-rt[cpu]" in done.stderr
    assert "fastembed-rt[gpu]" in done.stderr
    assert run(python, tmp_path, "-c", "import fastembed_rt").returncode == 0
