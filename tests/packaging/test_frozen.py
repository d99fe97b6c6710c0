"""Programs that hold the package without an installation: of PyInstaller, cx_Freeze and Nuitka, and archives."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import os
import platform
import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastembed_rt
from fastembed_rt import cli, native, pyinstaller
from fastembed_rt.bulk import sinks
from fastembed_rt.compat import sentence_transformers
from fastembed_rt.native import cuda as native_cuda
from fastembed_rt.run import session

ROOT = Path(__file__).parents[2]
SOURCES = {"fastembed_rt": ROOT / "fastembed_rt", "fastembed_rt_export": ROOT / "export" / "fastembed_rt_export"}
PROGRAM = "from fastembed_rt import native; print(native.library().is_file(), native.kernels(), native.why_not())"
LEFT_OUT = (
    "numpy",
    "onnxruntime",
    "tokenizers",
    "huggingface_hub",
)  # of the programs: time, and they have their own rules


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the hooks name, by PyInstaller's rules: files of a package."""
    found: set[str] = set()

    def files(package: str, **patterns: list[str]) -> list[tuple[str, str]]:
        (wanted,) = patterns.values()
        names = [path.relative_to(SOURCES[package]).as_posix() for path in SOURCES[package].rglob("*")]
        found.update(f"{package}/{name}" for name in names if any(fnmatch.fnmatch(name, each) for each in wanted))
        return []

    def libraries(package: str, search_patterns: list[str]) -> list[tuple[str, str]]:
        return files(package, patterns=[f"*/{pattern}" for pattern in search_patterns])

    hooks: Any = ModuleType("PyInstaller.utils.hooks")
    hooks.collect_data_files, hooks.collect_dynamic_libs = files, libraries
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


def test_hooks_name_every_file_that_is_opened(collected: set[str]) -> None:
    opened = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in SOURCES.items()
        for path in folder.rglob("*.*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".typed") and "src" not in path.parts
    }
    assert opened <= collected


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (fastembed_rt, [f"fastembed_rt.{name}" for name in fastembed_rt._MODULES.values()]),
        (cli, cli.COMMANDS),
        (sinks, sinks.OWN.values()),
        (session, [f"fastembed_rt.run.{name}" for name in session.SPECIAL.values()]),
        (sentence_transformers, [*sentence_transformers._MODULES.values(), "util"]),
        (native, [Path(native.LIBRARY).stem, Path(native_cuda.LIBRARY).stem]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else "",
)
def test_what_is_opened_by_a_name_is_imported_somewhere(module: ModuleType, names: Iterable[str]) -> None:
    package = module.__spec__.parent if module.__spec__ else None
    assert {name if "." in name else f"{package}.{name}" for name in names} <= imported(module)


def imported(module: ModuleType) -> set[str]:
    """What its statements import, as these tools see them: Nuitka leaves out those for types alone."""
    assert module.__file__ is not None and module.__spec__ is not None
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(Path(module.__file__).read_text(encoding="utf-8"))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            place = importlib.util.resolve_name("." * node.level + (node.module or ""), module.__spec__.parent)
            found.update(f"{place}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            nodes.extend(ast.iter_child_nodes(node))
    return found


def pyinstaller_program(folder: Path) -> Path:
    (hooks,) = pyinstaller.hook_dirs()
    paths = [f"--additional-hooks-dir={hooks}", f"--paths={ROOT}", f"--paths={ROOT / 'export'}"]
    left_out = [f"--exclude-module={name}" for name in LEFT_OUT]
    build("PyInstaller", "--noconfirm", "--log-level=WARN", *left_out, *paths, "small.py", folder=folder)
    return folder / "dist" / "small" / "small"


def cx_freeze_program(folder: Path) -> Path:
    build(
        "cx_Freeze",
        "build_exe",
        "--script=small.py",
        "--build-exe=made",
        f"--excludes={','.join(LEFT_OUT)}",
        folder=folder,
    )
    return folder / "made" / "small"


def nuitka_program(folder: Path) -> Path:
    left_out = [f"--nofollow-import-to={name}" for name in LEFT_OUT]
    build("nuitka", "--standalone", "--assume-yes-for-downloads", *left_out, "small.py", folder=folder)
    (program,) = (folder / "small.dist").glob("small.*")
    return program


def build(module: str, *arguments: str, folder: Path) -> None:
    path = os.pathsep.join(map(str, [ROOT, ROOT / "export"]))
    kept = {
        name: value for name, value in os.environ.items() if name != "CC"
    }  # the tests' own compiler: see conftest.py
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


BUILDERS = {"PyInstaller": pyinstaller_program, "cx_Freeze": cx_freeze_program, "nuitka": nuitka_program}


@pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
@pytest.mark.parametrize("builder", BUILDERS)
def test_a_program_that_is_built_whole_runs_our_operators(builder: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(builder) is None:
        pytest.skip(f"pip install {builder}")
    (tmp_path / "small.py").write_text(PROGRAM, encoding="utf-8")
    program = BUILDERS[builder](tmp_path)
    said = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
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
