"""The least that a Python server can do: `encode` in uvicorn's own loop, without a queue, checks, limits or metrics.

How much longer than `encode` a request takes here is what HTTP costs on the machine; the rest is the server's own.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn

from fastembed_rt import EmbeddingModel

model = EmbeddingModel(os.environ["MODEL"], precision=os.environ["PRECISION"], threads=int(os.environ["THREADS"]))
Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """OpenAI's route, whole bodies of one piece, base64 alone."""
    if scope["type"] != "http":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    body = (await receive())["body"]
    answer = b"{}"
    if scope["method"] == "POST":
        vectors = model.encode(orjson.loads(body)["input"])
        rows = [{"index": k, "embedding": base64.b64encode(row.tobytes()).decode()} for k, row in enumerate(vectors)]
        answer = orjson.dumps({"data": rows})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
