"""The build takes the C compiler that CC names, whatever it is, or says in one error why it cannot."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastembed_rt import native
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
CUDA = pytest.param(build.build_cuda, marks=pytest.mark.skipif(sys.platform != "linux", reason="CUDA is for Linux"))
BUILDS = [build.build, CUDA]
FIRST = next(iter(build.kernels_of()))  # the command that is waited for first
# The first command fails when another one is at work; that one starts a program that never stops of itself in time.
ONE_FAILS = """#!/bin/sh
case "$*" in
*-DKERNELS={first}*)
    until ls {folder}/*.beats >/dev/null 2>&1; do sleep 0.02; done
    echo 'no such flag' >&2
    exit 1 ;;
esac
( for beat in $(seq 400); do echo >> {folder}/$$.beats; sleep 0.05; done ) &
wait
"""


def program(place: Path, text: str) -> Path:
    place.write_text(text, encoding="utf-8")
    place.chmod(0o755)
    return place


@pytest.fixture
def same_compiler() -> str:
    """Path of the compiler that the tests' builds have: what it made once is kept."""
    (found,) = build.c_compiler()
    path = shutil.which(found)
    assert path is not None
    return path


def test_a_compiler_may_come_with_words(same_compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"env '{same_compiler}'")  # as "ccache gcc", and "gcc -pthread"
    library = build.build(tmp_path / "library.so")
    monkeypatch.setattr(native, "library", lambda: library)
    assert native.why_not() is None


def test_a_compiler_may_lie_in_a_folder_with_spaces(
    same_compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    monkeypatch.setenv("CC", str(program(folder / "cc", f"#!/bin/sh\nexec '{same_compiler}' \"$@\"\n")))
    object_file = tmp_path / "one.o"
    build._run([*build.c_compiler(), "-c", str(build.SOURCES / "reader.c"), "-o", str(object_file)])
    assert object_file.is_file()


@pytest.mark.parametrize("made_by", BUILDS)
@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("/nonexistent/gcc", "/nonexistent/gcc does not run: No such file or directory"),
        ("/nonexistent/ccache gcc", "/nonexistent/ccache does not run: No such file or directory"),
        ("gcc 'quoted", """CC is "gcc 'quoted", which is no command: No closing quotation"""),
    ],
)
def test_a_compiler_that_does_not_run_is_a_build_error(
    named: str, says: str, made_by: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", named)
    with pytest.raises(build.BuildError) as error:
        made_by(tmp_path / "library.so")
    assert str(error.value) == says
    assert list(tmp_path.iterdir()) == []


def test_when_one_compiler_fails_no_other_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(program(tmp_path / "cc", ONE_FAILS.format(first=FIRST, folder=tmp_path))))
    with pytest.raises(build.BuildError, match="no such flag"):
        build.build(tmp_path / "library.so")

    def beats() -> int:
        return sum(place.stat().st_size for place in tmp_path.glob("*.beats"))

    known = beats()
    assert known > 0
    time.sleep(0.5)
    assert beats() == known
