"""A connection under uvicorn, with limits for clients that are slow or send too much where uvicorn has none.

Without them a client that sends a byte a minute keeps a connection for ever, and header lines grow without bound.
The body's time while the application reads it is the exchange's; see limits.
"""

from __future__ import annotations

import asyncio
import select
import sys
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .answering import Answer
from .deadlines import Deadlines
from .parsing import Parser


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What a connection may take."""

    head_seconds: float = 10.0  # from the connection or a request's first byte to the end of its header lines
    rest_seconds: float = 10.0  # that a body is taken in and thrown away, of a request that was refused
    ended_seconds: float = 0.1  # until it is looked whether a client that sends no more has gone; and again
    stalled_seconds: float = 30.0  # that a client may leave its answer unread
    head_bytes: int = 65_536  # of the request's line and header lines
    head_lines: int = 128


CONTINUE = STATUS_LINE[100] + b"\r\n"


class TooMuchError(Exception):
    """More header lines than a request may have."""


class Connection(HttpToolsProtocol):  # type: ignore[misc]
    """Of one client."""

    parser: Any  # None once the connection is lost

    def __init__(self, *args: Any, acceptor: Any, patience: Patience, deadlines: Deadlines, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acceptor, self._patience, self._deadlines = acceptor, patience, deadlines
        self.parser = Parser(self, self.parser)
        self.again = False  # see Parser
        self._clock: asyncio.TimerHandle | None = None  # of the head, or of a body that nobody wants
        self._stalled: asyncio.TimerHandle | None = None
        self._head = self._lines = 0
        self._pending = 0  # bytes of a head that is not complete
        self._inside = False  # a request whose end has not come
        self._running: Any = None  # of pipelined requests the one that is answered

    def connection_made(self, transport: Any) -> None:
        """Time begins for the first request."""
        super().connection_made(transport)
        self._start_clock(self._patience.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        super().connection_lost(exc)
        if self._running is not None:  # of pipelined requests uvicorn tells the last alone
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()
            self._running.send.client_gone()
        self._unset_keepalive_if_required()
        self._stop_clock()
        if self._stalled is not None:
            self._stalled.cancel()
        self._acceptor.lost()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or several."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._inside and not self._head_is_over() and not self.transport.is_closing():
            self._pending += len(data)  # the parser keeps a line to itself until it ends
            if self._pending > self._patience.head_bytes:
                self._head = self._pending
                self.send_400_response("")
            elif self._clock is None:
                self._start_clock(self._patience.head_seconds)

    def eof_received(self) -> bool:
        """The client sends no more; it may have gone, or wait for its answer. Whether the connection stays open."""
        answered = self.cycle is None or self.cycle.response_complete
        if self._inside and self._head_is_over() != answered:
            self._answer(400, b"Malformed", b"the request has no end")
        if answered or self.transport.is_closing() or self.scheme == "https":  # of TLS both sides are closed at once
            return False
        self.cycle.keep_alive = False
        self._stop_clock()
        self._clock = self.loop.call_later(self._patience.ended_seconds, self._ask_for_life)
        return True

    def _ask_for_life(self) -> None:
        """Send who sends no more a word that every client passes over: the system of one that has gone refuses it."""
        if not self._running.response_started and self._running.scope["http_version"] == "1.1":
            self.transport.write(CONTINUE)
        self._look_for_end()

    def _look_for_end(self) -> None:
        self._clock = None
        if self.transport.is_closing():
            return
        if _hung_up(self.transport.get_extra_info("socket")):
            self.transport.abort()
        else:
            self._clock = self.loop.call_later(self._patience.ended_seconds, self._look_for_end)

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.again:
            return
        super().on_message_begin()
        self._head = self._lines = 0
        self._inside = True

    def on_url(self, url: bytes) -> None:
        """Of its first line."""
        if self.again:
            return
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line."""
        if self.again:
            return
        self._lines += 1
        self._grow(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application takes over."""
        if self.again:
            return
        self._stop_clock()
        self._pending = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request's end."""
        if self.parser.asks_for_another():
            return
        self._inside = False
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written."""
        super().on_response_complete()
        over = self.cycle is not None and self.cycle.response_complete
        if self._inside and over and not self.transport.is_closing():  # refused before its body was there
            self._start_clock(self._patience.rest_seconds)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        cycle.send = Answer(cycle, self._deadlines)
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._patience.stalled_seconds, self._look, self._unread())

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """Of a request that is none; uvicorn's own text, and 431 for too much of it."""
        if self._lines <= self._patience.head_lines and self._head <= self._patience.head_bytes:
            self._answer(400, b"Malformed", b"no HTTP request")
        else:
            what = f"over {self._patience.head_bytes} bytes or {self._patience.head_lines} header lines"
            self._answer(431, b"TooLarge", what.encode())

    def _answer(self, status: int, kind: bytes, what: bytes) -> None:
        if self._may_answer():
            body = b'{"error":"%s","error_type":"%s"}' % (what, kind)
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether an answer would be of the request that comes in, and the only one."""
        if self._inside and self._head_is_over():
            return self._running is self.cycle and not self.cycle.response_started
        return self.cycle is None or bool(self.cycle.response_complete)

    def _grow(self, size: int) -> None:
        self._head += size
        if self._head > self._patience.head_bytes or self._lines > self._patience.head_lines:
            raise TooMuchError

    def _start_clock(self, seconds: float) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, self._late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        if self.transport.is_closing():
            return
        if self._inside and not self._head_is_over():
            self._answer(408, b"SlowBody", b"the header lines did not come in time")
        else:
            self.transport.close()

    def _head_is_over(self) -> bool:
        """Whether the running request's header lines are all there."""
        return self.cycle is not None and self.cycle.scope is self.scope

    def _unread(self) -> int:
        """Bytes that the client has not taken: here, and in the kernel, whose buffers hold megabytes."""
        return int(self.transport.get_write_buffer_size()) + _in_kernel(self.transport.get_extra_info("socket"))

    def _look(self, before: int) -> None:
        """Give up a client that has read nothing since; one that is slow but reads may go on."""
        self._stalled = None
        now = self._unread()
        if now >= before:
            self.transport.abort()
        else:
            self._stalled = self.loop.call_later(self._patience.stalled_seconds, self._look, now)


def _hung_up(connection: Any) -> bool:
    """Whether nothing that is sent arrives; False where the system does not say."""
    try:
        asked = select.poll()
        asked.register(connection.fileno(), 0)
        return bool(asked.poll(0))
    except (AttributeError, OSError, ValueError):
        return False


def _in_kernel(connection: Any) -> int:
    """Bytes that are sent and not acknowledged; 0 where the system does not say."""
    try:
        import fcntl
        import termios

        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (ImportError, AttributeError, OSError):
        return 0
