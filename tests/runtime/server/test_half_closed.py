"""Clients that shut down their side: what they asked is answered, and what has no end is refused."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from raw_http import EMBED, Run, answer, asks, ended, request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests' sockets are those of Unix")
LONG = json.dumps({"inputs": ["the old dog runs " * 9] * 1000}).encode()


@pytest.mark.parametrize("uds", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_sends_no_more_waits_for_the_answer(run: Run, tmp_path: Path, version: str, uds: bool) -> None:
    connect = run(**({"uds": str(tmp_path / "socket")} if uds else {}))
    for body in (EMBED, LONG):
        with connect() as connection:
            connection.sendall(request(body).replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
            connection.shutdown(socket.SHUT_WR)
            status, told, keep = answer(connection)
            assert (status, len(told), keep) == (200, len(json.loads(body)["inputs"]) if body is LONG else 1, False)
            assert ended(connection)
    with connect() as connection:  # several
        connection.sendall(request(LONG) + request(LONG))
        connection.shutdown(socket.SHUT_WR)
        assert [answer(connection)[0] for _ in range(2)] == [200, 200]
        assert ended(connection)


def test_a_request_without_its_end_is_refused(run: Run) -> None:
    connect = run()
    chunked = b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    for sent in (b"GE", request()[:30], request()[:-5], chunked + b"5\r\nhel"):
        with connect() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            status, told, keep = answer(connection)
            assert (status, told["error"], keep) == (400, "the request has no end", False)
            assert ended(connection)
    with connect() as connection:  # the one before it is answered
        connection.sendall(request(LONG) + b"POST /em")
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection)[0] == 200
        assert ended(connection)
    with connect() as connection:
        connection.sendall(chunked + b"no length\r\n")
        assert answer(connection)[0] == 400
        assert ended(connection)
    with connect() as connection:
        connection.shutdown(socket.SHUT_WR)
        assert ended(connection)
    assert asks(connect) == 200
