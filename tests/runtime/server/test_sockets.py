"""Sockets that listen, on machines that lack something, and which process takes a connection."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import tempfile
from typing import Any

import pytest

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.server import sockets
from fastembed_rt.server.accepting import Acceptor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests' sockets are those of Unix")


def test_addresses_that_cannot_be_are_said() -> None:
    (taken, *_) = sockets.bind("127.0.0.1", 0)
    with pytest.raises(InvalidInputError, match=r"cannot listen on 127\.0\.0\.1 port"):
        sockets.bind("127.0.0.1", taken.getsockname()[1])
    taken.close()
    with pytest.raises(InvalidInputError, match="not known here"):
        sockets.bind("no.such.host.invalid", 0)


def test_who_has_fewer_connections_takes_the_next() -> None:
    board = sockets.Board(3)
    other = sockets.Board(3, os.dup(board.descriptor))  # of another process
    for slot, count in enumerate((2, 5, sockets.GONE)):
        board.set(slot, count)
    assert [other.get(slot) for slot in range(3)] == [2, 5, sockets.GONE]
    assert [other.others_have_fewer(slot) for slot in (0, 1)] == [False, True]
    board.set(0, sockets.GONE)
    assert not other.others_have_fewer(1)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the board is a temporary file here")
def test_the_board_needs_no_place_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> Any:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    board = sockets.Board(2)
    board.set(1, 3)
    assert sockets.Board(2, os.dup(board.descriptor)).get(1) == 3


def stands_for(*addresses: tuple[int, str]) -> Any:
    """A host of these addresses."""
    return lambda host, port, **_: [
        (family, socket.SOCK_STREAM, 6, "", (address, port) if family == socket.AF_INET else (address, port, 0, 0))
        for family, address in addresses
    ]


def test_a_host_whose_ipv6_is_switched_off_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    here, not_here = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "2001:db8::1")  # the latter is nobody's
    for both in ((here, not_here), (not_here, here)):
        monkeypatch.setattr(socket, "getaddrinfo", stands_for(*both))
        (found,) = sockets.bind("localhost", 0)
        assert found.getsockname()[0] == "127.0.0.1"
        found.close()
    other = (socket.AF_INET, "192.0.2.1")  # nor is that one anybody's
    for host in ([not_here], [here, other]):
        monkeypatch.setattr(socket, "getaddrinfo", stands_for(*host))
        with pytest.raises(InvalidInputError, match="cannot listen on localhost port 0"):
            sockets.bind("localhost", 0)


class Full(socket.socket):
    """Of a process that may not open a file more, for the first so many times."""

    times = 3

    def accept(self) -> Any:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_connections_that_cannot_be_taken_wait_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    listener = Full()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)

    async def connect() -> None:
        made = asyncio.Event()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.set()
                transport.close()

        acceptor = Acceptor([listener], Protocol, most=10)
        _, writer = await asyncio.open_connection(*listener.getsockname())
        await asyncio.wait_for(made.wait(), 20)
        writer.close()
        acceptor.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(connect())
    assert listener.times == 0
    assert [record.getMessage() for record in caplog.records] == ["no connection can be taken: Too many open files"]
