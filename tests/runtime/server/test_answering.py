"""How an answer is written: head and body together, whatever uvicorn would have made of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from fastembed_rt.server.answering import ONE_WRITE, Answer


def cycle(**about: Any) -> Any:
    """What uvicorn keeps of a request, as far as an answer needs it."""
    made = SimpleNamespace(
        flow=SimpleNamespace(write_paused=False),
        disconnected=False,
        keep_alive=True,
        waiting_for_100_continue=True,
        response_started=False,
        response_complete=False,
        default_headers=[(b"date", b"today")],
        message_event=asyncio.Event(),
        written=[],
        passed=[],
        closed=False,
        told=0,
    )

    async def send(message: dict[str, Any]) -> None:
        made.passed.append(message)
        made.response_started = True

    def on_response() -> None:
        made.told += 1

    def close() -> None:
        made.closed = True

    made.send, made.on_response = send, on_response
    made.transport = SimpleNamespace(write=made.written.append, close=close)
    for name, value in about.items():
        setattr(made, name, value)
    return made


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2"), *headers]}


def answered(made: Any, *messages: dict[str, Any]) -> Any:
    async def all_of_it() -> None:
        answer = Answer(made)
        for message in messages:
            await answer(message)

    asyncio.run(all_of_it())
    return made


def test_head_and_body_go_in_one_write() -> None:
    made = answered(cycle(), start(), {"type": "http.response.body", "body": b"{}"})
    assert made.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\n{}"]
    assert made.response_started
    assert made.response_complete
    assert made.message_event.is_set()
    assert not made.waiting_for_100_continue
    assert (made.told, made.closed) == (1, False)


def test_a_large_body_is_not_copied() -> None:
    body = bytes(ONE_WRITE + 1)
    made = answered(cycle(), start(), {"type": "http.response.body", "body": body})
    assert len(made.written) == 2
    assert made.written[1] is body


@pytest.mark.parametrize("said", [(), ((b"connection", b"close"),)])
def test_the_end_of_a_connection_is_said_once(said: Any) -> None:
    made = answered(cycle(keep_alive=bool(said)), start(*said), {"type": "http.response.body", "body": b"{}"})
    assert made.written[0].count(b"connection: close") == 1
    assert made.closed


def test_nothing_is_written_to_who_has_gone_and_a_full_connection_is_waited_for() -> None:
    made = answered(cycle(disconnected=True), start(), {"type": "http.response.body", "body": b"{}"})
    assert made.written == []
    assert made.told == 0
    waited = []

    async def drain() -> None:
        waited.append(True)

    flow = SimpleNamespace(write_paused=True, drain=drain)
    made = answered(cycle(flow=flow), start(), {"type": "http.response.body", "body": b"{}"})
    assert waited == [True]
    assert len(made.written) == 1


def test_an_answer_in_pieces_is_uvicorns() -> None:
    pieces = [
        {"type": "http.response.body", "body": b"{", "more_body": True},
        {"type": "http.response.body", "body": b"}"},
    ]
    made = answered(cycle(), start(), *pieces)
    assert made.passed == [start(), *pieces]
    assert made.written == []
