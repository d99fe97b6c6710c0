"""A client's messages over standard input and output, a line each.

The SDK's own transport leaves lines that are no message without an answer, takes other letters for bytes that are not
UTF-8, and waits in `read` for a last line before a signal ends the process. At the end of input it cancels what it was
asked: here that is answered first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeAlias

import anyio

from ..opening import needs

with needs("mcp", "mcp"):
    from mcp.server.mcpserver import MCPServer
    from mcp.shared.message import SessionMessage
    from mcp_types import (
        INVALID_REQUEST,
        PARSE_ERROR,
        ErrorData,
        JSONRPCError,
        JSONRPCNotification,
        JSONRPCRequest,
        JSONRPCResponse,
        jsonrpc_message_adapter,
    )
    from pydantic import ValidationError

SHAPE = 'expected one object a line: "jsonrpc": "2.0", "method", "params" as an object, "id" as an integer or a string'
Written: TypeAlias = "asyncio.Future[None]"
POLL = 0.02  # seconds, at the end


async def run(server: MCPServer[Any]) -> None:
    """Answer until standard input ends, and then what has come; no longer than somebody reads it.

    Raises:
        OSError: standard output takes nothing any more.
    """
    core = server._lowlevel_server  # the SDK's own client takes it the same way
    to_server, incoming = anyio.create_memory_object_stream[Any](0)
    outgoing, from_server = anyio.create_memory_object_stream[Any](0)
    failed: list[OSError] = []
    unanswered = _Unanswered()
    with _wire() as (source, sink):
        lines, write = _reading(source), _writing(sink)
        async with anyio.create_task_group() as tasks:

            async def put(message: Any) -> None:
                try:
                    await write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                except OSError as error:
                    failed.append(error)
                    tasks.cancel_scope.cancel()

            async def take() -> None:
                async with to_server:
                    while line := await lines():
                        try:
                            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                        except ValidationError as error:
                            if not line.isspace():
                                await put(refusal(line, error))
                        else:
                            unanswered.came(message)
                            await to_server.send(SessionMessage(message))
                    while unanswered.count and not _nobody_reads(sink):
                        await anyio.sleep(POLL)

            async def give() -> None:
                async with from_server:
                    async for sent in from_server:
                        await put(sent.message)
                        unanswered.answered(sent.message)

            tasks.start_soon(take)
            tasks.start_soon(give)
            await core.run(incoming, outgoing, core.create_initialization_options())
            tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]


class _Unanswered:
    """Requests that have no answer yet, by their ids."""

    def __init__(self) -> None:
        self._asked: Counter[Any] = Counter()  # a client may use an id twice

    @property
    def count(self) -> int:
        """How many there are."""
        return self._asked.total()

    def came(self, message: Any) -> None:
        """A request, or the word that one is not wanted any more: it has no answer."""
        if isinstance(message, JSONRPCRequest):
            self._asked[message.id] += 1
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._less((message.params or {}).get("requestId"))

    def answered(self, message: Any) -> None:
        """A message that was written."""
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._less(message.id)

    def _less(self, number: object) -> None:
        if isinstance(number, (int, str)) and self._asked[number]:
            self._asked[number] -= 1


def _nobody_reads(sink: BinaryIO) -> bool:
    """Whether the client is gone, as far as the system tells."""
    if not hasattr(select, "poll"):  # Windows
        return False
    asked = select.poll()
    asked.register(sink.fileno(), 0)
    return bool(asked.poll(0))


def refusal(line: bytes, error: ValidationError) -> JSONRPCError:
    """The answer to a line that is no message, for the id in it if there is one to be read."""
    found = error.errors(include_url=False)[0]
    invalid = found["type"] == "json_invalid"  # here half a surrogate pair is invalid too, which json takes
    about = ErrorData(code=PARSE_ERROR if invalid else INVALID_REQUEST, message=str(found["msg"]) if invalid else SHAPE)
    return JSONRPCError(jsonrpc="2.0", id=_id(line), error=about)


def _id(line: bytes) -> int | str | None:
    try:
        said = json.loads(line.decode(errors="replace"))
        given = said.get("id") if isinstance(said, dict) else None
        if isinstance(given, str):
            given.encode()
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, (int, str)) and not isinstance(given, bool) else None


@contextlib.contextmanager
def _wire() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Both ends for messages alone: what a library prints meanwhile goes to standard error, and nothing reads them."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        # Not closed with the files: a thread may still be reading or writing.
        yield os.fdopen(source, "rb", closefd=False), os.fdopen(sink, "wb", buffering=0, closefd=False)
    finally:
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.close(nothing)


# Threads of their own, daemons: the pools of asyncio and anyio are waited for at the end, and these two may wait
# for a client that does nothing.


def _reading(source: BinaryIO) -> Callable[[], Any]:
    """A function that gives the next line, b"" at the end."""
    loop = asyncio.get_running_loop()
    send, receive = anyio.create_memory_object_stream[bytes](0)

    def read() -> None:
        line = b"-"
        with contextlib.suppress(RuntimeError, asyncio.CancelledError, anyio.BrokenResourceError):  # the loop has ended
            while line:
                try:
                    line = source.readline()
                except OSError:  # such as a terminal that is gone
                    line = b""
                asyncio.run_coroutine_threadsafe(send.send(line), loop).result()

    threading.Thread(target=read, name="mcp-reading", daemon=True).start()
    return receive.receive


def _writing(sink: BinaryIO) -> Callable[[bytes], Written]:
    """A function that writes a line whole, and is to be awaited."""
    loop = asyncio.get_running_loop()
    waiting: queue.SimpleQueue[tuple[bytes, Written]] = queue.SimpleQueue()

    def done(written: Written, failure: OSError | None) -> None:
        if not written.done():  # cancelled
            written.set_result(None) if failure is None else written.set_exception(failure)

    def write() -> None:
        while True:
            line, written = waiting.get()
            failure = None
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[sink.write(rest) :]
            except OSError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done, written, failure)

    def put(line: bytes) -> Written:
        written = loop.create_future()
        waiting.put((line, written))
        return written

    threading.Thread(target=write, name="mcp-writing", daemon=True).start()
    return put
