"""The client's side, a process of its own: connections that each send a request when the last is answered.

python benchmarks/load/driver.py JSON; standard library only (uvloop where it is there). Prints JSON: seconds of each
answer, how many there were, and how busy this process was, which says whether it was the bottleneck.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

REST_SECONDS = 45.0  # for what runs at the end: the next measurement is to find an idle server
MOST_SAMPLES = 20_000  # seconds that are handed on; of more, evenly chosen ones


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: list[bytes], first: int, until: float, done: asyncio.Future[None]) -> None:
        self._requests, self._next, self._until, self._done = requests, first, until, done
        self.seconds: list[tuple[float, float]] = []  # when it was sent, and how long it took
        self.failed: dict[str, int] = {}
        self._buffer = b""
        self._length = -1

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._fail("closed")
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if self._length < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            stop = head.find(b"\r\n", at)
            self._length = end + 4 + int(head[at + 15 : stop if stop > 0 else end])
        if len(self._buffer) < self._length:
            return
        now = time.perf_counter()
        status = self._buffer[9:12]
        if status == b"200":
            self.seconds.append((self._sent, now - self._sent))
        else:
            self._fail(status.decode("latin-1"))
        self._buffer, self._length = b"", -1
        if now >= self._until:
            self._done.set_result(None)
            self._transport.close()
        else:
            self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._next])
        self._next = (self._next + 1) % len(self._requests)

    def _fail(self, why: str) -> None:
        self.failed[why] = self.failed.get(why, 0) + 1


def request(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    return head.encode() + b"\r\n" + body


async def drive(
    port: int, path: str, bodies: list[str], long: list[str], connections: int, warm: float, seconds: float
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    until = began + warm + seconds
    requests = [request(path, body.encode()) for body in bodies]
    clients: list[Client] = []
    ends: list[asyncio.Future[None]] = []

    async def connect(made: list[bytes], first: int) -> Client:
        done = loop.create_future()
        client = Client(made, first, until, done)
        await loop.create_connection(lambda: client, "127.0.0.1", port)
        ends.append(done)
        return client

    clients += [await connect(requests, k * len(requests) // connections) for k in range(connections)]
    if long:
        await connect([request(path, body.encode()) for body in long], 0)
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*ends), warm + seconds + REST_SECONDS)
    busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    # What was answered in the window, whenever it was sent; how long it took of those that were sent in it.
    start = began + warm
    answered = sum(start <= sent + took <= until for client in clients for sent, took in client.seconds)
    samples = sorted(took for client in clients for sent, took in client.seconds if sent >= start)
    step = max(len(samples) / MOST_SAMPLES, 1.0)
    failed: dict[str, int] = {}
    for client in clients:
        for why, count in client.failed.items():
            failed[why] = failed.get(why, 0) + count
    return {
        "answered": answered,
        "wall": seconds,
        "seconds": [round(samples[int(k * step)], 7) for k in range(int(len(samples) / step))],
        "failed": failed,
        "driver_busy": round(busy, 3),  # of one CPU
    }


def main() -> None:
    told = json.loads(sys.argv[1])
    bodies = json.loads(Path(told.pop("file")).read_text(encoding="utf-8"))
    job = drive(bodies=bodies["short"], long=bodies["long"] if told.pop("with_long") else [], **told)
    try:
        import uvloop

        found = uvloop.run(job)
    except ImportError:
        found = asyncio.run(job)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
