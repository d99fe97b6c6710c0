"""Connections taken from listening sockets: no more than are allowed, and of several workers by who has fewest.

All workers accept from the same sockets. What waits in a socket when a worker dies is therefore another's, and what
comes while one is busy goes to those who are not. Without the board the first to wake would take a burst alone, and
keep-alive would leave it with all of the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from .sockets import GONE, Board, let_nobody_in

logger = logging.getLogger("fastembed_rt.server")
AT_ONCE = 64  # accepted in a row by who serves alone
LEFT_SECONDS = 0.002  # that a connection is left to a worker with fewer
FULL_SECONDS = 0.1  # until it is tried again when the system gives no more descriptors
SAID_SECONDS = 60.0  # until that is said again
HANDSHAKE_SECONDS = 10.0  # of TLS
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # half-open ones end after two minutes


class Acceptor:
    """What uvicorn takes for its server: `close` and `wait_closed`."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol: Callable[[], Any],
        *,
        most: int,
        tls: ssl.SSLContext | None = None,
        board: Board | None = None,
        slot: int = 0,
    ) -> None:
        """`protocol` makes one for a connection; `most` connections at a time, those beyond it wait in the kernel."""
        self.sockets = list(sockets)
        self._protocol, self._most, self._tls, self._board, self._slot = protocol, most, tls, board, slot
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: set[int] = set()  # sockets whose next connection was left to others
        self.connections = 0
        self._paused = self._closed = False
        self._said = -math.inf  # that none can be taken, in seconds of the event loop's time
        self._count(0)
        for listener in self.sockets:
            self._watch(listener)

    def lost(self) -> None:
        """A connection is over."""
        self._count(self.connections - 1)
        if self._paused and self.connections < self._most:
            self._paused = False
            for listener in self.sockets:
                self._watch(listener)

    def drain(self) -> None:
        """Take what waits already, then close: no client that was let in is turned away."""
        if self._closed:
            return
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            if self._board is None:  # else others may go on, and who ends them all sees to it
                let_nobody_in(listener)
            while self._accept(listener):
                pass
        self.close()

    def close(self) -> None:
        """No more."""
        if self._closed:
            return
        self._closed = True
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()
        if self._board is not None:
            self._board.set(self._slot, GONE)

    async def wait_closed(self) -> None:
        """Until what was accepted has its protocol."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _count(self, connections: int) -> None:
        self.connections = connections
        if self._board is not None and not self._closed:
            self._board.set(self._slot, connections)

    def _watch(self, listener: socket.socket) -> None:
        if not self._closed and not self._paused:
            self._loop.add_reader(listener, self._ready, listener)

    def _rest(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._loop.call_later(seconds, self._watch, listener)

    def _ready(self, listener: socket.socket) -> None:
        number = listener.fileno()
        if self._board is None:
            for _ in range(AT_ONCE):
                if not self._accept(listener):
                    return
            return
        if number not in self._left and self._board.others_have_fewer(self._slot):
            self._left.add(number)  # once: the other may be busy, or dead
            self._rest(listener, LEFT_SECONDS)
            return
        self._left.discard(number)
        self._accept(listener)

    def _accept(self, listener: socket.socket) -> bool:
        """One connection; whether there was one."""
        if self.connections >= self._most:
            self._paused = True
            for other in self.sockets:
                self._loop.remove_reader(other)
            return False
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:  # no descriptors or memory left: those who are here go on
            if self._loop.time() >= self._said + SAID_SECONDS:
                self._said = self._loop.time()
                logger.error("no connection can be taken: %s", error.strerror)
            self._rest(listener, FULL_SECONDS)
            return False
        self._count(self.connections + 1)
        task = self._loop.create_task(self._begin(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _begin(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in KEEPALIVE.items():
                    if hasattr(socket, name):
                        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            timeout = {} if self._tls is None else {"ssl_handshake_timeout": HANDSHAKE_SECONDS}
            # When it returns, the protocol has been told; it calls `lost` at the end.
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls, **timeout)
        except (OSError, ssl.SSLError, ConnectionError, TimeoutError):  # a client that is no client
            with contextlib.suppress(OSError):
                connection.close()
            self.lost()
