"""Clients that are slow, go away, send too much or nothing sensible: each costs itself alone, and is told why."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_http import EMBED, Run, answer, asks, ended, request, until

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.server import sockets
from fastembed_rt.server.app import App
from fastembed_rt.server.exchange import Exchange
from fastembed_rt.server.limits import Limits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests' sockets are those of Unix")


def test_many_slow_clients_keep_nobody_out_and_are_let_go(run: Run) -> None:
    connect = run(patience={"head_seconds": 1.0})
    slow = [connect() for _ in range(100)]
    for k, connection in enumerate(slow):  # a third says nothing, a third a part of a line, a third a line at a time
        connection.sendall((b"", b"POST /em", b"POST /embed HTTP/1.1\r\nhost: x\r\n")[k % 3])
    assert asks(connect) == 200
    for _ in range(4):
        time.sleep(0.2)
        for connection in slow[2::3]:
            with contextlib.suppress(OSError):
                connection.sendall(b"x-a: b\r\n")
    assert asks(connect) == 200
    time.sleep(0.5)
    statuses = []
    for k, connection in enumerate(slow):
        if k % 3:
            statuses.append(answer(connection)[:2])
        assert ended(connection)
        connection.close()
    assert {status for status, _ in statuses} == {408}
    assert statuses[0][1]["error_type"] == "SlowBody"
    assert connect.server.server_state.connections == set()  # type: ignore[attr-defined]


def test_a_body_that_does_not_come_is_not_waited_for(run: Run) -> None:
    connect = run(limits=Limits(body_seconds=0.3), patience={"rest_seconds": 0.3})
    with connect() as connection:
        connection.sendall(request(b'{"inp', length=1000))
        status, body, _ = answer(connection)
        assert (status, body["error_type"]) == (408, "SlowBody")
        assert ended(connection)
    assert asks(connect) == 200


def test_bodies_that_do_not_come_hold_no_place(run: Run, loaded: Any) -> None:
    app = App({"encoder": loaded.encoder}, limits=Limits(max_concurrent_requests=2))
    connect = run(app=app)
    slow = [connect() for _ in range(8)]
    for k, connection in enumerate(slow):  # the odd ones have begun theirs
        connection.sendall(request(EMBED[: k % 2 * 5], length=len(EMBED)))
    until(lambda: app.admission.body_bytes == 4 * 5)
    assert asks(connect) == 200
    app.admission.enter()
    app.admission.enter()  # two are being answered
    with connect() as late:
        late.sendall(request(b"", length=len(EMBED)))
        assert answer(late)[0] == 429  # at once: its body is not waited for
    app.admission.leave()
    for k, connection in enumerate(slow):
        connection.sendall(EMBED[k % 2 * 5 :])
        assert answer(connection)[0] == 200
        connection.close()
    assert (app.admission.requests, app.admission.body_bytes) == (1, 0)


def test_bodies_that_come_in_pieces_have_a_limit_in_all(run: Run, loaded: Any) -> None:
    app = App({"encoder": loaded.encoder}, limits=Limits(max_concurrent_requests=1, payload_limit=100_000))
    connect = run(app=app)
    body, part = EMBED + b" " * 90_000, 60_000
    with connect() as first, connect() as second:
        first.sendall(request(body[:part], length=len(body)))
        until(lambda: app.admission.body_bytes == part)
        second.sendall(request(body[:part], length=len(body)))
        status, told, _ = answer(second)
        assert (status, told["error_type"], "and 100000 may be" in told["error"]) == (429, "Overloaded", True)
        first.sendall(body[part:])
        assert answer(first)[0] == 200
    assert app.admission.body_bytes == app.admission.requests == 0


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"a" * 100_000 + b"\r\n",  # a long line
        b"".join(b"x-%d: y\r\n" % k for k in range(200)),  # many
        b"x: " + b"a" * 100_000,  # one that never ends
        b"a" * 100_000,
    ],
)
def test_header_lines_have_limits(run: Run, head: bytes) -> None:
    connect = run()
    with connect() as connection:
        connection.sendall(b"POST /embed HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        status, body, _ = answer(connection)
        assert (status, body["error_type"]) == (431, "TooLarge")
        assert ended(connection)
    with connect() as connection:
        connection.sendall(b"POST /" + b"a" * 100_000)
        assert answer(connection)[0] == 431
    assert asks(connect) == 200


def test_what_is_no_http_is_refused(run: Run) -> None:
    connect = run()
    for content in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with connect() as connection:
            connection.sendall(content)
            status, body, keep = answer(connection)
            assert (status, body["error_type"], keep) == (400, "Malformed", False)
    assert asks(connect) == 200


UPGRADE = (
    "connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\nupgrade: h2c"  # as Java's client asks
)


@pytest.mark.parametrize("pieces", ["whole", "head first", "bytes"])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_asks_for_another_protocol_is_answered_in_this_one(run: Run, pieces: str, chunked: bool) -> None:
    content = request(EMBED, UPGRADE)
    if chunked:
        head = content.partition(b"\r\n\r\n")[0].replace(
            b"content-length: %d" % len(EMBED), b"transfer-encoding: chunked"
        )
        content = head + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(EMBED), EMBED)
    content += b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    content += request(EMBED, "connection: close")
    cuts = {"whole": [], "head first": [content.index(b"\r\n\r\n") + 4], "bytes": range(1, len(content))}[pieces]
    found = b""
    with run()() as connection:
        for first, last in zip([0, *cuts], [*cuts, len(content)], strict=True):
            connection.sendall(content[first:last])
            if pieces == "head first":
                time.sleep(0.05)
        while part := connection.recv(65536):
            found += part
    statuses, bodies = zip(*(one.split(b"\r\n\r\n") for one in found.split(b"HTTP/1.1 ")[1:]), strict=True)
    assert [status[:3] for status in statuses] == [b"200"] * 3
    assert bodies[0] == bodies[2] != bodies[1]


def test_a_hundred_megabytes_are_refused_before_they_are_sent(run: Run) -> None:
    from fastembed_rt.server.metrics import resident

    connect = run()
    huge = 100_000_000
    with connect() as connection:  # waits for the server's word, as curl does
        connection.sendall(request(b"", "expect: 100-continue", length=huge))
        status, body, _ = answer(connection)
        assert (status, body["error_type"], "payload_limit" in body["error"]) == (413, "TooLarge", True)
    before = resident()
    with connect() as connection:  # sends it all the same, and reads the answer then
        connection.sendall(request(b"", length=huge))
        chunk = b"x" * 1_000_000
        for _ in range(100):
            connection.sendall(chunk)
        assert answer(connection)[0] == 413
        connection.sendall(request())  # the connection is sound
        assert answer(connection)[0] == 200
    with connect() as connection:  # does not say how much it is
        connection.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                connection.sendall(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
        assert answer(connection)[0] == 413
    after = resident()
    assert before is None or after is None or after - before < 60_000_000  # the limit is 16 MB


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"inputs":"\xff\xfe"}',
        b'{"inputs":"\xc3"}',
        b'{"inputs":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"{",
        b"",
        b"\x00" * 1000,
    ],
)
def test_bodies_that_are_no_json_are_refused(run: Run, body: bytes) -> None:
    connect = run()
    with connect() as connection:
        connection.sendall(request(body))
        status, told, keep = answer(connection)
        assert (status, told["error_type"], keep) == (400, "Malformed", True)
        connection.sendall(request())
        assert answer(connection)[0] == 200


def test_a_client_that_does_not_read_is_given_up(run: Run) -> None:
    connect = run(patience={"stalled_seconds": 0.5})
    body = json.dumps({"inputs": ["the cat"] * 4000}).encode()
    deaf, slow = socket.socket(), socket.socket()
    for made in (deaf, slow):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connect() as probe:
        address = probe.getpeername()
    with deaf, slow:
        for made in (deaf, slow):
            made.settimeout(20)
            made.connect(address)
            for _ in range(8):  # more than the kernel's buffers take
                made.sendall(request(body))
        state = connect.server.server_state  # type: ignore[attr-defined]
        assert slow.recv(1)  # both are there: their requests run
        end = time.monotonic() + 30
        while len(state.connections) > 1:  # one that is slow, but reads, may go on
            assert slow.recv(4096)
            assert time.monotonic() < end
            time.sleep(0.005)
        for _ in range(200):
            assert slow.recv(4096)
            time.sleep(0.005)
        assert len(state.connections) == 1
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            for _ in range(8):
                answer(deaf)
    assert asks(connect) == 200


def test_clients_that_go_away_cost_nothing_more(run: Run, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exchange, "_start_watcher", None)  # here the connection tells it
    app = App({"encoder": loaded.encoder})
    connect = run(app=app)
    body = json.dumps({"inputs": ["the old dog runs " * 9] * 4000}).encode()
    before = loaded.encoder.stats.texts
    gone = [connect() for _ in range(5)]
    for connection in gone:
        connection.sendall(request(body))
    time.sleep(0.2)
    for k, connection in enumerate(gone):
        if k % 2:  # a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.close()
    until(lambda: not app.admission.requests)
    assert app.admission.requests == app.admission.tokens == 0
    assert loaded.encoder.stats.texts - before < 5 * 4000
    assert asks(connect) == 200


def test_a_request_that_takes_too_long_is_answered_and_its_connection_goes_on(run: Run, loaded: Any) -> None:
    app = App({"encoder": loaded.encoder}, limits=Limits(request_seconds=0.2, max_client_batch_size=30_000))
    connect = run(app=app)
    with connect() as connection:
        connection.sendall(request(json.dumps({"inputs": ["the old dog runs " * 9] * 30_000}).encode()))
        status, told, keep = answer(connection)
        assert (status, told["error_type"], keep) == (504, "Timeout", True)
        assert app.admission.requests == app.admission.tokens == 0
        time.sleep(0.3)  # what was to end the first ends no other
        connection.sendall(request())
        assert answer(connection)[0] == 200


def test_pipelined_requests_of_a_client_that_goes_away_are_not_made(run: Run, loaded: Any) -> None:
    app = App({"encoder": loaded.encoder})
    connect = run(app=app)
    with connect() as connection:
        connection.sendall(request() + request(b'{"inputs":"a dog"}'))  # answered in order
        content = b""
        while content.count(b"]]") < 2:
            more = connection.recv(65536)
            assert more
            content += more
        bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in content.split(b"HTTP/1.1 200 OK")[1:]]
        expected = loaded.encoder.encode(["the cat", "a dog"])
        np.testing.assert_array_equal(np.array(bodies, np.float32)[:, 0], expected)
    before = loaded.encoder.stats.texts
    body = json.dumps({"inputs": ["the old dog runs " * 9] * 4000}).encode()
    with connect() as connection:
        connection.sendall(request(body) + request(body))
        time.sleep(0.02)
    # Reading is paused behind a second request, so that the first is still made: its end is seen when that is done.
    until(lambda: not app.admission.requests, 60)
    assert loaded.encoder.stats.texts - before <= 4000  # nothing of the second


def test_pipelined_requests_are_all_answered_by_a_server_that_drains(run: Run, loaded: Any) -> None:
    app = App({"encoder": loaded.encoder})
    connect = run(app=app)
    app.drain()
    with connect() as connection:
        connection.sendall(request() * 3)
        found = b""
        while more := connection.recv(65536):
            found += more
    assert found.count(b"HTTP/1.1 200 OK") == 3
    assert found.count(b"connection: close") == 1
    assert b"connection: close" in found.split(b"HTTP/1.1")[3]


def test_connections_beyond_the_limit_wait_for_their_turn(run: Run) -> None:
    connect = run(max_connections=3, keep_alive_seconds=1)
    first = [connect() for _ in range(3)]
    for connection in first:
        connection.sendall(request())
        assert answer(connection)[0] == 200
    began = time.monotonic()
    with connect() as waiting:
        waiting.sendall(request())
        assert answer(waiting)[0] == 200  # when one of the first was idle for a second
    assert time.monotonic() - began > 0.5
    for connection in first:
        connection.close()


def test_a_unix_socket(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    connect = run(uds=str(path))
    assert asks(connect) == 200
    assert stat.S_IMODE(path.stat().st_mode) == sockets.UDS_MODE
    with pytest.raises(InvalidInputError, match=f"listens on the Unix socket {path} already"):
        sockets.bind_unix(str(path))
    assert asks(connect) == 200
    left = tmp_path / "left"
    sockets.bind_unix(str(left)).close()  # a server that was killed leaves the file
    sockets.bind_unix(str(left)).close()
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InvalidInputError, match="no socket"):
        sockets.bind_unix(str(file))
    assert file.read_text() == "mine"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_by_certificate_files(run: Run, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    connect = run(certificate=str(certificate), certificate_key=str(key))
    trusted = ssl.create_default_context(cafile=str(certificate))
    with trusted.wrap_socket(connect(), server_hostname="127.0.0.1") as secure:
        for _ in range(2):
            secure.sendall(request())
            assert answer(secure)[0] == 200
    with connect() as plain:  # no TLS: an end, not a hang
        plain.sendall(request())
        assert b"200" not in plain.recv(100)
    with trusted.wrap_socket(connect(), server_hostname="127.0.0.1") as secure:
        secure.sendall(request())
        assert answer(secure)[0] == 200
