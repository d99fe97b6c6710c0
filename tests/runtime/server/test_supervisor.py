"""The process that watches workers, here stand-ins: what it cannot say, start or change costs it no place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import io
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fastembed_rt.server import lasting, workers
from fastembed_rt.server.lines import Handler, StandardError
from fastembed_rt.server.running import say
from fastembed_rt.server.workers import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
STAND_IN = """
import json, pathlib, socket, sys, time
told = json.loads(sys.stdin.readline())
channel = socket.socket(fileno=told["channel"])
files = pathlib.Path(told["files"])
def send(**message):
    channel.sendall(json.dumps(message).encode() + b"\\n")
def wait(what):  # until a file allows it, where one is there that forbids it
    while (files.parent / f"hold-{what}-{told['slot']}").exists():
        time.sleep(0.01)
loaded = files.read_text()
(files.parent / f"loaded-{told['slot']}").touch()
wait("ready")
send(ready=["it runs"], models={"m": loaded})
for line in channel.makefile():
    message = {"do": None, **json.loads(line)}
    if message["do"] == "reload":
        (files.parent / f"asked-{told['slot']}").touch()
        wait("reload")
    if message["do"] == "reload" and told["slot"] in told["stubborn"]:
        send(reloaded=message["number"], error="no memory")
    elif message["do"] == "reload":
        now = files.read_text()
        send(reloaded=message["number"], models=[{"name": "m", "now": now}], identities={"m": now})
    elif "answer" in message:
        (files.parent / f"answered-{told['slot']}").touch()
    elif message["do"] == "ping":
        wait("pong")
        send(pong=message["number"])
    elif message["do"] == "nonsense":
        channel.sendall(b"no JSON\\n")
"""
Scenario = Callable[[Supervisor], Awaitable[None]]


class Watched:
    """Supervisors of stand-ins, what they said, and the version of the files that workers load."""

    def __init__(self, files: Path) -> None:
        self.files, self.said, self.timeout = files, list[str](), 0.0
        files.write_text("old")

    def run(self, scenario: Scenario, count: int = 2, *, stubborn: tuple[int, ...] = ()) -> int:
        """Its exit code; the scenario begins when all workers are ready."""
        return asyncio.run(self.running(scenario, count, stubborn=stubborn))

    async def running(self, scenario: Scenario, count: int = 2, *, stubborn: tuple[int, ...] = ()) -> int:
        """`run` in an event loop."""
        settings = {"environment": [{}] * count, "files": str(self.files), "stubborn": stubborn}

        supervisor = Supervisor(settings, [], count, drain_seconds=1, worker_timeout=self.timeout, say=self.said.extend)
        running = asyncio.ensure_future(supervisor.run())
        try:
            await until(lambda: running.done() or all_ready(supervisor))
            if not running.done():
                await scenario(supervisor)
        finally:
            supervisor._stopping.set()
        return await asyncio.wait_for(running, 20)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(workers, "BOOT", STAND_IN)
    return Watched(tmp_path / "files")


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.01)


def all_ready(supervisor: Supervisor) -> bool:
    return all(worker.ready.is_set() for worker in supervisor._workers)


def pids(supervisor: Supervisor) -> list[int]:
    return [worker.process.pid for worker in supervisor._workers if worker.process is not None]


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


def test_who_cannot_follow_a_reload_is_started_again_from_the_new_files(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        before = pids(supervisor)
        watched.files.write_text("new")
        assert await supervisor._reload() == {
            "models": [{"name": "m", "now": "new"}],
            "restarted": [1],
            "loading": [],
        }
        await until(lambda: all_ready(supervisor) and pids(supervisor)[1] != before[1])
        assert [worker.identities for worker in supervisor._workers] == [{"m": "new"}] * 3
        assert pids(supervisor)[::2] == before[::2]  # the last one was not left out

    assert watched.run(scenario, 3, stubborn=(1,)) == 0
    assert "worker 1 cannot reload and is started again: no memory" in watched.said


@pytest.mark.parametrize(("asker", "order"), [(None, [0, 1, "ends", 2]), (1, [0, 1, 2, "ends"])])
def test_who_waits_for_the_answer_of_a_reload_ends_last(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, asker: int | None, order: list[Any]
) -> None:
    done: list[Any] = []
    ask, send = Supervisor._ask, workers._signal

    async def asks(supervisor: Supervisor, worker: Any, what: str, seconds: float) -> Any:
        done.append(worker.slot)
        return await ask(supervisor, worker, what, seconds)

    def signals(process: Any, number: int) -> None:
        if process is not None and number == signal.SIGTERM:
            done.append("ends")
        send(process, number)

    async def scenario(supervisor: Supervisor) -> None:
        monkeypatch.setattr(Supervisor, "_ask", asks)
        monkeypatch.setattr(workers, "_signal", signals)
        await supervisor._reload(None if asker is None else supervisor._workers[asker])
        assert done == order

    assert watched.run(scenario, 3, stubborn=(1,)) == 0


def test_a_reload_ends_with_the_server(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ask = list[int](), Supervisor._ask

    async def asks(supervisor: Supervisor, worker: Any, what: str, seconds: float) -> Any:
        asked.append(worker.slot)
        answer = await ask(supervisor, worker, what, seconds)
        supervisor._stopping.set()
        return answer

    async def scenario(supervisor: Supervisor) -> None:
        monkeypatch.setattr(Supervisor, "_ask", asks)
        assert await supervisor._reload() == {"error": "the server is stopping"}
        assert asked == [0]

    assert watched.run(scenario) == 0


def test_who_cannot_follow_one_that_came_back_with_other_files_is_started_again(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        before = pids(supervisor)
        watched.files.write_text("new")
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: [worker.identities["m"] for worker in supervisor._workers] == ["new"] * 3)
        await until(lambda: all_ready(supervisor))
        assert pids(supervisor)[0] != before[0]
        assert pids(supervisor)[2] == before[2]

    assert watched.run(scenario, 3, stubborn=(0,)) == 0
    assert "worker 0 cannot reload and is started again: no memory" in watched.said


def test_who_came_back_loads_again_where_the_files_have_changed_since(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        watched.files.write_text("new")
        answer = Held(watched, "reload", 0)
        os.kill(pids(supervisor)[1], signal.SIGKILL)
        await until(watched.files.with_name("asked-0").exists)  # to load what 1 has
        watched.files.write_text("newest")
        answer.let()
        await until(lambda: [worker.identities["m"] for worker in supervisor._workers] == ["newest"] * 3)

    assert watched.run(scenario, 3) == 0


def test_a_reload_that_fails_in_the_first_worker_changes_nothing(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        before = pids(supervisor)
        watched.files.write_text("new")
        assert await supervisor._reload() == {"error": "no memory"}
        await asyncio.sleep(0.3)
        assert (pids(supervisor), all_ready(supervisor)) == (before, True)
        assert [worker.identities for worker in supervisor._workers] == [{"m": "old"}] * 2

    assert watched.run(scenario, stubborn=(0,)) == 0


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
        os.kill(left[0], signal.SIGKILL)


def test_who_asked_for_a_reload_is_told_that_a_worker_ended_over_it(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        watched.files.write_text("new")
        Held(watched, "reload", 0)
        reloading = asyncio.ensure_future(supervisor._reload())
        await until(watched.files.with_name("asked-0").exists)
        os.kill(pids(supervisor)[0], signal.SIGKILL)
        rest = "if it has another model when it is there again, the others load that too"
        assert await reloading == {"error": f"worker 0 ended; {rest}", "open": True}
        await until(lambda: [worker.identities["m"] for worker in supervisor._workers] == ["new"] * 3)
        await until(lambda: all_ready(supervisor))

    assert watched.run(scenario, 3) == 0


def test_one_that_loads_after_nobody_waits_for_it_any_more_is_followed(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RELOAD_SECONDS", 0.2)

    async def scenario(supervisor: Supervisor) -> None:
        watched.files.write_text("new")
        answer = Held(watched, "reload", 0)
        found = await supervisor._reload()
        assert (found["error"].partition(";")[0], found["open"]) == ("worker 0 did not answer in 0.2 s", True)
        monkeypatch.setattr(workers, "RELOAD_SECONDS", 60.0)
        answer.let()
        await until(lambda: [worker.identities["m"] for worker in supervisor._workers] == ["new"] * 2)

    assert watched.run(scenario) == 0


@pytest.mark.parametrize("seed", range(3))
def test_whoever_is_killed_during_reloads_all_end_with_the_newest_files(watched: Watched, seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(supervisor: Supervisor) -> None:
        for version in range(4):
            before, watched_files = version - 1, watched.files
            watched_files.write_text(f"new {version}")
            reloading = asyncio.ensure_future(supervisor._reload())
            for _ in range(chance.randrange(1, 4)):
                await asyncio.sleep(chance.random() * 0.1)
                if there := pids(supervisor):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(there), signal.SIGKILL)
            answer = await reloading
            assert "open" in answer or answer["models"][0]["now"] == f"new {version}", (answer, before)
            await until(
                lambda version=version: (
                    all_ready(supervisor)  # type: ignore[misc]
                    and {worker.identities["m"] for worker in supervisor._workers} == {f"new {version}"}
                )
            )

    assert watched.run(scenario, 3) == 0


class Held:
    """What a stand-in does not do until it is let, and what it has done."""

    def __init__(self, watched: Watched, what: str, slot: int) -> None:
        self._file = watched.files.with_name(f"hold-{what}-{slot}")
        self._file.touch()

    def let(self) -> None:
        self._file.unlink()


def test_who_becomes_ready_with_old_files_while_others_reload_follows(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        loaded = watched.files.with_name("loaded-0")
        loaded.unlink()
        ready = Held(watched, "ready", 0)
        os.kill(pids(supervisor)[0], signal.SIGKILL)
        await until(loaded.exists)  # it has read the old files
        watched.files.write_text("new")
        asked, answer = watched.files.with_name("asked-1"), Held(watched, "reload", 1)
        reloading = asyncio.ensure_future(supervisor._reload())
        await until(asked.exists)
        ready.let()
        await until(lambda: all_ready(supervisor))
        assert [worker.identities["m"] for worker in supervisor._workers] == ["old", "old", "old"]
        answer.let()
        await reloading
        await until(lambda: [worker.identities["m"] for worker in supervisor._workers] == ["new"] * 3)

    assert watched.run(scenario, 3) == 0


def test_a_reload_before_anybody_is_ready_is_made_when_they_are(watched: Watched) -> None:
    loaded, ready = watched.files.with_name("loaded-0"), Held(watched, "ready", 0)

    async def hang_up() -> None:
        await until(loaded.exists)
        watched.files.write_text("new")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: bool(watched.said))
        ready.let()

    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: [worker.identities["m"] for worker in supervisor._workers] == ["new"] * 2)

    async def both() -> int:
        code, _ = await asyncio.gather(watched.running(scenario), hang_up())
        return code

    assert asyncio.run(both()) == 0
    assert "reload: workers that are loading follow when they are ready" in watched.said


def test_who_came_back_with_the_new_files_makes_nobody_reload_twice(watched: Watched) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        watched.files.write_text("new")
        answer = Held(watched, "reload", 1)
        reloading = asyncio.ensure_future(supervisor._reload())
        await until(watched.files.with_name("asked-1").exists)
        os.kill(pids(supervisor)[2], signal.SIGKILL)
        await until(lambda: not supervisor._workers[2].ready.is_set())
        await until(lambda: all_ready(supervisor))
        answer.let()
        await reloading
        watched.files.with_name("asked-1").unlink()
        await asyncio.sleep(0.3)
        assert not watched.files.with_name("asked-1").exists()
        assert [worker.identities["m"] for worker in supervisor._workers] == ["new"] * 3

    assert watched.run(scenario, 3) == 0


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
