"""A C compiler that makes a file once in a run of the tests: it is kept by the content of all that it can be made of.

The wheel's build, stand-ins and libraries with other kernels compile mostly the same sources, seconds each.
conftest.py has CC name this file, so that builds in other processes take it too. So has `make test` for the
installation of its environment, and the tests begin with what that made; `python compiled_once.py FOLDER` writes such a
program for CC and prints its path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KEPT = "FASTEMBED_RT_TESTS_COMPILED"
INSTALLED = Path(sys.prefix, "compiled")  # what the environment's installation made, if by `make test`
SOURCES = (".c", ".cpp")
BESIDE = (*SOURCES, ".h", ".cu", ".cuh")


def compile_once(command: Sequence[str]) -> int:
    """Run a command that compiles or links, or copy what the same one made of the same files; its exit code."""
    folder = os.environ.get(KEPT)
    if folder is None or "-o" not in command:
        return subprocess.run(command, check=False).returncode
    place = command.index("-o")
    output, rest = Path(command[place + 1]), [*command[:place], *command[place + 2 :]]
    kept = Path(folder) / _digest(rest)
    if kept.exists():
        shutil.copy(kept, output)
        return 0
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copy(output, beside)
        beside.replace(kept)
    return code


def write_compiler(folder: Path) -> Path | None:
    """A program for CC that calls this file; None where there is no compiler, or a script cannot stand for one."""
    true = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if true is None or os.name != "posix":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "cc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "{true}" "$@"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def _digest(command: Sequence[str]) -> str:
    """Of what a command says, whatever the folders are called, and of the compiler and the files that it can read."""
    compiler = Path(shutil.which(command[0]) or command[0]).resolve().stat()
    found = hashlib.sha256(f"{compiler.st_size} {compiler.st_mtime_ns}".encode())
    for argument in command:
        said, files = argument, list[Path]()
        if argument.startswith("-I"):
            said, files = "-I", _below(Path(argument[2:]))
        elif argument != command[0] and (named := Path(argument)).is_file():
            said, files = named.name, [named, *(_around(named) if named.suffix in SOURCES else [])]
        found.update(f"\0{said}\0".encode())
        for file in files:
            found.update(f"\0{file.name}\0".encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def _around(source: Path) -> list[Path]:
    """What a source may include: beside it and below, and one folder up."""
    up = sorted(file for file in source.parent.parent.iterdir() if file.suffix in BESIDE)
    return [*up, *_below(source.parent)]


def _below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in BESIDE)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(compile_once(sys.argv[1:]))
    print(write_compiler(Path(sys.argv[1]).resolve()) or "")
