"""A worker's side of the channel to the process that started it: lines of JSON over a pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from typing import TYPE_CHECKING, Any

from .errors import ApiError
from .reloading import ReloadError

if TYPE_CHECKING:
    from .serving import Server

MOST_BYTES = 2**26  # of a message: metrics of many models
ANSWER_SECONDS = 600.0  # of a reload in all workers, one after the other


class Channel:
    """Says that the worker is ready, tells its metrics, reloads when told; asks the same of all for its clients."""

    def __init__(self, connection: socket.socket, about: list[str]) -> None:
        """`about`: lines on what runs."""
        self._connection, self._about = connection, about
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, server: Server) -> None:
        """Ready for requests; what concerns all workers is asked of the one that started them."""
        self._server, self._app = server, server.app
        self._reader, self._writer = await asyncio.open_connection(sock=self._connection, limit=MOST_BYTES)
        self._app.all_metrics = self._all_metrics
        self._app.reload_all = self._reload_all
        self._start(self._read())
        self._send({"ready": self._about, "models": self._app.identities()})

    async def end(self) -> None:
        """The last word: what was counted."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(OSError, ConnectionError):
            self._send({"metrics": 0, "text": self._app.metrics.text(self._app)})
            await self._writer.drain()
            self._writer.close()

    async def _read(self) -> None:
        while line := await self._reader.readline():
            message = json.loads(line)
            if "answer" in message:
                waiting = self._waiting.pop(message["answer"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            elif message.get("do") == "metrics":
                self._send({"metrics": message["number"], "text": self._app.metrics.text(self._app)})
            elif message.get("do") == "ping":
                self._send({"pong": message["number"]})
            elif message.get("do") == "reload":
                self._start(self._reload(message["number"]))
        self._server.should_exit = True  # whoever started this is gone

    async def _reload(self, number: int) -> None:
        try:
            found = await self._app.reload()
        except Exception as error:  # noqa: BLE001  it is told to who asked
            self._send({"reloaded": number, "error": str(error)})
        else:
            self._send({"reloaded": number, "models": found, "identities": self._app.identities()})

    async def _all_metrics(self) -> str:
        return str((await self._ask("metrics"))["text"])

    async def _reload_all(self) -> dict[str, Any]:
        answer = await self._ask("reload")
        if "error" in answer:
            raise ReloadError(answer["error"], is_open="open" in answer)
        return {key: answer[key] for key in ("models", "restarted", "loading")}

    async def _ask(self, what: str) -> dict[str, Any]:
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send({"ask": what, "number": number})
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError:
            raise ApiError("Timeout", f"no {what} of all workers yet; see the server's log") from None
        finally:
            self._waiting.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
