"""What is counted stays counted, what is said is said once, keys that are empty, and work for requests that failed."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Any

import pytest
from asgi_client import Client

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.server.app import App
from fastembed_rt.server.models import named_models
from fastembed_rt.server.totals import Totals


def sample(text: str, name: str) -> float:
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def test_workers_say_once_what_they_serve_and_add_what_they_count(loaded: Any) -> None:
    with App({"encoder": loaded.encoder}) as app:
        client = Client(app)
        client.post("/embed", {"inputs": ["a", "the cat " * 40], "truncate": True})
        text = client.get("/metrics").body.decode()
        client.close()
    together = Totals().text([text, text])
    assert sample(text, "fastembed_rt_info") == sample(together, "fastembed_rt_info") == 1
    counted = "te_request_count"
    assert sample(together, counted) == 2 * sample(text, counted) > 0
    cut = "fastembed_rt_truncated_texts_total"
    assert sample(together, cut) == 2 * sample(text, cut) >= 2


def test_a_reload_forgets_no_text_that_was_cut(directories: Any) -> None:
    def load() -> Any:
        return named_models(EmbeddingModel(directories.models["encoder"], threads=1), token_ids=False)

    with App(load(), load=load) as app:
        client = Client(app)
        seen = []
        for _ in range(3):
            assert client.post("/embed", {"inputs": "the cat " * 40, "truncate": True}).status == 200
            seen.append(sample(client.get("/metrics").body.decode(), "fastembed_rt_truncated_texts_total"))
            client.loop.run_until_complete(app.reload())
            seen.append(sample(client.get("/metrics").body.decode(), "fastembed_rt_truncated_texts_total"))
        assert seen == [1, 1, 2, 2, 3, 3]
        client.loop.run_until_complete(asyncio.sleep(0.1))  # the old models close
        client.close()
        for served in app.models.all:
            served.model.close()


@pytest.mark.parametrize("given", [["--api-key", ""], ["--api-key", " , "], ["--api-key-file", ""]])
def test_a_key_that_is_empty_opens_nothing(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "model", *given]) == 2
    assert f"{given[0]} is empty, so that everybody could ask" in capsys.readouterr().err


@pytest.mark.parametrize("late", [False, True], ids=["begun", "not begun"])
def test_what_belongs_to_a_request_that_failed_is_not_done(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    model, texts = loaded.colbert, 4000
    with App({"colbert": model}) as app:
        (served,) = app.models.all
        prepare, failed, prepared = served._prepare, threading.Event(), threading.Event()

        def slowly(options: dict[str, Any], ids: bool) -> Any:
            if late and options["role"] == "document":
                assert failed.wait(20)
                prepared.set()
            return prepare(options, ids)

        monkeypatch.setattr(served, "_prepare", slowly)
        client = Client(app)
        if not late:  # what both sides need is there
            assert client.post("/rerank", {"query": "a cat", "texts": ["a dog"], "truncate": False}).status == 200
        before = model.stats.texts
        body = {"query": "the cat " * 40, "texts": ["a dog runs under the tree"] * texts, "truncate": False}
        answer = client.post("/rerank", body)
        assert (answer.status, "over max_length" in answer.json["error"]) == (422, True)
        assert app.admission.requests == 0
        failed.set()
        if late:
            assert client.loop.run_until_complete(asyncio.to_thread(prepared.wait, 20))
        client.loop.run_until_complete(asyncio.sleep(0.3 if late else 0))
        assert app.admission.tokens == 0
        seen = -1
        while seen != model.stats.texts:  # what runs at that moment comes to its end
            seen = model.stats.texts
            time.sleep(0.2)
        assert seen - before < (1 if late else texts), "it goes on"
        assert client.post("/rerank", {"query": "a cat", "texts": ["a dog"]}).status == 200
        client.close()
