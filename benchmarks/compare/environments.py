"""An environment for each contender: made once with venv and pip, reused while its row stays the same."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from dataclasses import asdict
from pathlib import Path

from ..errors import ContenderError
from .contenders import Environment

PROJECT = Path(__file__).resolve().parents[2]
ROOT = PROJECT / ".venv-bench"
INSTALL_SECONDS = 1800.0
STAMP = "benchmark-environment.json"


def python(environment: Environment, root: Path = ROOT) -> Path:
    """Interpreter of an environment."""
    return root / environment.name / "bin" / "python"


def ensure(environment: Environment, root: Path = ROOT, *, timeout: float = INSTALL_SECONDS) -> list[str]:
    """Make the environment, or reuse it; returns what `pip freeze` says of it.

    Raises:
        ContenderError: pip failed; the message ends with its last line.
    """
    folder = root / environment.name
    stamp = folder / STAMP
    wanted = _digest(environment)
    if stamp.is_file():
        known = json.loads(stamp.read_text(encoding="utf-8"))
        if known["digest"] == wanted:
            return list(known["freeze"])
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {environment.name} into {folder}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, symlinks=True)
    for step in environment.steps:
        _pip(environment, root, ["install", "--quiet", *(part.format(project=PROJECT) for part in step)], timeout)
    freeze = _pip(environment, root, ["freeze"], timeout).replace(str(PROJECT), "{project}").splitlines()
    # Last: an interrupted installation has no stamp and is made again.
    stamp.write_text(json.dumps({"digest": wanted, "freeze": freeze, **asdict(environment)}, indent=1))
    return freeze


def size(environment: Environment, root: Path = ROOT) -> int:
    """Bytes of the installed packages, without pip itself and without compiled bytecode.

    Of this project, which is installed where it lies, it is the packages of its wheel.
    """
    packages = next((root / environment.name).glob("lib/python*/site-packages"), None)
    if packages is None:
        return 0
    folders = [folder for folder in packages.iterdir() if not folder.name.startswith("pip")]
    if any("--editable" in step for step in environment.steps):
        folders += own_packages()
    return sum(
        path.lstat().st_size
        for folder in folders
        for path in (folder, *folder.rglob("*"))
        if path.suffix != ".pyc" and path.is_file()
    )


def own_packages(project: Path = PROJECT) -> list[Path]:
    """Folders of this project that its wheel holds, by its settings; the native libraries lie in them."""
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return [project / name for name in settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


def _digest(environment: Environment) -> str:
    parts = [json.dumps(asdict(environment), sort_keys=True), sys.version]
    if any("{project}" in word for step in environment.steps for word in step):
        parts.append((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _pip(environment: Environment, root: Path, words: list[str], timeout: float) -> str:
    command = [str(python(environment, root)), "-m", "pip", "--disable-pip-version-check", "--no-input", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise ContenderError(f"installing {environment.name} took more than {timeout:.0f} s") from None
    if done.returncode:
        raise ContenderError(f"installing {environment.name}: {last_error(done.stderr or done.stdout)}")
    return done.stdout


def last_error(output: str) -> str:
    """The line of pip's output that says most: the last that begins with ERROR, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    return (errors or lines or ["no message"])[-1][:300]
