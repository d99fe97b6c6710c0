"""Several processes and one cache: one exports and the others wait; one that was killed leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from signals import of_a_terminal
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt.cache import entries
from fastembed_rt.errors import MissingDependencyError
from fastembed_rt.system import locks

# Opens a checkpoint and prints vectors and the number of exports; waits in the middle of one while a file is there.
OPEN = """
import json, os, sys, time
from pathlib import Path
from fastembed_rt import EmbeddingModel
from fastembed_rt.cache import exporting
checkpoint, wait, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
done, real = [], exporting.export
def export(located, output, *arguments, **options):
    made = real(located, output, *arguments, **options)
    (output / "manifest.json").rename(output / "later")  # in the middle: not yet whole
    print("exporting", flush=True)
    while wait and Path(wait).exists():
        time.sleep(0.01)
    (output / "later").rename(output / "manifest.json")
    done.append(1)
    return made
exporting.export = export
with EmbeddingModel.from_checkpoint(checkpoint, verify=False, show_progress=True, threads=1) as model:
    print(json.dumps([model.encode(texts).tolist(), len(done)]), flush=True)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("made") / "mine")


def started(checkpoint: Path, wait: Path | str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", OPEN, str(checkpoint), str(wait), json.dumps(TEXTS)]
    with of_a_terminal():
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_the_middle(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "exporting\n"


def finished(process: subprocess.Popen[str]) -> tuple[Any, int, str]:
    """Vectors, exports, and what was said."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    vectors, count = json.loads(out.splitlines()[-1])
    return np.array(vectors, np.float32), count, err


def test_of_two_processes_one_exports_and_the_other_waits(checkpoint: Path, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.write_text("")
    first = started(checkpoint, hold)
    in_the_middle(first)
    second = started(checkpoint)
    assert second.stderr is not None
    said = second.stderr.readline()
    assert "waiting for another process, which exports mine" in said
    assert not entries.entries()  # nothing that could be taken for whole
    assert len(entries.writing()) == 1
    hold.unlink()
    found = [finished(process) for process in (first, second)]
    assert [count for _, count, _ in found] == [1, 0]
    for vectors, _, _ in found:
        close(vectors, reference_vectors(checkpoint))


def test_of_many_that_start_at_once_one_exports(checkpoint: Path) -> None:
    processes = [started(checkpoint) for _ in range(3)]
    found = [finished(process) for process in processes]
    assert sorted(count for _, count, _ in found) == [0, 0, 1]
    assert all(np.array_equal(vectors, found[0][0]) for vectors, _, _ in found)


def test_threads_of_one_process_export_once(checkpoint: Path, exports: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def opened(_: int) -> Any:
        with EmbeddingModel.from_checkpoint(checkpoint, verify=False, threads=1) as model:
            return model.encode(TEXTS)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(opened, range(4)))
    assert exports == ["mine"]
    for vectors in found:
        close(vectors, reference_vectors(checkpoint))


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_process_that_was_killed_leaves_no_entry_and_no_lock(
    checkpoint: Path, tmp_path: Path, cache: Path, exports: list[str]
) -> None:
    hold = tmp_path / "hold"
    hold.write_text("")
    process = started(checkpoint, hold)
    in_the_middle(process)
    waiting = started(checkpoint)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert len(list(cache.glob(".*.partial"))) == 1
    vectors, count, _ = finished(waiting)
    assert count == 1
    close(vectors, reference_vectors(checkpoint))
    assert not list(cache.glob(".*.partial"))
    process.communicate()
    with EmbeddingModel.from_checkpoint(checkpoint, verify=False):
        assert exports == []


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_what_a_killed_process_left_is_cleared(checkpoint: Path, tmp_path: Path, cache: Path) -> None:
    hold = tmp_path / "hold"
    hold.write_text("")
    process = started(checkpoint, hold)
    in_the_middle(process)
    (busy,) = entries.clear()
    assert (busy.freed, busy.left) == (0, "another process is writing it")
    assert len(list(cache.glob(".*.partial"))) == 1
    process.kill()
    process.communicate()
    (gone,) = entries.clear()
    assert gone.freed > 50_000
    assert gone.left == ""
    assert list(cache.iterdir()) == []


def test_clearing_does_not_disturb_models_that_are_open(checkpoint: Path) -> None:
    with EmbeddingModel.from_checkpoint(checkpoint, verify=False) as model:
        wanted = model.encode(TEXTS)
        entries.clear()
        assert not model.path.exists()
        np.testing.assert_array_equal(model.encode(TEXTS * 20), np.tile(wanted, (20, 1)))


def test_an_entry_that_is_cleared_between_finding_and_opening_is_made_again(
    checkpoint: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastembed_rt.models import checkpoint as opening

    real = opening.find
    calls: list[Any] = []

    def cleared(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        if not calls:
            entries.clear()
        calls.append(found)
        return found

    monkeypatch.setattr(opening, "find", cleared)
    with EmbeddingModel.from_checkpoint(checkpoint, verify=False) as model:
        close(model.encode(TEXTS), reference_vectors(checkpoint))
    assert exports == ["mine", "mine"]


def test_without_locks_the_first_that_is_finished_is_kept(
    checkpoint: Path, cache: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastembed_rt.cache import exporting

    monkeypatch.setattr(locks, "_taken", lambda _: locks.NONE)
    real = exporting.export
    inner: list[Path | None] = []

    def export(*arguments: Any, **options: Any) -> Any:
        made = real(*arguments, **options)
        if not inner:
            inner.append(None)  # once
            inner.append(EmbeddingModel.from_checkpoint(checkpoint, verify=False).path)
        return made

    monkeypatch.setattr(exporting, "export", export)
    with EmbeddingModel.from_checkpoint(checkpoint, verify=False) as model:
        assert model.path == inner[1]
    assert len(exports) == 2
    assert not list(cache.glob(".*.partial"))


def test_a_lock_that_is_held_is_busy_and_its_file_alone_is_not(tmp_path: Path) -> None:
    file, waited = tmp_path / "a.lock", []
    file.write_text("4711")
    with locks.locked(file) as held:
        assert held == locks.HELD
        with locks.locked(file, wait=False) as other:
            assert other == locks.BUSY
    with locks.locked(file, wait=False) as again:
        assert again == locks.HELD
        file.unlink()  # as its holder may
        with locks.locked(file, wait=False, waiting=lambda: waited.append(1)) as fresh:
            assert fresh == locks.HELD
    assert waited == []
    with locks.locked(tmp_path / "nowhere" / "a.lock") as none:
        assert none == locks.NONE


@pytest.mark.skipif(os.name != "posix", reason="fork")
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    with locks.locked(file):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with locks.locked(file, wait=False) as state:
            assert state == locks.HELD
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_without_the_exports_packages_what_is_in_the_cache_opens(checkpoint: Path, run_script: Any) -> None:
    code = (
        "import sys\nsys.modules['onnx'] = sys.modules['safetensors'] = None\n"
        "from fastembed_rt import EmbeddingModel\n"
        "model = EmbeddingModel.from_checkpoint(sys.argv[1], verify=False)\n"
        "print(model.encode('a dog').shape)\n"
        "assert not any(name.startswith(('fastembed_rt_export', 'huggingface_hub', 'torch')) for name in sys.modules)"
    )
    cold = run_script(code, checkpoint)
    assert cold.returncode == 1
    assert MissingDependencyError.__name__ in cold.stderr
    assert "pip install 'fastembed-rt[export]'" in cold.stderr
    EmbeddingModel.from_checkpoint(checkpoint, verify=False).close()
    warm = run_script(code, checkpoint)
    assert (warm.returncode, warm.stdout) == (0, "(24,)\n"), warm.stderr
