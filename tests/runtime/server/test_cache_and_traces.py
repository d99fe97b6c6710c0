"""What is kept, logged and traced of requests: never a text, never at the cost of an answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32
from exports import quick
from jina_checkpoints import save_embedder
from loopback import Load, Started

from fastembed_rt import EmbeddingModel
from fastembed_rt.server.access_log import AccessLog
from fastembed_rt.server.app import App
from fastembed_rt.server.cache import OVERHEAD, VectorCache
from fastembed_rt.server.lines import MOST_LINES
from fastembed_rt.server.models import named_models

TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", "the river"]
TOLD = {"status": 200, "route": "/embed"}


@pytest.fixture
def cached(loaded: Any) -> Iterator[Client]:
    cache = VectorCache(1_000_000)
    with App(loaded.by_name(), cache=cache) as app:
        client = Client(app)
        yield client
        client.close()


def counted(client: Client) -> tuple[int, int]:
    cache = client.app.cache
    return cache.hits, cache.misses


def test_vectors_that_were_made_are_found_again(cached: Client, loaded: Any) -> None:
    texts = loaded.encoder.stats.texts
    first = cached.post("/v1/embeddings", {"input": TEXTS[:2]})
    assert (counted(cached), loaded.encoder.stats.texts - texts) == ((0, 2), 2)
    mixed = cached.post("/v1/embeddings", {"input": [TEXTS[2], TEXTS[1], TEXTS[0], TEXTS[1]]})
    assert (counted(cached), loaded.encoder.stats.texts - texts) == ((3, 3), 3)
    again = cached.post("/v1/embeddings", {"input": TEXTS[:2]})
    assert loaded.encoder.stats.texts - texts == 3
    assert again.json["data"] == first.json["data"]
    vectors = [float32(entry["embedding"]) for entry in mixed.json["data"]]
    np.testing.assert_array_equal(vectors, loaded.encoder.encode([TEXTS[2], TEXTS[1], TEXTS[0], TEXTS[1]]))
    # Tokens are counted as if all had run: they are what a client is billed.
    tokens = loaded.encoder.count_tokens(TEXTS)
    assert again.json["usage"] == first.json["usage"]
    assert mixed.json["usage"]["prompt_tokens"] == tokens.sum() + tokens[1]


def test_a_reload_that_changes_the_encoder_of_one_role_alone_changes_what_is_found(tmp_path: Path) -> None:
    checkpoint = save_embedder(tmp_path / "jina")
    for name, query in (("one", "separation"), ("other", "text-matching")):
        quick(checkpoint, tmp_path / name, adapter=f"query={query},document=classification")
    link = tmp_path / "model"
    link.symlink_to(tmp_path / "one")

    def load() -> Any:
        return named_models(EmbeddingModel(link, threads=1), token_ids=False)

    asked = {"input": "the cat sleeps.", "input_type": "query"}
    with App(load(), load=load, cache=VectorCache(1_000_000)) as app:
        client = Client(app)
        before = client.post("/v1/embeddings", asked).json["data"][0]["embedding"]
        link.unlink()
        link.symlink_to(tmp_path / "other")
        client.loop.run_until_complete(app.reload())
        after = client.post("/v1/embeddings", asked).json["data"][0]["embedding"]
        client.close()
        for served in app.models.all:
            served.model.close()
    with EmbeddingModel(tmp_path / "other") as model:
        np.testing.assert_array_equal(float32(after), model.encode_query("the cat sleeps."))
    assert before != after


def test_what_decides_a_vector_decides_where_it_is_found(cached: Client, loaded: Any) -> None:
    model, text = loaded.encoder, TEXTS[1]
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"prompt_name": "red"}, {"prompt_name": "red"}),
        ({"dimensions": 8}, {"truncate_dim": 8}),
        ({"normalize": False}, {"normalize": False}),
    ]
    for _ in range(2):
        for body, options in asked:
            found = cached.post("/embed", {"inputs": text, **body}).json[0]
            np.testing.assert_array_equal(float32(found), _encoded(model, text, options))
    assert counted(cached) == (len(asked), len(asked))
    long = "the cat sleeps under the tree . " * 20  # cut from either side
    sides = [cached.post("/embed", {"inputs": long, "truncation_direction": side}).json for side in ("Left", "Right")]
    assert sides[0] != sides[1]
    assert cached.post("/embed", {"inputs": long, "truncate": False}).status == 422
    # Other tasks and outputs are made each time.
    before = counted(cached)
    for _ in range(2):
        assert cached.post("/embed_all", {"inputs": text, "model": "encoder"}).status == 200
        assert cached.post("/embed_sparse", {"inputs": text}).status == 200
        assert cached.post("/rerank", {"query": text, "texts": [text]}).status == 200
    assert counted(cached) == before


def _encoded(model: Any, text: str, options: dict[str, Any]) -> Any:
    if options.get("normalize") is False:
        return model._unnormalized().encode(text)
    return model.encode(text, **options)


def test_the_cache_is_bounded_and_drops_what_was_used_least() -> None:
    vectors = np.arange(40, dtype=np.float32).reshape(5, 8)
    size = vectors[0].nbytes + OVERHEAD
    cache = VectorCache(3 * size)
    keys = cache.keys("m", list("abcde"))
    assert len(set(keys)) == 5
    assert cache.keys("other", ["a"]) != keys[:1]
    cache.put(keys[:3], vectors[:3], [1, 2, 3])
    assert cache.find(keys[:1])[0] is not None  # used: b is now the oldest
    cache.put(keys[3:4], vectors[3:4], [4])
    found = cache.find(keys)
    assert [entry is not None for entry in found] == [True, False, True, True, False]
    assert (cache.bytes, cache.dropped, len(cache)) == (3 * size, 1, 3)
    vectors[0] = 0  # what is kept is its own
    entry = cache.find(keys[:1])[0]
    assert entry is not None
    np.testing.assert_array_equal(entry[0], np.arange(8))
    assert entry[1] == 1
    small = VectorCache(10)
    small.put(keys, vectors, [1] * 5)
    assert (len(small), small.bytes) == (0, 0)


def test_memory_of_the_cache_is_what_it_says() -> None:
    import tracemalloc

    cache = VectorCache(2_000_000)
    tracemalloc.start()
    for start in range(0, 5000, 50):
        texts = [f"text {number}" for number in range(start, start + 50)]
        cache.put(cache.keys("m", texts), np.ones((50, 384), np.float32), [3] * 50)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cache.dropped > 0
    assert used < 1.15 * cache.most_bytes


def test_log_lines_are_written_aside(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = AccessLog(1.0, file.fileno())
        for k in range(1000):
            log({**TOLD, "texts": k})
        log.close(10)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["texts"] for line in lines] == list(range(1000))
    with path.open("wb") as file:
        log = AccessLog(0.0, file.fileno())
        for status in (200, 404, 200, 500):
            log({**TOLD, "status": status})
        log.close(10)
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == [404, 500]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_costs_lines_and_no_answers() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        log = AccessLog(1.0, full.fileno())
        for _ in range(10):
            log(dict(TOLD))
        log.close(10)
    assert log.dropped == 10


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    read, write = os.pipe()
    log = AccessLog(1.0, write)
    began = time.monotonic()
    for _ in range(MOST_LINES + 5000):
        log(dict(TOLD))
    assert time.monotonic() - began < 5
    assert log.dropped > 0
    assert len(log._lines._waiting) <= MOST_LINES
    received = 0

    def drain() -> None:
        nonlocal received
        while chunk := os.read(read, 65536):
            received += chunk.count(b"\n")

    reader = threading.Thread(target=drain)
    reader.start()
    log.close(20)
    os.close(write)
    reader.join(20)
    os.close(read)
    assert received + log.dropped == MOST_LINES + 5000


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_server_whose_logs_cannot_be_written_answers(directories: Any) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        Started(directories.models["encoder"], "--access-log", 1, "--cache-mb", 1, stdout=full) as started,
    ):
        load = Load(started.port, json.dumps({"inputs": "the cat"}).encode())
        asyncio.run(load.run(4, requests=200))
        assert (load.answers, load.lost) == ({200: 200}, [])
        until = time.monotonic() + 20
        while (metrics := started.metrics())["fastembed_rt_access_log_dropped_total"] < 200:
            assert time.monotonic() < until
        assert (metrics["fastembed_rt_cache_hits_total"], metrics["fastembed_rt_cache_misses_total"]) >= (196, 1)


def test_spans_of_requests(loaded: Any) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from fastembed_rt.server.tracing import Tracer

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with App(loaded.encoder, tracer=Tracer(provider)) as app:
        client = Client(app)
        trace, parent = "ab" * 16, "cd" * 8
        before = time.time_ns()
        assert client.post("/embed", {"inputs": TEXTS}, traceparent=f"00-{trace}-{parent}-01").status == 200
        after = time.time_ns()
        assert client.post("/embed", {"inputs": 3}, traceparent="nonsense").status == 422
        assert client.post("/the secret river", {}).status == 404
        client.close()
    *inside, span, wrong, lost = exporter.get_finished_spans()
    assert (span.name, span.kind.name) == ("POST /embed", "SERVER")
    assert f"{span.context.trace_id:032x}" == trace
    assert f"{span.parent.span_id:016x}" == parent
    told = {"http.request.method": "POST", "http.route": "/embed", "http.response.status_code": 200}
    told |= {"fastembed_rt.model": "encoder", "fastembed_rt.texts": 3}
    told["fastembed_rt.tokens"] = int(loaded.encoder.count_tokens(TEXTS).sum())
    assert {key: span.attributes[key] for key in told} == told
    assert [part.name for part in inside] == ["tokenize", "queue", "inference"]
    margin = 5_000_000  # nanoseconds between two clocks
    for part in inside:
        assert part.parent.span_id == span.context.span_id
        assert before - margin <= span.start_time <= part.start_time <= part.end_time <= span.end_time <= after + margin
    assert (wrong.parent, wrong.attributes["http.response.status_code"]) == (None, 422)
    assert (lost.name, lost.attributes["http.response.status_code"]) == ("POST", 404)
    said = json.dumps([json.loads(one.to_json()) for one in exporter.get_finished_spans()])
    assert "river" not in said
    assert "cat" not in said.replace("application", "")


def test_spans_are_sent_to_a_collector(directories: Any) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from http.server import BaseHTTPRequestHandler, HTTPServer

    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
    with Started(directories.models["encoder"], "--otlp-endpoint", endpoint, "--otlp-service-name", "mine") as started:
        assert started.ask("POST", "/embed", {"inputs": "the cat"})[0] == 200
    collector.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}
    content = b"".join(body for _, body in received)
    assert b"POST /embed" in content
    assert b"mine" in content


def test_opentelemetry_is_imported_where_it_is_asked_for_alone() -> None:
    import subprocess

    code = "import sys, fastembed_rt.server.app, fastembed_rt.cli.served; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
