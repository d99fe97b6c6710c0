"""How an answer is written: head and body together, whatever uvicorn would have made of it."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from fastembed_rt.server import deadlines
from fastembed_rt.server.answering import ONE_WRITE, Answer
from fastembed_rt.server.deadlines import Deadlines

BODY: dict[str, Any] = {"type": "http.response.body", "body": b"{}"}


class Cycle:
    """What uvicorn keeps of a request, as far as an answer needs it."""

    def __init__(self, method: str = "POST", **about: Any) -> None:
        self.scope = {"method": method}
        self.flow: Any = SimpleNamespace(write_paused=False)
        self.disconnected = False
        self.keep_alive = True
        self.waiting_for_100_continue = True
        self.response_started = self.response_complete = False
        self.default_headers = [(b"date", b"today")]
        self.message_event = asyncio.Event()
        self.written: list[bytes] = []
        self.passed: list[dict[str, Any]] = []
        self.ended: list[bool] = []
        self.told = 0
        self.transport = SimpleNamespace(
            write=self.written.append,
            close=partial(self.ended.append, True),
            get_protocol=lambda: SimpleNamespace(pipeline=[]),
        )
        for name, value in about.items():
            setattr(self, name, value)

    async def send(self, message: dict[str, Any]) -> None:
        self.passed.append(message)
        self.response_started = True

    def on_response(self) -> None:
        self.told += 1


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2"), *headers]}


def answered(made: Any, *messages: dict[str, Any]) -> Any:
    async def all_of_it() -> None:
        answer = Answer(made, NoTimes())  # type: ignore[arg-type]
        for message in messages:
            await answer(message)

    asyncio.run(all_of_it())
    return made


def test_head_and_body_go_in_one_write() -> None:
    made = answered(Cycle(), start(), BODY)
    assert made.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\n{}"]
    assert made.response_started
    assert made.response_complete
    assert made.message_event.is_set()
    assert not made.waiting_for_100_continue
    assert (made.told, made.ended) == (1, [])


def test_a_large_body_is_not_copied() -> None:
    body = bytes(ONE_WRITE + 1)
    made = answered(Cycle(), start(), {"type": "http.response.body", "body": body})
    assert len(made.written) == 2
    assert made.written[1] is body


@pytest.mark.parametrize("said", [(), ((b"connection", b"close"),)])
def test_the_end_of_a_connection_is_said_once(said: Any) -> None:
    made = answered(Cycle(keep_alive=bool(said)), start(*said), BODY)
    assert made.written[0].count(b"connection: close") == 1
    assert made.ended


def test_a_header_that_is_called_close_says_nothing() -> None:
    made = answered(Cycle(keep_alive=False), start((b"x-request-id", b"close")), BODY)
    assert made.written[0].count(b"connection: close") == 1
    made = answered(Cycle(), start((b"connection", b"close"), (b"x-total-time", b"1")), BODY)
    assert made.written[0].count(b"connection: close") == 1


def test_a_head_whose_body_never_came_gives_way_to_an_error() -> None:
    failed = {"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"2")]}
    made = answered(Cycle(), start(), failed, BODY)
    assert made.written[0].startswith(b"HTTP/1.1 500 ")


def test_who_asks_for_the_head_alone_gets_no_body() -> None:
    assert answered(Cycle("HEAD"), start(), BODY).written[0].endswith(b"content-length: 2\r\n\r\n")


def test_an_answered_request_is_gone_at_once() -> None:
    async def scenario() -> None:
        made = Cycle()
        made.send = Answer(made, NoTimes())  # type: ignore[arg-type, method-assign]
        await made.send(start())
        await made.send(BODY)
        gone.append(weakref.ref(made))

    gone: list[weakref.ref[Cycle]] = []
    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
        assert gone[0]() is None
    finally:
        gc.enable()


def test_nothing_is_written_to_who_has_gone_and_a_full_connection_is_waited_for() -> None:
    made = answered(Cycle(disconnected=True), start(), BODY)
    assert made.written == []
    assert made.told == 0
    waited = []

    async def drain() -> None:
        waited.append(True)

    flow = SimpleNamespace(write_paused=True, drain=drain)
    made = answered(Cycle(flow=flow), start(), BODY)
    assert waited == [True]
    assert len(made.written) == 1


def test_an_answer_in_pieces_is_uvicorns() -> None:
    pieces: list[dict[str, Any]] = [
        {"type": "http.response.body", "body": b"{", "more_body": True},
        {"type": "http.response.body", "body": b"}"},
    ]
    made = answered(Cycle(), start(), *pieces)
    assert made.passed == [start(), *pieces]
    assert made.written == []


class Patient:
    """Who waits."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.ended: list[str] = []

    def end_late(self) -> None:
        self.ended.append("late")

    def end_gone(self) -> None:
        self.ended.append("gone")


class NoTimes:
    """Deadlines that nobody waits for."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def add(self, late: Any) -> None:
        self.waiting.append(late)

    def discard(self, late: Any) -> None:
        self.waiting.remove(late)


@pytest.mark.parametrize(("paused", "waiting", "resumed"), [(False, 0, 0), (True, 0, 1), (True, 1, 0)])
def test_who_watches_reads_on_but_for_more_requests(paused: bool, waiting: int, resumed: int) -> None:
    done: list[bool] = []
    flow = SimpleNamespace(read_paused=paused, resume_reading=partial(done.append, True))
    transport = SimpleNamespace(get_protocol=lambda: SimpleNamespace(pipeline=[None] * waiting))
    cycle, times, patient = Cycle(flow=flow, transport=transport), NoTimes(), Patient(1)
    answer = Answer(cycle, times)  # type: ignore[arg-type]
    assert answer.watch(patient)
    assert (len(done), times.waiting) == (resumed, [patient])
    answer.client_gone()
    answer.client_gone()
    assert (patient.ended, times.waiting) == (["gone"], [])


def test_who_is_watched_no_more_is_told_nothing() -> None:
    cycle, times, patient = Cycle(flow=SimpleNamespace(read_paused=False)), NoTimes(), Patient(1)
    answer = Answer(cycle, times)  # type: ignore[arg-type]
    assert answer.watch(patient)
    answer.unwatch()
    answer.client_gone()
    assert (patient.ended, times.waiting) == ([], [])


def test_who_has_gone_before_is_not_watched() -> None:
    cycle, times = Cycle(disconnected=True), NoTimes()
    assert not Answer(cycle, times).watch(Patient(1))  # type: ignore[arg-type]
    assert times.waiting == []


def test_each_is_ended_at_its_own_time_and_others_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def patient(deadline: float) -> Patient:
        made = Patient(0)
        made.deadline = deadline
        return made

    async def until(seconds: float) -> None:
        nonlocal now
        now = seconds
        for _ in range(3):  # the event loop looks at the clock, then calls what is due
            await asyncio.sleep(0)

    async def all_of_it() -> list[list[str]]:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: now)
        monkeypatch.setattr(deadlines, "time", SimpleNamespace(monotonic=lambda: now))
        times = Deadlines(loop)
        those = [patient(15), patient(5), patient(6000), patient(5), patient(30)]
        for one in those:
            times.add(one)
        times.discard(those[3])
        times.discard(those[3])
        await until(10)
        assert [list(one.ended) for one in those] == [[], ["late"], [], [], []]
        await until(20)
        again = patient(22)  # sooner than what the timer waits for
        times.add(again)
        await until(25)
        assert again.ended == ["late"]
        return [one.ended for one in those]

    assert asyncio.run(all_of_it()) == [["late"], ["late"], [], [], []]
