"""Packed weights in files that processes share: the same numbers, and nothing is used that is not what it should be."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from compiled_once import compile_once
from native_operators import Group, model, open_session

from fastembed_rt import native
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.run import shared_weights

pytestmark = [
    pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}"),
    pytest.mark.skipif(sys.platform != "linux", reason="weights are shared on Linux alone"),
]
Array = npt.NDArray[Any]
X = np.random.default_rng(1).normal(0, 1, (5, 64)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of shared weights, while the test runs."""
    made = tmp_path / "weights"
    made.mkdir(mode=0o700)
    monkeypatch.setenv(shared_weights.VARIABLE, str(made))
    shared_weights.share()
    yield made
    gc.collect()
    monkeypatch.delenv(shared_weights.VARIABLE)
    shared_weights.share()


def layer(seed: int = 0, **options: Any) -> Group:
    return Group(np.random.default_rng(seed), 64, (20, 12), **options)


def computed(group: Group) -> Array:
    """By a session that is gone afterwards."""
    session = open_session(model("QuantLinear", {"x": X}, group.tensors(), **group.attributes("linear")))
    (found,) = session.run(["y"], {"x": X})
    result: Array = found
    del session
    gc.collect()
    return result


def mapped(folder: Path) -> list[str]:
    """Numbers of the folder's files in this process's memory."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    return sorted({line[4] for line in lines if len(line) == 6 and line[5].startswith(f"{folder}/")})


def numbers_of(folder: Path) -> list[str]:
    return sorted(str(file.stat().st_ino) for file in folder.iterdir())


def test_what_one_made_is_found_by_the_next_and_computes_the_same(folder: Path) -> None:
    shared_weights.share()
    group = layer(outliers=2, smooth=True)
    shared = computed(group)
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    number = file.stat().st_ino
    os.utime(file, (0, 0))
    assert computed(group).tobytes() == shared.tobytes()
    (again,) = folder.iterdir()
    assert (again.stat().st_ino, again.stat().st_mtime > 0) == (number, True)  # found, and said to be in use
    assert mapped(folder) == []
    os.environ[shared_weights.VARIABLE] = ""
    shared_weights.share()
    assert computed(group).tobytes() == shared.tobytes()  # of memory of its own
    np.testing.assert_allclose(shared, group(X), atol=2e-4, rtol=2e-4)


def test_who_loads_it_again_says_that_it_is_in_use(folder: Path) -> None:
    graph = model("QuantLinear", {"x": X}, layer().tensors(), **layer().attributes("linear"))
    first = open_session(graph)
    (file,) = folder.iterdir()
    os.utime(file, (0, 0))
    second = open_session(graph)  # finds it in this process
    assert file.stat().st_mtime > 0
    file.unlink()
    third = open_session(graph)  # nothing is lost
    found = [session.run(["y"], {"x": X})[0].tobytes() for session in (first, second, third)]
    assert len(set(found)) == 1


def test_layers_that_differ_have_files_of_their_own(folder: Path) -> None:
    first, second, third = layer(0), layer(1), layer(0)
    third.zero = (first.zero + 9) % 256
    for count, group in enumerate((first, second, third), 1):
        np.testing.assert_allclose(computed(group), group(X), atol=2e-4, rtol=2e-4)
        assert len(list(folder.iterdir())) == count


def flipped(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)


def cut(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def others(file: Path, other: Path) -> None:
    """Sound in itself, as if both had the same hash."""
    file.write_bytes(other.read_bytes())


def writable(file: Path, other: Path) -> None:
    file.chmod(0o666)


def linked(file: Path, other: Path) -> None:
    file.unlink()
    file.symlink_to(other)


def a_pipe(file: Path, other: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_folder(file: Path, other: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [flipped, cut, others, writable, linked, a_pipe, a_folder])
def test_what_is_not_what_it_should_be_is_not_used(
    folder: Path, damage: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    group, another = layer(0), layer(1)
    expected = computed(group)
    (file,) = folder.iterdir()
    computed(another)
    (other,) = (path for path in folder.iterdir() if path != file)
    alike = file.stat().st_size == other.stat().st_size  # but where what saturates lies behind the weights
    damage(file, other)
    assert computed(group).tobytes() == expected.tobytes()
    assert len(list(folder.iterdir())) == 2
    shared_weights.report()
    stays = damage is a_folder or (damage is others and alike)  # so that nobody finds what was made
    assert len(caplog.messages) == stays
    assert computed(another).tobytes() != expected.tobytes()


def test_without_room_each_has_its_own_and_it_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    import resource

    expected = computed(layer())
    for file in folder.iterdir():
        file.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert computed(layer()).tobytes() == expected.tobytes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []
    folder.chmod(0o500)
    try:
        assert computed(layer()).tobytes() == expected.tobytes()
    finally:
        folder.chmod(0o700)
    shared_weights.report()
    shared_weights.report()
    (said,) = caplog.messages
    assert "layers are in memory of this process alone" in said
    assert str(folder) in said


# A file system that tells no size, and a kernel that gives up a file in memory when a signal comes.
OTHER_SYSTEM = """
#include <errno.h>
#include <signal.h>
#include <sys/statvfs.h>
#include <unistd.h>
int posix_fallocate(int file, off_t from, off_t bytes) {
    sigset_t held;
    pthread_sigmask(SIG_BLOCK, 0, &held);
    return sigismember(&held, SIGPROF) ? ftruncate(file, from + bytes) : EINTR;
}
int fstatvfs(int file, struct statvfs *about) {
    *about = (struct statvfs){.f_bsize = 4096};
    return 0;
}
"""
ONE = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from fastembed_rt.run import shared_weights
from test_shared_files import computed, layer
shared_weights.share()
computed(layer())
print(len(list(Path(os.environ[shared_weights.VARIABLE]).iterdir())), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="that sanitizer is loaded first")
def test_signals_and_a_file_system_without_a_limit_keep_nobody_from_sharing(folder: Path, tmp_path: Path) -> None:
    source, system = tmp_path / "system.c", tmp_path / "system.so"
    source.write_text(OTHER_SYSTEM, encoding="utf-8")
    assert compile_once(["gcc", "-O1", "-fPIC", "-shared", "-o", str(system), str(source)]) == 0
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", ONE, str(tests), str(tests.parent)],
        env={**os.environ, "LD_PRELOAD": str(system)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "1 set()\n"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "cannot be opened"),
        (lambda path: path.write_text(""), "is no folder"),
        (lambda path: (path.mkdir(), path.chmod(0o770)), "others may write to"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], why: str
) -> None:
    place = tmp_path / "there"
    make(place)
    monkeypatch.setenv(shared_weights.VARIABLE, str(place))
    with pytest.raises(InvalidInputError, match=why):
        shared_weights.share()
    monkeypatch.setenv(shared_weights.VARIABLE, "/" + "a" * 600)
    with pytest.raises(InvalidInputError, match="too long"):
        shared_weights.share()


PROCESS = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from fastembed_rt.run import shared_weights
from test_shared_files import X, layer, mapped, model, open_session
shared_weights.share()
groups = [layer(seed) for seed in range(20)]
graphs = [model("QuantLinear", {"x": X}, group.tensors(), **group.attributes("linear")) for group in groups]
print("made", flush=True)
sys.stdin.readline()
sessions = [open_session(graph) for graph in graphs]
print(*(session.run(["y"], {"x": X})[0].tobytes().hex() for session in sessions), flush=True)
sys.stdin.readline()
print(*mapped(Path(os.environ[shared_weights.VARIABLE])), flush=True)
"""


def test_processes_that_start_at_once_end_up_with_the_same_pages(folder: Path) -> None:
    tests = Path(__file__).parent
    command = [sys.executable, "-c", PROCESS, str(tests), str(tests.parent)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(3)]
    try:
        assert [child.stdout.readline() for child in children] == ["made\n"] * 3
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        first, *others = [child.stdout.readline().split() for child in children]
        assert (len(first), others) == (20, [first] * 2)
        found = [child.communicate("\n", timeout=60)[0].split() for child in children]
    finally:
        for child in children:
            child.kill()
    assert len(numbers_of(folder)) == 20
    assert found == [numbers_of(folder)] * 3
