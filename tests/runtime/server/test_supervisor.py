"""The process that watches workers, here stand-ins: what it cannot say, start or change costs it no place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import io
import logging
import os
import signal
import socket
import sys
import time
from typing import Any

import pytest
from stand_in_workers import Held, Watched, all_ready, pids, until

from fastembed_rt.server import lasting, workers
from fastembed_rt.server.lines import Handler, StandardError
from fastembed_rt.server.running import say
from fastembed_rt.server.workers import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  no files on a disk


async def nothing(supervisor: Supervisor) -> None:
    """Ends at once."""


def fails(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: int, times: int) -> None:
    """A function that cannot do its work for lack of something, so many times, from a call on."""
    works, calls = getattr(owner, name), 0

    def lacking(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if after < calls <= after + times:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return works(*arguments, **options)

    monkeypatch.setattr(owner, name, lacking)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_first_start_for_which_there_is_no_process_ends_with_an_error(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, slot: int
) -> None:
    asyncio.run(until(lambda: True))  # what asyncio opens once is open
    before = descriptors()
    tries = workers.FIRST_STARTS if slot else 1  # while others answer
    fails(monkeypatch, asyncio, "create_subprocess_exec", after=slot, times=tries)
    assert watched.run(nothing) == 1
    assert f"error: worker {slot} could not be run: BlockingIOError" in watched.said[-1]
    gc.collect()
    assert descriptors() <= before + 1  # the board's


@pytest.mark.parametrize(("owner", "name"), [(asyncio, "create_subprocess_exec"), (socket, "socketpair")])
def test_a_place_is_filled_again_when_there_are_processes_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        before, open_before = pids(supervisor), descriptors()
        fails(monkeypatch, owner, name, after=0, times=2)
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: not all_ready(supervisor))
        await until(lambda: all_ready(supervisor))
        assert pids(supervisor)[0] == before[0]
        assert pids(supervisor)[1] != before[1]
        assert descriptors() <= open_before

    assert watched.run(scenario) == 0
    told = [line for line in watched.said if line.startswith("worker 1 ")]
    assert [line.partition("; ")[2] for line in told] == [f"started again in {wait} s" for wait in (0.2, 0.4, 0.8)]
    assert ["could not be run" in line for line in told] == [False, True, True]


def test_a_worker_that_says_nonsense_is_replaced(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        before = pids(supervisor)
        await supervisor._ask(supervisor._workers[1], "nonsense", 5.0)
        await until(lambda: all_ready(supervisor) and pids(supervisor)[1] != before[1])
        assert pids(supervisor)[0] == before[0]

    assert watched.run(scenario) == 0


def test_one_that_loads_for_long_is_told_of_and_keeps_none_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting, "FIRST_SECONDS", 0.5)
    stuck = [Held(watched, "ready", slot) for slot in (0, 2)]
    told = list[str]()

    async def waits() -> None:
        await until(watched.files.with_name("loaded-3").exists)  # though neither the first nor the third is ready
        await until(lambda: any("has been loading for 1 s; 2 of 4 answer meanwhile" in line for line in watched.said))
        told.extend(watched.said)
        assert 0.5 < seconds_of_loading(await supervisors[0]._metrics()) < 30
        for one in stuck:
            one.let()

    async def scenario(supervisor: Supervisor) -> None:
        assert seconds_of_loading(await supervisor._metrics()) == 0

    async def both() -> int:
        code, _ = await asyncio.gather(watched.running(scenario, 4), waits())
        return code

    supervisors = list[Supervisor]()
    run = Supervisor.run

    async def noted(supervisor: Supervisor) -> int:
        supervisors.append(supervisor)
        return await run(supervisor)

    monkeypatch.setattr(Supervisor, "run", noted)
    assert asyncio.run(both()) == 0
    assert any(line.startswith("worker 0 (process ") and "for 0.5 s; none of 4 answer" in line for line in told), told
    assert {line.partition(" after ")[0] for line in watched.said if "is ready" in line} == {
        "worker 0 is ready",
        "worker 2 is ready",
    }


def seconds_of_loading(metrics: str) -> float:
    (found,) = (line for line in metrics.splitlines() if line.startswith("fastembed_rt_loading_seconds "))
    return float(found.split()[1])


def test_one_that_cannot_even_be_killed_does_not_keep_the_server(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, left = workers._signal, list[int]()

    def signals(process: Any, number: int) -> None:
        if process is not None and process.pid in left:
            return  # as the kernel has it with a process that waits for a disk
        send(process, number)

    async def scenario(supervisor: Supervisor) -> None:
        monkeypatch.setattr(workers, "_signal", signals)
        monkeypatch.setattr(workers, "SPARE_SECONDS", 0.2)
        left.append(pids(supervisor)[1])

    try:
        assert watched.run(scenario) == 0
        assert f"worker 1 cannot be ended now; process {left[0]} is left behind" in watched.said
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have seen by itself that its server is gone
            os.kill(left[0], signal.SIGKILL)


def test_who_is_being_started_when_all_are_told_to_end_is_told_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, processes, stopped = asyncio.create_subprocess_exec, list[Any](), asyncio.Event()

    async def starts(*arguments: Any, **options: Any) -> Any:
        processes.append(await start(*arguments, **options))
        if len(processes) == 3:  # who comes in another's place
            os.kill(os.getpid(), signal.SIGTERM)
            await stopped.wait()
        return processes[-1]

    def signals(process: Any, number: int) -> None:
        send(process, number)
        if number == signal.SIGTERM:
            stopped.set()

    async def scenario(supervisor: Supervisor) -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
        os.kill(pids(supervisor)[1], signal.SIGKILL)
        await until(supervisor._stopping.is_set)

    send = workers._signal
    monkeypatch.setattr(workers, "_signal", signals)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
    assert watched.run(scenario) == 0
    assert [process.returncode for process in processes] == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM]


def test_one_that_ends_as_soon_as_it_is_ready_keeps_no_other_from_being_started(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, ended = Supervisor._one, list[int]()

    async def ends(supervisor: Supervisor, worker: Any) -> int:
        if ended:
            return await one(supervisor, worker)
        ended.append(worker.slot)
        await asyncio.sleep(0.05)  # others wait for it
        supervisor._is_ready(worker, {"ready": ["it runs"], "models": {"m": "old"}})
        return 1

    monkeypatch.setattr(Supervisor, "_one", ends)
    assert watched.run(nothing) == 0  # all were ready
    assert ended == [0]


def test_a_hang_is_seen_while_others_are_still_started(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "timeout", 1.0)
    ready, loaded = Held(watched, "ready", 1), watched.files.with_name("loaded-1")

    async def hang() -> None:
        await until(loaded.exists)
        watched.files.with_name("hold-pong-0").touch()
        await until(lambda: any("has not answered for 1 s; killed" in line for line in watched.said))
        watched.files.with_name("hold-pong-0").unlink()
        ready.let()

    async def both() -> int:
        code, _ = await asyncio.gather(watched.running(nothing), hang())
        return code

    assert asyncio.run(both()) == 0


def test_an_answer_is_for_who_has_asked_and_not_for_who_comes_in_its_place(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        async def metrics() -> str:
            await until(lambda: all_ready(supervisor) and pids(supervisor)[1] != before)
            return ""

        monkeypatch.setattr(supervisor, "_metrics", metrics)
        before = pids(supervisor)[1]
        worker = supervisor._workers[1]
        answering = asyncio.ensure_future(supervisor._answer(worker, {"ask": "metrics", "number": 1}))
        await asyncio.sleep(0)
        os.kill(before, signal.SIGKILL)
        await until(lambda: not worker.ready.is_set())
        await answering
        await supervisor._ask(worker, "ping", 5.0)
        assert not watched.files.with_name("answered-1").exists()

    assert watched.run(scenario) == 0


def test_a_second_interrupt_waits_for_no_answer(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    send, sent = workers._signal, list[int]()

    def signals(process: Any, number: int) -> None:
        sent.append(number)
        if number != signal.SIGTERM:  # which its work would keep from ending it
            send(process, number)

    async def scenario(supervisor: Supervisor) -> None:
        monkeypatch.setattr(workers, "_signal", signals)
        monkeypatch.setattr(workers, "SPARE_SECONDS", 60.0)
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: len(sent) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    assert watched.run(scenario) == 0
    assert sent[:4] == [signal.SIGTERM] * 2 + [signal.SIGINT] * 2


def test_lines_wait_for_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)
    monkeypatch.setattr(sys, "stderr", open(writer, "w"))  # noqa: PTH123, SIM115
    stderr = StandardError()
    began = time.monotonic()
    stderr.say(f"line {k}" for k in range(100))
    logging.getLogger("a test's").addHandler(Handler(stderr.lines))
    logging.getLogger("a test's").error("an error")
    stderr.lines.close(0.1)
    assert time.monotonic() - began < 5
    read = b""
    while b"an error" not in read:
        read += os.read(reader, 1 << 16)
    assert read.strip(b".").decode().splitlines() == [*(f"line {k}" for k in range(100)), "an error"]
    sys.stderr.close()
    StandardError().say(["to nobody"])  # which is closed
    os.close(reader)


def as_stderr(place: str | int) -> io.TextIOWrapper:
    """As Python opens its own: nothing is kept."""
    return io.TextIOWrapper(open(place, "wb", buffering=0), write_through=True)  # noqa: PTH123


def test_what_nobody_can_read_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    say(["a line", "another"])
    assert capsys.readouterr().err == "a line\nanother\n"
    reader, writer = os.pipe()
    os.close(reader)
    full, broken, closed = as_stderr("/dev/full"), as_stderr(writer), as_stderr("/dev/null")
    closed.close()
    for stderr in (full, broken, closed, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        say(["a line"])
    monkeypatch.undo()
    assert capsys.readouterr().out == ""  # which is for the access log
    full.close()
    broken.close()
