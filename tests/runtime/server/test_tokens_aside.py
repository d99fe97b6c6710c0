"""What is made of many tokens without a model: bounded in memory, time and threads, and the same in any pieces."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from asgi_client import Client

from fastembed_rt.server import limits
from fastembed_rt.server.dialects import tokens
from fastembed_rt.server.limits import Limits

Serve = Callable[..., Client]
TEXTS = ["the cat sleeps.", "", "über die Bäume — 猫 the cat 🐈 sleeps.", "a dog " * 40]
MANY = {"inputs": ["a cat"] * 300}  # in the lane of long requests


def as_it_was(texts: Sequence[str], client: Client, *, special: bool) -> list[Any]:
    """All in one piece, from what the tokenizer's library says."""
    library = client.app.models.all[0].model._tokenizer._library.free
    found = []
    for text in texts:
        encoding = library.encode(text)
        rows = []
        for number, word, (start, stop), mask in zip(
            encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True
        ):
            if mask and special:
                rows.append({"id": number, "text": word, "special": True, "start": None, "stop": None})
            elif not mask:
                begin, end = (len(text[:place].encode()) for place in (start, stop))
                rows.append({"id": number, "text": text[start:stop], "special": False, "start": begin, "stop": end})
        found.append(rows)
    return found


@pytest.mark.parametrize("at_once", [1, 3, 4096])
@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_the_same_in_any_pieces(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, at_once: int, special: bool
) -> None:
    monkeypatch.setattr(tokens, "AT_ONCE", at_once)
    client = serve()
    answer = client.post("/tokenize", {"inputs": TEXTS, "add_special_tokens": special})
    assert answer.json == as_it_was(TEXTS, client, special=special)
    ids = [[row["id"] for row in rows] for rows in answer.json if rows]
    library = client.app.models.all[0].model._tokenizer._library.free
    assert client.post("/decode", {"ids": ids}).json == [library.decode(row) for row in ids]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"inputs": ["the cat sleeps"] * 40}),
        ("/tokenize", {"inputs": "a " * 120}),  # more than it seems before it is tokenized
        ("/decode", {"ids": [[5, 6]] * 60}),
    ],
)
def test_more_tokens_than_the_queue_may_have_are_refused(serve: Serve, path: str, body: Any) -> None:
    client = serve(limits=Limits(max_queue_tokens=100))
    answer = client.post(path, body)
    assert (answer.status, answer.json["error_type"]) == (413, "TooLarge")
    assert "max_queue_tokens is 100; send fewer texts" in answer.json["error"]
    assert client.app.admission.tokens == client.app.admission.requests == 0
    assert client.post("/tokenize", {"inputs": "the cat"}).status == 200


def slowly(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that are tokenized one after the other, 0.02 s each; those that were begun."""
    begun: list[str] = []

    def one_by_one(texts: Sequence[str]) -> Iterator[list[str]]:
        for text in texts:
            time.sleep(0.02)
            begun.append(text)
            yield [text]

    monkeypatch.setattr(tokens, "_groups", one_by_one)
    monkeypatch.setattr("fastembed_rt.server.exchange.WATCH_AFTER", 0.0)
    return begun


def stands_still(begun: list[str]) -> bool:
    """Whether nothing more is begun, but what was at that moment."""
    time.sleep(0.2)
    before = len(begun)
    time.sleep(0.2)
    return len(begun) == before < len(MANY["inputs"])


def test_tokens_that_nobody_waits_for_are_not_made(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, client = slowly(monkeypatch), serve()
    asked = client.request("POST", "/tokenize", json.dumps(MANY).encode(), {}, gone_after=0.1)
    assert client.loop.run_until_complete(asked).status == 0
    assert stands_still(begun)
    assert client.app.admission.tokens == client.app.admission.requests == 0


def test_tokens_that_take_too_long_are_a_timeout(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, client = slowly(monkeypatch), serve(limits=Limits(request_seconds=0.3))
    answer = client.post("/tokenize", MANY)
    assert (answer.status, answer.json["error_type"]) == (504, "Timeout")
    assert stands_still(begun)


def test_long_texts_leave_threads_to_others(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client, go_on = serve(), threading.Event()
    running: list[int] = []

    def waiting(texts: Sequence[str]) -> Iterator[Sequence[str]]:
        if len(texts) > 1:
            running.append(len(texts))
            assert go_on.wait(20)
        yield texts

    monkeypatch.setattr(tokens, "_groups", waiting)

    async def scenario() -> list[int]:
        content = json.dumps(MANY).encode()
        long = [asyncio.ensure_future(client.request("POST", "/tokenize", content, {})) for _ in range(5)]
        while len(running) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        short = await asyncio.wait_for(client.request("POST", "/tokenize", b'{"inputs":"a cat"}', {}), 10)
        assert (short.status, len(running)) == (200, 2)
        go_on.set()
        return [(await task).status for task in long]

    assert client.loop.run_until_complete(scenario()) == [200] * 5
    client.app.close()
    assert client.post("/tokenize", MANY).status == 503


def test_vectors_of_tokens_have_a_limit_in_all(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_NUMBERS", 3000)
    few, many = ["the cat sleeps."], ["the cat sleeps."] * 60
    for path, body in (
        ("/embed_all", lambda texts: {"inputs": texts}),
        ("/embed_all", lambda texts: {"inputs": texts, "model": "colbert"}),
        ("/pooling", lambda texts: {"input": texts, "model": "colbert"}),
        ("/rerank", lambda texts: {"query": "a cat", "texts": texts, "model": "colbert"}),
        ("/colbert", lambda texts: {"instances": [{"inputs": text} for text in texts]}),
    ):
        assert client.post(path, body(few)).status == 200
        answer = client.post(path, body(many))
        assert answer.status == 413, path
        assert "a request may have 3000; send fewer texts" in answer.body.decode()
    assert client.post("/embed", {"inputs": many}).status == 200
