"""The load benchmark: its driver against a server that is known, and its tables from numbers that are known."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.load import driver, infinity_server, load_tables
from benchmarks.load.servers import SERVERS, Place, named

DELAY = 0.02


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers after DELAY seconds, in two pieces, and refuses a body that says so."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ports: list[int] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
            body = await reader.readexactly(length)
            await asyncio.sleep(DELAY)
            status = b"429 No" if b"refuse" in body else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nab")
            await asyncio.sleep(0)
            writer.write(b"cd")
            assert head.startswith(b"POST /embeddings ")
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop)
    assert ready.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_the_driver_counts_what_is_answered_in_its_window(port: int) -> None:
    began = time.monotonic()
    found = asyncio.run(driver.drive(port, "/embeddings", ["{}"], [], 3, 0.1, 0.5))
    assert time.monotonic() - began < 10
    assert found["failed"] == {}
    assert 3 <= found["answered"] <= 3 * 0.5 / DELAY + 3  # no more than such a server can
    assert min(found["seconds"]) >= DELAY * 0.9
    assert found["seconds"] == sorted(found["seconds"])
    assert 0 <= found["driver_busy"] <= 1.5
    refused = asyncio.run(driver.drive(port, "/embeddings", ['"refuse"'], [], 2, 0.0, 0.2))
    assert (refused["answered"], refused["seconds"], list(refused["failed"])) == (0, [], ["429"])


def sample(server: str, scenario: str, number: int, answered: int, seconds: list[float]) -> dict[str, Any]:
    return {
        "server": server,
        "scenario": scenario,
        "round": number,
        "answered": answered,
        "wall": 2.0,
        "seconds": seconds,
        "failed": {},
        "driver_busy": 0.25,
    }


def record() -> dict[str, Any]:
    samples = []
    for number, factor in enumerate((1, 2, 4)):  # a machine that changes its speed: ratios stay
        samples += [
            sample("rt-int8", "one", number, 100, [0.003 * factor] * 9),
            sample("bare-int8", "one", number, 100, [0.0025 * factor] * 9),
            sample("rt-int8", "32", number, 1600 // factor, [0.01 * factor] * 100),
            sample("infinity-torch", "32", number, 200 // factor, [0.1 * factor] * 100),
            sample("rt-int8", "eight", number, 100, [0.01 * factor] * 100),
            sample("rt-int8", "eight-long", number, 100, [0.01 * factor] * 98 + [0.02 * factor] * 2),
        ]
    return {
        "settings": {"threads": 1, "driver_cpus": [1], "rounds": 3, "seconds": 2.0},
        "servers": {
            "rt-int8": {"title": "ours", "ours": True},
            "bare-int8": {"title": "bare", "ours": False, "floor": True},
            "infinity-torch": {"title": "theirs", "ours": False},
            "fastapi-st": {"title": "broken", "ours": False, "failed": "it does not start"},
        },
        "samples": samples,
        "encode": [
            {"round": k, "precision": "int8", "rate": 1000 / factor, "seconds": [0.002 * factor]}
            for k, factor in enumerate((1, 2, 4))
        ],
    }


def test_ratios_are_taken_within_a_round() -> None:
    made = record()
    assert load_tables.ratio(made, ("rt-int8", "32"), ("infinity-torch", "32"), load_tables.rate) == 8
    assert load_tables.to_encode(made, "rt-int8", "32") == pytest.approx(0.8)
    assert load_tables.over_encode(made, "rt-int8") == pytest.approx(2.0)  # the middle round's 6 - 4 ms
    text = load_tables.render(made)
    assert "| ours | 50 (6.00 / 6.00) | 400 (20.00 / 20.00) |" in text
    assert "one connection +2.00 ms to encode, 32 connections 80 % of encode's rate" in text
    assert "p99 x 2.00 under a long job, 8.0 x theirs" in text
    assert "- bare: one connection +1.00 ms to encode" in text
    assert "x bare" not in text
    assert "it does not start" in text
    assert "busy for 25 % of a CPU" in text


def test_every_server_is_started_on_loopback_with_its_threads() -> None:
    place = Place(model_dir="m", checkpoint="c", hub_dir="h", threads=3, port=1234)
    for server in named(SERVERS):
        words, variables = server.command(place), server.variables(place)
        assert "1234" in words or variables["PORT"] == "1234"
        told = json.dumps([words, variables])
        assert '"3"' in told
        assert "0.0.0.0" not in told
    with pytest.raises(BenchmarkError, match="unknown server other; there are rt-int8"):
        named(["other"])


def test_infinity_gets_a_number_of_threads_for_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(model_dir="m", checkpoint="c", hub_dir="h", threads=3, port=1234)
    words = SERVERS["infinity-optimum"].command(place)
    assert words[:4] == ["-m", "benchmarks.load.infinity_server", "3", "v2"]
    bound: list[int] = []
    began: list[list[str]] = []
    monkeypatch.setattr(infinity_server, "bound", bound.append)
    cli = SimpleNamespace(cli=lambda: began.append(sys.argv[1:]))
    monkeypatch.setitem(sys.modules, "infinity_emb", SimpleNamespace(cli=cli))
    monkeypatch.setitem(sys.modules, "infinity_emb.cli", cli)
    monkeypatch.setattr(sys, "argv", ["infinity_server", *words[2:]])
    infinity_server.main()
    assert (bound, began) == ([3], [words[3:]])
