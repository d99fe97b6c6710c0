"""Workers that load a version from a file and wait where a test holds them, and the one that watches them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastembed_rt.server.workers import Supervisor

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


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.01)


def all_ready(supervisor: Supervisor) -> bool:
    return all(worker.ready.is_set() for worker in supervisor._workers)


def pids(supervisor: Supervisor) -> list[int]:
    return [worker.process.pid for worker in supervisor._workers if worker.process is not None]


class Held:
    """What a stand-in does not do until it is let, and what it has done."""

    def __init__(self, watched: Watched, what: str, slot: int) -> None:
        self._file = watched.files.with_name(f"hold-{what}-{slot}")
        self._file.touch()

    def let(self) -> None:
        self._file.unlink()
