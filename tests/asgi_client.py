"""Calls an ASGI application in this process, as a server would."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

NOTHING: Any = object()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests of one event loop; several at a time with `together`."""

    def __init__(self, app: Any, *, root_path: str = "") -> None:
        self.app, self.root_path = app, root_path
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.loop.run_until_complete(self.request("GET", path, b"", headers))

    def post(self, path: str, body: Any = NOTHING, *, raw: bytes | None = None, **headers: Any) -> Answer:
        return self.loop.run_until_complete(self.request("POST", path, written(body, raw), headers))

    def together(self, path: str, bodies: list[Any]) -> list[Answer]:
        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(self.request("POST", path, written(body, None), {}) for body in bodies))

        return self.loop.run_until_complete(all_of_them())

    async def request(
        self, method: str, path: str, content: bytes, headers: dict[str, str], *, gone_after: float | None = None
    ) -> Answer:
        """`gone_after` seconds the client goes away."""
        given = {"content-length": str(len(content)), **{key.replace("_", "-"): v for key, v in headers.items()}}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": self.root_path + path,
            "raw_path": path.encode(),
            "root_path": self.root_path,
            "query_string": b"",
            "scheme": "http",
            "headers": [(key.encode(), value.encode()) for key, value in given.items()],
        }
        sent = False
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": content, "more_body": False}
            await asyncio.sleep(3600 if gone_after is None else gone_after)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        if not messages:
            return Answer(0, {}, b"")
        found = {key.decode(): value.decode() for key, value in messages[0]["headers"]}
        return Answer(messages[0]["status"], found, b"".join(message.get("body", b"") for message in messages[1:]))


def float32(values: Any) -> Any:
    """Numbers of JSON as what they were."""
    return np.array(values, dtype=np.float32)


def written(body: Any, raw: bytes | None) -> bytes:
    return raw if raw is not None else b"" if body is NOTHING else json.dumps(body).encode()
