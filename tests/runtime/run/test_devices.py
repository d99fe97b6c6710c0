"""One process a device: the vectors of one process in the same order, and no call that waits for a dead worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS
from tolerances import REORDERED, close

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ProviderUnavailableError, WorkerError
from fastembed_rt.run import devices

MANY = [f"{text} {k}" for k in range(40) for text in TEXTS]


@pytest.fixture(scope="module")
def two(model_dir: Path) -> Iterator[EmbeddingModel]:
    with EmbeddingModel(model_dir, device_ids=[0, 1], threads=2, max_batch_tokens=64) as loaded:
        yield loaded


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def workers(model: EmbeddingModel) -> tuple[int, ...]:
    found: tuple[int, ...] = model._engine.processes  # type: ignore[union-attr]
    return found


def test_vectors_are_those_of_one_process_in_the_same_order(two: EmbeddingModel, model: EmbeddingModel) -> None:
    close(two.encode(MANY), model.encode(MANY), REORDERED)
    close(two.encode("a cat"), model.encode("a cat"), REORDERED)
    assert two.encode([]).shape == (0, two.dim)


def test_prompts_streams_and_storage_forms_are_the_same(two: EmbeddingModel, model: EmbeddingModel) -> None:
    close(list(two.embed(iter(MANY), prompt_name="query")), model.encode(MANY, prompt_name="query"), REORDERED)
    np.testing.assert_array_equal(two.encode(MANY, precision="binary"), model.encode(MANY, precision="binary"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_both_workers_work(two: EmbeddingModel) -> None:
    def used() -> list[int]:
        """Ticks of the clock, a hundredth of a second, that each has computed."""
        stats = (Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in workers(two))
        return [int(words[11]) for words in stats]

    before = used()
    for _ in range(200):  # a call of so small a model may end within a tick
        two.encode(MANY * 4)
        if all(later > earlier for later, earlier in zip(used(), before, strict=True)):
            return
    raise AssertionError((before, used()))


def test_threads_may_call_at_once(two: EmbeddingModel, model: EmbeddingModel) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(two.encode, MANY[:60]))
    close(np.stack(found), model.encode(MANY[:60]), REORDERED)


def test_closing_ends_the_workers_and_further_use_is_an_error(model_dir: Path) -> None:
    model = EmbeddingModel(model_dir, device_ids=[0, 1], threads=2)
    processes = workers(model)
    assert all(map(alive, processes))
    model.close()
    assert not any(map(alive, processes))
    with pytest.raises(InvalidInputError, match="closed"):
        model.encode("a")


def test_a_model_that_nobody_holds_ends_its_workers(model_dir: Path) -> None:
    import gc

    processes = workers(EmbeddingModel(model_dir, device_ids=[0, 1], threads=2))
    gc.collect()
    assert not any(map(alive, processes))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX")
def test_the_child_of_a_fork_leaves_the_workers_alone(run_script: Any, model_dir: Path) -> None:
    code = (
        "import os, sys; from fastembed_rt import EmbeddingModel\n"
        "model = EmbeddingModel(sys.argv[1], device_ids=[0, 1], threads=2)\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"
        "os.waitpid(child, 0); print(model.encode(['a', 'b']).shape, flush=True)"
    )
    assert run_script(code, model_dir).stdout == "(2, 24)\n"


def test_a_model_that_is_dropped_ends_its_workers(run_script: Any, model_dir: Path) -> None:
    code = (
        "import sys; from fastembed_rt import EmbeddingModel\n"
        "model = EmbeddingModel(sys.argv[1], device_ids=[0, 1], threads=2); model.encode(['a', 'b'])\n"
        "print(*model._engine.processes, flush=True)"
    )
    done = run_script(code, model_dir)
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 10
    while any(alive(int(process)) for process in done.stdout.split()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(int(process)) for process in done.stdout.split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("while_idle", [True, False])
def test_a_dead_worker_is_reported_with_its_exit_code_and_nothing_hangs(model_dir: Path, while_idle: bool) -> None:
    with EmbeddingModel(model_dir, device_ids=[0, 1], threads=2, max_batch_tokens=64) as model:
        victim = workers(model)[1]
        if not while_idle:
            # Stopped, it has work and does not answer when it is killed.
            os.kill(victim, signal.SIGSTOP)
            import threading

            threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
        else:
            os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(WorkerError, match=r"worker of device 1 ended with exit code -9 \(SIGKILL\)"):
            for _ in range(20):
                model.encode(MANY)
        with pytest.raises(WorkerError, match="device 1"):
            model.encode("one more")
        assert time.monotonic() - start < 30


def test_a_worker_that_cannot_load_raises_its_own_error(model_dir: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    for file in copy.glob("*.onnx"):
        file.write_bytes(b"not a graph")
    with pytest.raises(Exception, match="cannot load"):
        EmbeddingModel(copy, device_ids=[0, 1], check_hashes=False)


def test_a_provider_that_is_not_there_is_named_as_ever(model_dir: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has GPUs")
    with pytest.raises(ProviderUnavailableError, match="'cuda' is not in this onnxruntime"):
        EmbeddingModel(model_dir, provider="cuda", device_ids=[0, 1])


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([], InvalidInputError, r"device_ids \[\] is not possible"),
        ([0, 0], InvalidInputError, "each once"),
        ([-1], InvalidInputError, "from 0 on"),
        (1, InvalidTypeError, r"device_ids is int; pass a list"),
        ("01", InvalidTypeError, "device_ids is str"),
        ([0, "1"], InvalidTypeError, "not all whole numbers"),
        ([True], InvalidTypeError, "not all whole numbers"),
    ],
)
def test_device_ids_are_checked(model_dir: Path, given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        EmbeddingModel(model_dir, device_ids=given)


def test_a_script_without_a_main_guard_works(run_script: Any, model_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from fastembed_rt import EmbeddingModel\n"
        "print(EmbeddingModel(sys.argv[1], device_ids=[0, 1], threads=2).encode(['a'] * 9).shape)\n"
    )
    code = "import runpy, sys; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    assert run_script(code, script, model_dir).stdout == "(9, 24)\n"


def test_the_command_takes_devices(model_dir: Path, model: EmbeddingModel, tmp_path: Path) -> None:
    from fastembed_rt import cli

    (tmp_path / "texts.txt").write_text("a cat\na dog\nthe old tree\n")
    output = tmp_path / "vectors.npy"
    command = ["embed", str(model_dir), str(tmp_path / "texts.txt"), "-o", str(output), "--threads", "2", "-q"]
    assert cli.main([*command, "--device-ids", "0,1"]) == 0
    close(np.load(output), model.encode(["a cat", "a dog", "the old tree"]), REORDERED)
    assert cli.main([*command, "--device-ids", "0,one"]) == 2


@pytest.mark.gpu
def test_two_workers_on_gpus_give_the_vectors_of_one(model_dir: Path) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with EmbeddingModel(model_dir, provider="cuda", device_ids=[0, 1]) as pair, EmbeddingModel(model_dir) as plain:
        np.testing.assert_allclose(pair.encode(MANY), plain.encode(MANY), rtol=0, atol=1e-4)


def test_a_late_answer_is_not_taken_for_that_of_a_call_that_came_behind() -> None:
    failure = devices._Failure()
    worker = devices._Worker.__new__(devices._Worker)
    worker._running, worker._room, worker._error = deque(), threading.Semaphore(devices.AHEAD), None
    first, second = (devices._Job([], np.zeros(0, np.int64), failure) for _ in range(2))
    worker._running.append(first)
    worker.fail(InvalidInputError("closed"))  # while the worker's process computes
    worker._running.append(second)  # by the thread that sends, before it sees the error
    answers = iter([np.ones((1, 1)), WorkerError("the process is gone")])

    def read() -> Any:
        answer = next(answers)
        if isinstance(answer, WorkerError):
            raise answer
        return answer

    worker._read = read  # type: ignore[method-assign]
    worker._report = lambda error: None  # type: ignore[method-assign]
    worker._receive_all()
    for job in (first, second):
        with pytest.raises(InvalidInputError, match="closed"):
            job.result()
