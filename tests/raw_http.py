"""Requests as bytes over a socket, and what comes back."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any

Connect = Callable[[], socket.socket]
Run = Callable[..., Connect]  # the fixture that serves in a thread
EMBED = b'{"inputs":"the cat"}'


def request(body: bytes = EMBED, *lines: str, length: int | None = None) -> bytes:
    head = ["POST /embed HTTP/1.1", "host: x", f"content-length: {len(body) if length is None else length}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def answer(connection: socket.socket) -> tuple[int, Any, bool]:
    """Status, JSON, and whether the connection stays open."""
    found = http.client.HTTPResponse(connection)
    found.begin()
    content = found.read()
    return found.status, json.loads(content) if content else None, not found.will_close


def ended(connection: socket.socket) -> bool:
    """Whether the server closes, in the seconds that the socket waits."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def asks(connect: Connect) -> int:
    with connect() as connection:
        connection.sendall(request())
        return answer(connection)[0]
