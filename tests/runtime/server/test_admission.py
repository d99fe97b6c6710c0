"""What the server takes on at a time: who is let in while others are answered, and as how much each counts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgi_client import Client

from fastembed_rt.server.jobs import after_cut
from fastembed_rt.server.limits import Limits

Serve = Callable[..., Client]
WHOLE = "a cat " * 30  # 62 tokens about, of which the model reads 40


@pytest.fixture
def narrow(serve: Serve) -> Client:
    """An application with room for 100 tokens in each lane, whose options of /embed and /score are prepared."""
    client = serve(limits=Limits(max_queue_tokens=100))
    assert client.post("/embed", {"inputs": "a cat"}).status == 200
    assert client.post("/score", {"text_1": "a cat", "text_2": "a dog", "model": "encoder"}).status == 200
    return client


def statuses(client: Client, bodies: list[Any], path: str = "/embed") -> list[int]:
    found = [answer.status for answer in client.together(path, bodies)]
    assert client.app.admission.tokens == client.app.admission.requests == 0
    return found


def test_a_long_request_keeps_no_short_one_out_and_no_short_one_a_long_one(narrow: Client) -> None:
    long, short = {"inputs": [WHOLE] * 400}, {"inputs": "a cat"}
    assert statuses(narrow, [long, short, long, short]) == [200, 200, 429, 200]
    assert statuses(narrow, [{"inputs": [WHOLE] * 2}, long, {"inputs": [WHOLE] * 2}]) == [200, 200, 429]


def test_a_text_counts_as_what_is_left_of_it_when_it_is_cut(narrow: Client) -> None:
    assert statuses(narrow, [{"inputs": WHOLE * 50}] * 3) == [200, 200, 429]
    cut, whole = (SimpleNamespace(max_length=40, truncation=policy) for policy in ("truncate", "chunk"))
    assert [after_cut(64, [WHOLE, ""], tokenizer) for tokenizer in (cut, whole)] == [42, 64]  # type: ignore[arg-type]


def test_a_request_that_is_alone_is_taken_whatever_its_sides(narrow: Client) -> None:
    sides = {"text_1": [f"{WHOLE} {k}" for k in range(300)], "text_2": [WHOLE] * 300, "model": "encoder"}
    assert statuses(narrow, [sides], "/score") == [200]
