"""The end of a server, whenever it is told to: nothing that has come is lost, nothing is left, and nobody waits."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import Started, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
BODY = json.dumps({"inputs": "the cat sleeps."}).encode()
REQUEST = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY

# A process that serves tells itself to end, at a moment that the environment names, when the test has done its part.
TOLD_AT_A_MOMENT = """
import os, signal, time
from pathlib import Path
import uvicorn
from fastembed_rt.server.app import App
place = Path(os.environ["PLACE"])
def told():
    (place / "there").touch()
    while not (place / "go").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
run, warm_up = uvicorn.Server.run, App.warm_up
def run_told(self, *args, **kwargs):
    told()
    return run(self, *args, **kwargs)
async def warm_up_told(self):
    await warm_up(self)
    told()
if os.environ["MOMENT"] == "before its event loop":
    uvicorn.Server.run = run_told
else:
    App.warm_up = warm_up_told
"""


def paths(place: Path, code: str) -> str:
    """PYTHONPATH with which Python runs this at its start."""
    (place / "sitecustomize.py").write_text(code)
    return os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])


def everything(connection: socket.socket) -> bytes:
    """Until the server closes."""
    connection.settimeout(60)
    content = b""
    while more := connection.recv(1 << 16):
        content += more
    return content


@pytest.mark.parametrize("moment", ["before its event loop", "while it warms up"])
def test_who_waits_is_answered_when_the_end_comes_at_the_start(directories: Any, tmp_path: Path, moment: str) -> None:
    env = {"PYTHONPATH": paths(tmp_path, TOLD_AT_A_MOMENT), "PLACE": str(tmp_path), "MOMENT": moment}
    # Nobody waits for the client that says nothing: the times for it are longer than the test's.
    options = ("--drain-seconds", 300, "--head-seconds", 300)
    started = Started(directories.models["encoder"], *options, **env)
    try:
        wait_for((tmp_path / "there").exists)
        with started.connect() as asks, started.connect():
            asks.sendall(REQUEST)
            (tmp_path / "go").touch()
            assert started.end()[0] == 0
            assert everything(asks).startswith(b"HTTP/1.1 200")
    finally:
        started.process.kill()


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_not_done_when_the_time_is_over_is_told_so(directories: Any, workers: int) -> None:
    options = ("--workers", workers, "--drain-seconds", 1, "--body-seconds", 300)
    with Started(directories.models["encoder"], *options) as started, started.connect() as asks:
        asks.sendall(REQUEST[:-1])
        code, said = started.end(signal.SIGTERM)
        assert (code, "Traceback" in said) == (0, False), said
        answer = everything(asks)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"the server is stopping" in answer


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_drops_what_is_not_answered(directories: Any, workers: int) -> None:
    options = ("--workers", workers, "--drain-seconds", 300, "--body-seconds", 300)
    with Started(directories.models["encoder"], *options) as started, started.connect() as asks:
        asks.sendall(REQUEST[:-1])
        started.process.send_signal(signal.SIGINT)
        wait_for(lambda: not is_listening(started.port))
        assert started.process.poll() is None
        code, said = started.end(signal.SIGINT)
        assert (code, "Traceback" in said) == (0, False), said


LOADS_FOR_EVER = """
import os, threading
from pathlib import Path
from fastembed_rt.server import reloading
def loaded(self):
    (Path(os.environ["PLACE"]) / "there").touch()
    threading.Event().wait()
reloading.Reloader._loaded = loaded
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_the_end_waits_for_no_reload(directories: Any, tmp_path: Path, workers: int) -> None:
    env = {"PYTHONPATH": paths(tmp_path, LOADS_FOR_EVER), "PLACE": str(tmp_path)}
    options = ("--workers", workers, "--drain-seconds", 300)
    with Started(directories.models["encoder"], *options, **env) as started:
        started.process.send_signal(signal.SIGHUP)
        wait_for((tmp_path / "there").exists)
        assert started.ask("POST", "/embed", {"inputs": "a"})[0] == 200
        assert started.end(signal.SIGTERM)[0] == 0


DOES_NOT_ANSWER = """
from fastembed_rt.server.app import App
async def warm_up(self):
    raise RuntimeError("no memory to run")
App.warm_up = warm_up
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_loads_and_does_not_answer_is_an_error(directories: Any, tmp_path: Path, workers: int) -> None:
    started = Started(directories.models["encoder"], "--workers", workers, PYTHONPATH=paths(tmp_path, DOES_NOT_ANSWER))
    try:
        code, said = started.end()
        assert code == 3
        assert "no memory to run" in said
        assert "started again" not in said
    finally:
        started.process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_goes_with_the_server(directories: Any, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "socket"
    started = Started(directories.models["encoder"], "--workers", workers, "--uds", path)
    try:
        wait_for(path.exists)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(REQUEST.replace(b"host: x", b"host: x\r\nconnection: close"))
            assert everything(client).startswith(b"HTTP/1.1 200")
        code, said = started.end(signal.SIGTERM)
        assert (code, path.exists()) == (0, False), said
    finally:
        started.process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_goes_with_a_server_that_does_not_start(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "socket"
    code, said = Started(tmp_path / "missing", "--workers", workers, "--uds", path).end()
    assert code != 0
    assert "missing" in said
    assert not path.exists()
