"""Several workers on one port: killed, drained, reloaded and counted, under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Load, Started, wait_for

from fastembed_rt import native
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.machine import available_threads
from fastembed_rt.run import shared_weights
from fastembed_rt.server import packed
from fastembed_rt.server.workers import environments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TEXT = "the cat sleeps."
BODY = json.dumps({"inputs": TEXT}).encode()


def under_load(port: int, connections: int, seconds: float, during: Any = None, **headers: str) -> Load:
    load = Load(port, BODY)

    async def both() -> None:
        task = asyncio.create_task(load.run(connections, seconds))
        if during is not None:
            await asyncio.sleep(seconds / 3)
            await asyncio.to_thread(during)
        await task

    asyncio.run(both())
    return load


def test_workers_answer_alike_and_are_counted_together(directories: Any, loaded: Any) -> None:
    with Started(directories.models["encoder"], "--workers", 2) as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        load = Load(started.port, BODY)
        asyncio.run(load.run(8, requests=200))
        assert (load.answers, load.lost, load.refused) == ({200: 200}, [], 0)
        (body,) = load.bodies
        np.testing.assert_array_equal(np.array(json.loads(body)[0], np.float32), loaded.encoder.encode(TEXT))
        counted = 'te_request_count{method="single",model="encoder"}'
        assert started.metrics()[counted] == 200
        assert started.ask("GET", "/info")[2]["threads"] == max(available_threads() // 2, 1)
        assert len(started.children()) == 2
        os.kill(started.children()[0], signal.SIGKILL)
        wait_for(lambda: len(started.children()) == 2 and started.metrics()["fastembed_rt_workers"] == 2)
        assert started.metrics()[counted] == 200  # what the dead one had counted is not forgotten
        began = time.monotonic()
        code, said = started.end(signal.SIGTERM)
        assert (code, "ended with code -9" in said) == (0, True), said
        assert time.monotonic() - began < 20


def folder_of(started: Started) -> Path:
    """In which the workers have their packed weights."""
    (name,) = {
        line.partition("=")[2]
        for pid in started.children()
        for line in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")
        if line.startswith(shared_weights.VARIABLE)
    }
    return Path(name)


def weights_of(started: Started, folder: Path) -> list[set[str]]:
    """Numbers of the files of shared weights in memory, by worker."""
    found: list[set[str]] = []
    for pid in started.children():
        try:
            maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        except OSError:  # it ended just now
            return []
        lines = [line.split(maxsplit=5) for line in maps.splitlines()]
        found.append({line[4] for line in lines if len(line) == 6 and line[5].startswith(f"{folder}/")})
    return found


def files_of(folder: Path) -> set[str]:
    return {str(file.stat().st_ino) for file in folder.iterdir()}


@pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no files in memory here")
def test_workers_have_packed_weights_once_and_a_reload_forgets_the_old(two_in_int8: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.symlink_to(two_in_int8[0])

    def reloaded() -> None:
        before = started.metrics()["fastembed_rt_workers"]
        assert before == 2
        status, _, answer = started.ask("POST", "/admin/reload", {}, authorization="Bearer k")
        assert status == 200, answer

    with Started(place, "--workers", 2, "--precision", "int8", "--api-key", "k") as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        folder = folder_of(started)
        first = files_of(folder)
        assert len(first) > 2
        assert weights_of(started, folder) == [first] * 2
        reloaded()  # the same again
        assert (files_of(folder), weights_of(started, folder)) == (first, [first] * 2)
        os.kill(started.children()[1], signal.SIGKILL)
        wait_for(lambda: weights_of(started, folder) == [first] * 2)  # whoever comes in its place has them, too
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        place.unlink()
        place.symlink_to(two_in_int8[1])
        time.sleep(2 * packed.COARSE)  # what was used just now would stay until the next time
        reloaded()
        second = files_of(folder)
        assert first.isdisjoint(second)
        wait_for(lambda: weights_of(started, folder) == [second] * 2)
        shutil.rmtree(folder)  # by somebody who tidies up
        os.kill(started.children()[1], signal.SIGKILL)
        wait_for(lambda: len(started.children()) == 2 and started.metrics().get("fastembed_rt_workers") == 2)
        shutil.rmtree(folder)
        reloaded()
        assert started.ask("POST", "/embed", {"inputs": TEXT}, authorization="Bearer k")[0] == 200
        assert started.end(signal.SIGTERM)[0] == 0
    assert not folder.exists()


def test_what_servers_left_that_were_killed_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "IN_MEMORY", tmp_path)
    monkeypatch.delenv(shared_weights.VARIABLE, raising=False)
    others = ["fastembed-rt-server-mine", "fastembed-rt-weights", "other"]
    for name in [*others, "fastembed-rt-server-0a_b1c2d"]:
        (tmp_path / name).mkdir()
    with packed.folder() as first, packed.folder() as second:
        assert first is not None
        assert second is not None
        assert first.stat().st_mode & 0o777 == 0o700
        there = sorted(path.name for path in tmp_path.iterdir())
        assert there == sorted([*others, first.name, second.name])  # one that runs keeps its own
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    monkeypatch.setenv(shared_weights.VARIABLE, "/somewhere")
    with packed.folder() as made:
        assert made is None  # the user's own
    monkeypatch.delenv(shared_weights.VARIABLE)
    monkeypatch.setattr(packed, "IN_MEMORY", tmp_path / "missing")
    with packed.folder() as made:
        assert made is None


def test_a_worker_that_is_killed_costs_its_own_requests_alone(directories: Any) -> None:
    with Started(directories.models["encoder"], "--workers", 2) as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        killed: list[int] = []

        def kill() -> None:
            killed.append(started.children()[1])
            os.kill(killed[0], signal.SIGKILL)

        load = under_load(started.port, 8, 2.0, kill)
        assert set(load.answers) == {200}
        assert load.refused == 0  # the socket is everybody's
        assert 0 < len(load.lost) <= 8, load.lost  # what it was at, a connection each
        wait_for(lambda: len(started.children()) == 2)
        assert killed[0] not in started.children()


def test_a_reader_of_stderr_that_is_gone_costs_no_worker(directories: Any) -> None:
    started = Started(directories.models["encoder"], "--workers", 2)
    assert started.process.stderr is not None
    started.process.stderr.close()
    with started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        killed = started.children()[1]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in started.children() and len(started.children()) == 2)
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        assert started.end(signal.SIGTERM)[0] == 0


def test_a_worker_that_hangs_is_killed_and_one_that_pauses_is_not(directories: Any) -> None:
    with Started(directories.models["encoder"], "--workers", 2, "--worker-timeout", 2) as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        pausing, hanging = started.children()
        os.kill(pausing, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(pausing, signal.SIGCONT)
        os.kill(hanging, signal.SIGSTOP)
        wait_for(lambda: hanging not in started.children() and len(started.children()) == 2)
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        assert pausing in started.children()
        _, said = started.end(signal.SIGTERM)
        assert "has not answered for 2 s; killed" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_drain_under_load_loses_nothing(directories: Any, workers: int) -> None:
    with Started(directories.models["encoder"], "--workers", workers) as started:
        load = under_load(started.port, 16, 1.5, lambda: started.process.send_signal(signal.SIGTERM))
        assert started.end()[0] == 0
        assert set(load.answers) == {200}
        assert load.lost == []
        assert load.refused > 0  # it is gone


def test_workers_are_started_again_while_nobody_reads_what_is_said(directories: Any) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)
    with Started(directories.models["encoder"], "--workers", 2, stderr=writer) as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        before = started.children()
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: len(started.children()) == 2 and started.children() != before)
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        assert started.end(signal.SIGTERM)[0] == 0
    os.close(reader)
    os.close(writer)


def test_what_cannot_start_is_said_once_and_ends(directories: Any, tmp_path: Path) -> None:
    started = Started(tmp_path / "missing", "--workers", 2)
    code, said = started.end()
    assert code != 0
    assert said.count("error:") == 1, said

    broken = tmp_path / "broken"
    shutil.copytree(directories.models["encoder"], broken)
    (broken / "tokenizer.json").write_text("{}")
    began = time.monotonic()
    started = Started(broken, "--workers", 2)
    code, said = started.end()
    assert (code != 0, said.count("error:")) == (True, 1), said
    assert time.monotonic() - began < 60

    with Started(directories.models["encoder"]) as first:
        command = [sys.executable, "-m", "fastembed_rt", "serve", str(directories.models["encoder"])]
        for more in ([], ["--workers", "2"]):
            done = subprocess.run(
                [*command, "--port", str(first.port), *more], capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, "cannot listen on 127.0.0.1 port" in done.stderr) == (2, True), done.stderr


FAILS_TO_START = """
# Workers fail at their start, other than the first that comes and those after so many.
import os
from pathlib import Path
from fastembed_rt.cli import served
from fastembed_rt.errors import InvalidInputError
load = served._app
def counted(*args, **kwargs):
    place = Path(os.environ["STARTS"])
    (place / str(os.getpid())).touch()
    if 1 < len(list(place.iterdir())) <= 1 + int(os.environ["FAILURES"]):
        raise InvalidInputError("no file there just now")
    return load(*args, **kwargs)
served._app = counted
"""


@pytest.mark.parametrize("failures", [2, 3])
def test_a_worker_that_fails_at_its_start_while_others_answer_is_tried_again(
    directories: Any, tmp_path: Path, failures: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILS_TO_START)
    (tmp_path / "starts").mkdir()
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": paths, "STARTS": str(tmp_path / "starts"), "FAILURES": str(failures)}
    with Started(directories.models["encoder"], "--workers", 2, **env) as started:
        if failures == 2:
            wait_for(lambda: started.metrics()["fastembed_rt_workers"] == 2)
            code, said = started.end(signal.SIGTERM)
            assert code == 0
        else:  # it will not come: better said than served by fewer than were asked for
            code, said = started.end()
            assert code == 2
        assert said.count("error: no file there just now") == failures, said
        assert said.count("worker 1 ended with code 2") == 2, said


def test_workers_end_with_the_process_that_started_them(directories: Any) -> None:
    with Started(directories.models["encoder"], "--workers", 2) as started:
        wait_for(lambda: len(started.children()) == 2)
        workers = started.children()
        started.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{number}/cmdline").exists() for number in workers))


def test_a_gpu_for_each_worker() -> None:
    assert environments(2, gpus=None) == [{}, {}]
    assert environments(2, gpus=["3", "1"]) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    with pytest.raises(InvalidInputError, match="3 workers, and 2 GPUs"):
        environments(3, gpus=["0", "1"])
    # provider="auto" is no error where GPUs are few, or none; nor do all workers take the first.
    assert environments(2, gpus=[], automatic=True) == [{}, {}]
    shared = environments(3, gpus=["0", "1"], automatic=True)
    assert [entry["CUDA_VISIBLE_DEVICES"] for entry in shared] == ["0", "1", "0"]


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_who_waits_is_let_in_and_nobody_else() -> None:
    from fastembed_rt.server.sockets import bind, let_nobody_in

    (listener,) = bind("127.0.0.1", 0)
    listener.setblocking(True)
    address = listener.getsockname()
    with socket.create_connection(address, timeout=5) as early:
        let_nobody_in(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        early.sendall(b"a")
        assert listener.accept()[0].recv(1) == b"a"
        listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
