"""Programs that hold the package without an installation: PyInstaller's, and archives that Python imports from."""

from __future__ import annotations

import fnmatch
import importlib.util
import platform
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastembed_rt import cli, native, pyinstaller
from fastembed_rt.bulk import sinks

ROOT = Path(__file__).parents[2]
SOURCES = {"fastembed_rt": ROOT / "fastembed_rt", "fastembed_rt_export": ROOT / "export" / "fastembed_rt_export"}
PROGRAM = "from fastembed_rt import native; print(native.library().is_file(), native.kernels(), native.why_not())"


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the hooks name, by PyInstaller's rules: files of a package, and modules."""
    found: set[str] = set()

    def files(package: str, **patterns: list[str]) -> list[tuple[str, str]]:
        (wanted,) = patterns.values()
        names = [path.relative_to(SOURCES[package]).as_posix() for path in SOURCES[package].rglob("*")]
        found.update(f"{package}/{name}" for name in names if any(fnmatch.fnmatch(name, each) for each in wanted))
        return []

    def libraries(package: str, search_patterns: list[str]) -> list[tuple[str, str]]:
        return files(package, patterns=[f"*/{pattern}" for pattern in search_patterns])

    def modules(package: str) -> list[str]:
        place = ROOT / package.replace(".", "/")
        found.update(f"{package}.{path.stem}" for path in place.glob("*.py") if path.stem != "__init__")
        return []

    hooks: Any = ModuleType("PyInstaller.utils.hooks")
    hooks.collect_data_files, hooks.collect_dynamic_libs, hooks.collect_submodules = files, libraries, modules
    for name in ("PyInstaller", "PyInstaller.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, hooks.__name__, hooks)
    (folder,) = pyinstaller.hook_dirs()
    for hook in Path(folder).glob("hook-*.py"):
        runpy.run_path(str(hook))
    return found


def test_pyinstaller_is_told_where_the_hooks_are() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    module, _, name = points["pyinstaller40"]["hook-dirs"].partition(":")
    assert getattr(importlib.import_module(module), name) is pyinstaller.hook_dirs


def test_hooks_name_every_file_that_is_opened_and_every_command(collected: set[str]) -> None:
    opened = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in SOURCES.items()
        for path in folder.rglob("*.*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".typed") and "src" not in path.parts
    }
    assert opened <= collected
    assert {f"fastembed_rt.cli.{command}" for command in cli.COMMANDS} <= collected
    assert {f"fastembed_rt.bulk.sinks.{name}" for name in sinks.OWN.values()} <= collected


@pytest.mark.skipif(importlib.util.find_spec("PyInstaller") is None, reason="pip install pyinstaller")
@pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
def test_a_program_that_pyinstaller_builds_runs_our_operators(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(PROGRAM, encoding="utf-8")
    (hooks,) = pyinstaller.hook_dirs()
    left_out = [f"--exclude-module={name}" for name in ("numpy", "onnxruntime", "tokenizers", "huggingface_hub")]
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=WARN", *left_out]
    paths = [f"--additional-hooks-dir={hooks}", f"--paths={ROOT}", f"--paths={ROOT / 'export'}"]
    done = subprocess.run([*command, *paths, "small.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = subprocess.run([tmp_path / "dist" / "small" / "small"], capture_output=True, text=True, check=True).stdout
    assert said == f"True {native.kernels()} None\n"


@pytest.mark.skipif(not native._has_kernels(sys.platform, platform.machine()), reason="no kernels here")
def test_in_an_archive_the_reason_is_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "program.pyz"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in (ROOT / "fastembed_rt").rglob("*"):
            if path.suffix in (".py", ".so"):
                packed.write(path, path.relative_to(ROOT))
    script = f"import sys; sys.path[:0] = [{str(archive)!r}]; from fastembed_rt import native; "
    said = subprocess.run(
        [sys.executable, "-I", "-c", script + "print(native.why_not()); print(native.remedy())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said == ["the package lies in program.pyz, and no library can be loaded out of an archive", native.UNPACK]


def test_where_operators_were_left_out_of_a_program_no_compiler_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(native, "library", lambda: tmp_path / native.LIBRARY)
    why, remedy = native.why_not(), native.remedy()
    if native._has_kernels(sys.platform, platform.machine()):
        assert why == f"{native.LIBRARY} was left out of this program when it was built"
        assert remedy == native.BUILD_AGAIN and "compiler" not in remedy
    else:
        assert why is not None and why.startswith("there are no kernels")
        assert remedy == ""
