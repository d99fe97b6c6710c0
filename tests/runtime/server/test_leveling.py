"""The process that watches workers, here stand-ins, when models are replaced: all end with the same files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from typing import Any

import pytest
from stand_in_workers import Held, Watched, all_ready, pids, until

from fastembed_rt.server import workers
from fastembed_rt.server.workers import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are those of Linux")


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
            now = f"new {version}"
            watched.files.write_text(now)
            reloading = asyncio.ensure_future(supervisor._reload())
            for _ in range(chance.randrange(1, 4)):
                await asyncio.sleep(chance.random() * 0.1)
                if there := pids(supervisor):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(there), signal.SIGKILL)
            answer = await reloading
            assert "open" in answer or all(model["now"] == now for model in answer["models"]), answer
            await until(lambda now=now: all_have(supervisor, now))  # type: ignore[misc]

    def all_have(supervisor: Supervisor, version: str) -> bool:
        return all_ready(supervisor) and all(worker.identities["m"] == version for worker in supervisor._workers)

    assert watched.run(scenario, 3) == 0


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
