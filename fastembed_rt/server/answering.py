"""An answer in one write, where uvicorn makes two and looks through every header for what ours cannot hold.

A write costs a system call, and wakes the client once for the head alone.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from .deadlines import Deadlines, Late

ONE_WRITE = 1 << 20  # bytes of a body that is copied behind its head


class Waiting(Late, Protocol):
    """Who waits for a result."""

    def end_gone(self) -> None:
        """The client has gone away."""


class Answer:
    """What an application sends its answer to, in place of a uvicorn cycle's own `send`.

    It takes what this package's application sends: a head that says the length, and the whole body. Anything else goes
    to the cycle.
    """

    __slots__ = ("_cycle", "_deadlines", "_head", "_waiting")

    def __init__(self, cycle: Any, deadlines: Deadlines) -> None:
        self._cycle = weakref.ref(cycle)  # which holds this: a circle would stay until somebody looks for circles
        self._deadlines = deadlines
        self._head: dict[str, Any] | None = None
        self._waiting: Waiting | None = None

    def watch(self, waiting: Waiting) -> bool:
        """Tell who waits for a result when the client goes away or the time is over; False where it has gone.

        ASGI's `receive` would tell it too, to a task for each request.
        """
        cycle: Any = self._cycle()
        if cycle.disconnected:
            return False
        self._waiting = waiting
        self._deadlines.add(waiting)
        if cycle.flow.read_paused and not cycle.transport.get_protocol().pipeline:
            cycle.flow.resume_reading()  # after a large body; who does not read does not see an end
        return True

    def unwatch(self) -> None:
        """Nothing more is told, and nothing held."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._deadlines.discard(waiting)

    def client_gone(self) -> None:
        """Called by the connection."""
        waiting = self._waiting
        self.unwatch()
        if waiting is not None:
            waiting.end_gone()

    async def __call__(self, message: dict[str, Any]) -> None:
        """ASGI's send."""
        cycle: Any = self._cycle()
        if message["type"] == "http.response.start" and not cycle.response_started:
            self._head = message  # in place of another one, whose body never came
            return
        head, self._head = self._head, None
        send = type(cycle).send
        if head is None:
            await send(cycle, message)
        elif message.get("more_body", False) or message["type"] != "http.response.body":
            await send(cycle, head)
            await send(cycle, message)
        else:
            await _send_whole(cycle, head, message.get("body", b""))


async def _send_whole(cycle: Any, head: dict[str, Any], body: bytes) -> None:
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
    if cycle.scope["method"] == "HEAD":
        body = b""
    parts, said = [STATUS_LINE[head["status"]]], False
    for name, value in (*cycle.default_headers, *head["headers"]):
        if name == b"connection" and cycle.keep_alive and cycle.transport.get_protocol().pipeline:
            continue  # a server that drains; the last answer closes
        parts += (name, b": ", value, b"\r\n")
        if name == b"connection" and value == b"close":
            cycle.keep_alive, said = False, True
    if not cycle.keep_alive and not said:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    if len(body) <= ONE_WRITE:
        parts.append(body)
        cycle.transport.write(b"".join(parts))
    else:
        cycle.transport.write(b"".join(parts))
        cycle.transport.write(body)
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
