"""The build takes the C compiler that CC names, makes what that one can, or says in one error why it makes nothing."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastembed_rt import native
from fastembed_rt.cli.doctor import check_cpu
from fastembed_rt.cli.environment import gather
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
CUDA = pytest.param(build.build_cuda, marks=pytest.mark.skipif(sys.platform != "linux", reason="CUDA is for Linux"))
BUILDS = [build.build, CUDA]
SETS = build.kernels_of()
FIRST, *_, OLDEST = SETS  # the command that is waited for first; kernels that every processor runs
# The first command fails when another one is at work; that one starts a program that never stops of itself in time.
ONE_FAILS = """#!/bin/sh
case "$*" in
*probe.c*) exit 0 ;;
*-DKERNELS={first}*)
    until ls {folder}/*.beats >/dev/null 2>&1; do sleep 0.02; done
    echo 'no such flag' >&2
    exit 1 ;;
esac
( for beat in $(seq 400); do echo >> {folder}/$$.beats; sleep 0.05; done ) &
wait
"""


REFUSES = """#!/bin/sh
for word in "$@"; do
    case " {flags} " in
    *" $word "*) echo "error: unrecognized command-line option '$word'" >&2; exit 1 ;;
    esac
done
exec '{compiler}' "$@"
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


def test_a_compiler_that_is_too_old_for_some_kernels_makes_the_others(
    same_compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = native.kernels()
    newer = {flag for flags in SETS.values() for flag in flags} - set(SETS[OLDEST])
    old = program(tmp_path / "cc", REFUSES.format(flags=" ".join(newer), compiler=same_compiler))
    monkeypatch.setenv("CC", str(old))
    library = build.build(tmp_path / "library.so")
    monkeypatch.setattr(native, "library", lambda: library)
    assert f"kernels_{native.kernels()}" == OLDEST, native.why_not()
    (said,) = [finding for finding in check_cpu(gather()) if finding.check == "operators"]
    if best == native.kernels():
        assert said.level == "ok"
    else:
        assert said.level == "note"
        assert f"the {best} kernels, which are faster here, were left out: the compiler was too old" in said.what
        assert said.fix.startswith("install a newer C compiler (gcc 11, clang 12, or later; CC names it) and then: ")


@pytest.mark.skipif("kernels_amx" not in SETS, reason="there is no AMX on this processor's kind")
def test_gcc_before_11_has_no_amx_and_all_kernels_without_it(
    same_compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = "-mamx-tile -mamx-int8 -mamx-bf16"
    old = program(tmp_path / "cc", REFUSES.format(flags=flags, compiler=same_compiler))
    assert build._unknown_to([str(old)], SETS, tmp_path) == {"kernels_amx"}
    assert build._unknown_to([same_compiler], SETS, tmp_path) == set()
