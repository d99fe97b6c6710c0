"""A server in processes of its own on loopback, and clients that count what becomes of every request they send."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from signals import of_a_terminal

READY_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(true: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


class Started:
    """`fastembed-rt serve` with these arguments; ends with the block."""

    def __init__(
        self,
        *arguments: object,
        stdout: Any = subprocess.DEVNULL,
        stderr: Any = subprocess.PIPE,
        **env: str,
    ) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "fastembed_rt", "serve", *map(str, arguments)]
        with of_a_terminal():
            self.process = subprocess.Popen(
                command,
                stdout=stdout,
                stderr=stderr,
                text=True,
                env={**os.environ, "PORT": str(self.port), **env},
            )

    def __enter__(self) -> Self:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/health")[0] == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"it does not answer: {self.end()}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def end(self, signal: int | None = None, seconds: float = 60.0) -> tuple[int, str]:
        """Exit code and what was said on stderr; after a signal, if one is given."""
        if signal is not None:
            self.process.send_signal(signal)
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers and what the JSON holds; text as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.getheader("content-type") == "application/json"
        return (
            answer.status,
            {key.lower(): value for key, value in answer.getheaders()},
            json.loads(content) if is_json else content.decode(),
        )

    def metrics(self) -> dict[str, float]:
        lines = self.ask("GET", "/metrics")[2].splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def children(self) -> list[int]:
        """Process ids of the workers."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as file:  # noqa: PTH123  it is no file on a disk
            return [int(number) for number in file.read().split()]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@dataclass
class Load:
    """Requests by many connections at once, each sent when the last is answered."""

    port: int
    content: bytes
    path: str = "/embed"
    key: str = ""
    answers: Counter[int] = field(default_factory=Counter)  # by status
    lost: list[str] = field(default_factory=list)  # sent, and not answered
    refused: int = 0  # connections
    bodies: set[bytes] = field(default_factory=set)
    pause: float = 0.0  # seconds before the next request after one that was refused
    refusals: list[float] = field(default_factory=list)  # seconds until a 429 was there
    stop: bool = False

    async def run(self, connections: int, seconds: float | None = None, requests: int | None = None) -> None:
        """For so long, or until so many are answered."""
        self._left = requests
        tasks = [asyncio.create_task(self._client()) for _ in range(connections)]
        if seconds is not None:
            await asyncio.sleep(seconds)
            self.stop = True
        await asyncio.gather(*tasks)

    async def _client(self) -> None:
        lines = [f"POST {self.path} HTTP/1.1", "host: x", f"content-length: {len(self.content)}"]
        head = "\r\n".join([*lines, f"authorization: Bearer {self.key}", "", ""]).encode()
        writer: asyncio.StreamWriter | None = None
        while not self.stop and (self._left is None or self._left > 0):
            if self._left is not None:
                self._left -= 1
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.01)
                continue
            try:
                sent = time.perf_counter()
                writer.write(head + self.content)
                status, keep, body = await _answer(reader)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self.lost.append(repr(error))
                writer.close()
                writer = None
                continue
            self.answers[status] += 1
            if status == 200 and len(self.bodies) < 4:
                self.bodies.add(body)
            if status == 429:
                self.refusals.append(time.perf_counter() - sent)
                await asyncio.sleep(self.pause)
            if not keep:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    return int(lines[0].split()[1]), b"connection: close" not in lines, await reader.readexactly(length)
