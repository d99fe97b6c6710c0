"""Limits, keys, origins, metrics, what is logged, and applications around ours."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, UnknownTokenError
from fastembed_rt.server.app import App
from fastembed_rt.server.cache import VectorCache
from fastembed_rt.server.errors import answer_to
from fastembed_rt.server.exchange import Exchange
from fastembed_rt.server.jobs import DeadlineError
from fastembed_rt.server.limits import Limits
from fastembed_rt.server.models import Served, named_models
from fastembed_rt.server.security import read_keys

Serve = Callable[..., Client]
SECRET = "the secret river"


def test_too_many_requests_are_told_when_to_come_again(serve: Serve) -> None:
    client = serve(limits=Limits(max_concurrent_requests=2))
    answers = client.together("/embed", [{"inputs": "a cat"}] * 5)
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.json["error_type"] == "Overloaded"
    assert "max_concurrent_requests" in refused.json["error"]
    assert int(refused.headers["retry-after"]) >= 1
    assert client.post("/embed", {"inputs": "a cat"}).status == 200


def test_a_full_queue_refuses_all_but_the_first(serve: Serve) -> None:
    client = serve(limits=Limits(max_queue_tokens=100))
    answers = client.together("/v1/embeddings", [{"input": ["a cat " * 60] * 200}] * 3)
    assert sorted(answer.status for answer in answers) == [200, 429, 429]
    assert "max_queue_tokens is 100" in answers[-1].json["error"]["message"]
    assert client.app.admission.tokens == client.app.admission.requests == 0


def test_inputs_and_bytes_have_limits_with_names(serve: Serve) -> None:
    client = serve(limits=Limits(max_client_batch_size=3, payload_limit=200))
    answer = client.post("/embed", {"inputs": ["a"] * 4})
    assert (answer.status, "max_client_batch_size is 3" in answer.json["error"]) == (422, True)
    answer = client.post("/embed", {"inputs": ["a" * 300]})
    assert (answer.status, "payload_limit, 200 bytes" in answer.json["error"]) == (413, True)
    answer = client.post("/embed", {"inputs": ["a" * 300]}, content_length="10")  # said less than it sends
    assert answer.status == 413


def test_a_request_that_takes_too_long_is_answered(serve: Serve) -> None:
    client = serve(limits=Limits(request_seconds=0.0))
    answer = client.post("/embed", {"inputs": ["the cat"] * 100})
    assert (answer.status, answer.json["error_type"]) == (504, "Timeout")


def test_a_client_that_goes_away_costs_nothing_more(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastembed_rt.server.exchange.WATCH_AFTER", 0.0)
    client = serve()
    model, texts = client.app.models.all[0].model, 4000
    body = json.dumps({"inputs": ["the old dog runs " * 9] * texts}).encode()
    before = model.stats.texts
    answer = client.loop.run_until_complete(client.request("POST", "/embed", body, {}, gone_after=0.01))
    assert answer.status == 0  # nothing was sent
    assert client.app.admission.tokens == client.app.admission.requests == 0
    assert client.post("/embed", {"inputs": "a"}).status == 200
    seen = -1
    while seen != model.stats.texts:  # what runs at that moment comes to its end
        seen = model.stats.texts
        time.sleep(0.2)
    assert seen - before < texts, "it goes on"


def test_a_key_opens_what_is_not_public(serve: Serve) -> None:
    client = serve(keys=["first", "second"])
    for path in ("/health", "/ping", "/livez", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path).status == 200
    wrong: list[Any] = [{}, {"authorization": "Bearer other"}, {"authorization": "first"}, {"x_api_key": "firs"}]
    for headers in wrong:
        answer = client.post("/embed", {"inputs": "a"}, **headers)
        assert (answer.status, answer.json["error_type"]) == (401, "Unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/embeddings", {"input": "a"}).json["error"]["type"] == "authentication_error"
    right: list[Any] = [{"authorization": "Bearer first"}, {"authorization": "bearer second"}, {"api_key": "second"}]
    for headers in right:
        assert client.post("/embed", {"inputs": "a"}, **headers).status == 200
    assert "security" in client.get("/openapi.json").json["paths"]["/embed"]["post"]


def test_keys_of_a_file(tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst\n\n second \n")
    assert read_keys(str(path)) == ["first", "second"]
    path.write_text("# none\n")
    with pytest.raises(InvalidInputError, match="holds none"):
        read_keys(str(path))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_keys(str(tmp_path / "missing"))


def test_browsers_may_ask_from_the_origins_that_are_named(serve: Serve) -> None:
    client = serve(cors=["https://example.org"], keys=["k"])
    preflight = {"origin": "https://example.org", "access_control_request_method": "POST"}
    answer = client.loop.run_until_complete(client.request("OPTIONS", "/embed", b"", preflight))
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "https://example.org")
    assert "authorization" in answer.headers["access-control-allow-headers"]
    allowed = client.post("/embed", {"inputs": "a"}, origin="https://example.org", x_api_key="k")
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    for other in (client, serve()):
        answer = other.post("/embed", {"inputs": "a"}, origin="https://elsewhere.org")
        assert "access-control-allow-origin" not in answer.headers
    anybody = serve(cors=["*"]).post("/embed", {"inputs": "a"}, origin="https://elsewhere.org")
    assert anybody.headers["access-control-allow-origin"] == "*"


def test_metrics_add_up(serve: Serve, loaded: Any) -> None:
    client = serve()
    client.post("/embed", {"inputs": ["the cat", "a dog"]})
    client.post("/embed", {"inputs": "the cat"})
    client.post("/rerank", {"query": "a", "texts": ["b", "c"]})
    client.post("/embed", {"inputs": 3})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    assert found['te_request_count{method="batch",model="encoder"}'] == 1
    assert found['te_request_success{method="single",model="encoder"}'] == 1
    assert found['te_embed_count{model="encoder"}'] == 2
    assert found['te_predict_success{model="ranker"}'] == 1
    assert found['te_request_failure{err="validation"}'] == 1
    assert found['te_request_duration_count{model="encoder"}'] == 2
    assert found['te_request_duration_bucket{model="encoder",le="+Inf"}'] == 2
    tokens = int(loaded.encoder.count_tokens(["the cat", "a dog", "the cat"]).sum())
    assert found['te_request_input_length_sum{model="encoder"}'] == tokens
    assert found["te_queue_size"] == found["fastembed_rt_queue_tokens"] == 0
    assert found["process_resident_memory_bytes"] > 1e6
    assert found['fastembed_rt_batch_tokens_total{model="encoder"}'] >= tokens
    names = re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", answer.body.decode(), re.MULTILINE)
    assert len(names) == len(set(names))


def test_no_text_path_or_stack_is_in_answers_and_logs(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, loaded: Any
) -> None:
    told: list[dict[str, Any]] = []
    client = serve(access_log=told.append)

    def broken(self: Any, rows: Any, left_out: Any, *, alone: bool) -> Any:
        raise RuntimeError(f"{SECRET} at /home/somebody")

    monkeypatch.setattr(type(loaded.encoder._running()), "run_batch", broken)
    with caplog.at_level(logging.DEBUG):
        answers = [
            client.post("/embed", {"inputs": SECRET}, traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01"),
            client.post("/embed", {"inputs": [SECRET, 3]}),
            client.post(f"/{SECRET}", {}),
            client.post("/embed", raw=SECRET.encode()),
        ]
    assert [answer.status for answer in answers] == [500, 422, 404, 400]
    said = json.dumps([answer.body.decode() for answer in answers]) + caplog.text + json.dumps(told)
    assert SECRET not in said
    assert "/home/" not in said
    assert str(loaded.encoder.path) not in said
    assert answers[0].headers["x-request-id"] in caplog.text
    assert "RuntimeError at" in caplog.text
    assert [(entry["route"], entry["status"], entry["texts"]) for entry in told[:2]] == [
        ("/embed", 500, 1),
        ("/embed", 422, 0),
    ]
    assert told[0]["trace_id"] == "ab" * 16


def test_a_token_that_the_model_does_not_know_is_not_repeated() -> None:
    problem = answer_to(UnknownTokenError(f"text 0 has the token '{SECRET}' (id 351)"), 1.0)
    assert problem is not None
    assert (problem.status, SECRET in problem.message) == (422, False)


def test_readiness_comes_after_the_warm_up(loaded: Any) -> None:
    app = App(loaded.encoder)
    client = Client(app)
    assert client.get("/livez").status == 200
    with app:
        assert client.get("/health").status == client.get("/").status == 200
        assert app.names == ["encoder"]
    assert client.get("/health").status == 503
    assert client.get("/health").json["error_type"] == "Unhealthy"
    client.close()


def test_a_mounted_application_warms_up_when_it_is_asked_for_its_health(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frameworks tell what is mounted neither of the start nor of the end: a probe would see 503 for ever."""
    warmed: list[str] = []
    warm_up = Served.warm_up

    async def counted(served: Served) -> None:
        warmed.append(served.name)
        await warm_up(served)

    monkeypatch.setattr(Served, "warm_up", counted)
    app = App({"one": loaded.encoder, "two": loaded.encoder})
    client = Client(app, root_path="/vectors")
    assert [client.get("/health").status for _ in range(3)] == [200] * 3
    assert warmed == ["one", "two"]
    app.close()
    assert client.get("/health").status == 503
    client.close()


def test_below_a_path_of_another_application(loaded: Any) -> None:
    with App(loaded.encoder) as app:
        client = Client(app, root_path="/vectors")
        found = client.post("/embed", {"inputs": "the cat"})
        np.testing.assert_array_equal(float32(found.json[0]), loaded.encoder.encode("the cat"))
        assert client.get("/openapi.json").json["servers"] == [{"url": "/vectors"}]
        assert Client(app).get("/openapi.json").json["servers"] == [{"url": "/"}]
        client.close()


def test_a_server_is_told_when_it_starts_and_stops(loaded: Any) -> None:
    async def lifespan() -> list[str]:
        app, said = App(loaded.encoder), []
        messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()

        async def send(message: dict[str, str]) -> None:
            said.append(message["type"])

        for kind in ("lifespan.startup", "lifespan.shutdown"):
            messages.put_nowait({"type": kind})
        await app({"type": "lifespan"}, messages.get, send)
        return said

    assert asyncio.run(lifespan()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_every_route_is_in_the_openapi_file_and_its_examples_check(client: Client) -> None:
    described = client.get("/openapi.json").json
    assert described["openapi"] == "3.1.0"
    routes = {(route.path.replace("{}", "{name}"), route.method.lower()) for route in client.app.table.routes}
    assert {(path, method) for path, methods in described["paths"].items() for method in methods} == routes
    operations = [entry["operationId"] for methods in described["paths"].values() for entry in methods.values()]
    assert len(set(operations)) == len(operations)
    text = json.dumps(described)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in described["components"]["schemas"]
    embed = described["components"]["schemas"]["EmbedRequest"]
    assert embed["required"] == ["inputs"]
    assert embed["properties"]["truncate"]["type"] == ["boolean", "null"]


def test_the_page_has_a_body_to_try_for_every_route_that_takes_one(client: Client) -> None:
    page = client.get("/docs").body.decode()
    (examples,) = re.findall(r"const EXAMPLES = \{(.*?)\n\};", page, flags=re.DOTALL)
    routes = [route for route in client.app.table.routes if route.method == "POST" and route.path != "/admin/reload"]
    assert {route.path.replace("{}", "{name}") for route in routes} == set(re.findall(r'"(/[^"]*)":', examples))


def test_the_page_needs_nothing_from_elsewhere(client: Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert b"http://" not in answer.body
    assert b"https://" not in answer.body


def scope(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": [], "root_path": ""}


class Later:
    """An awaitable that is no coroutine, as servers have that are written in other languages."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self.value


@pytest.mark.parametrize("kind", ["awaitable", "task", "future"])
def test_receive_may_give_any_awaitable(serve: Serve, kind: str) -> None:
    client = serve()
    messages = [
        {"type": "http.request", "body": b'{"inputs":', "more_body": True},
        {"type": "http.request", "body": b'"a cat"}'},
    ]
    sent: list[Any] = []

    def receive() -> Any:
        message = messages.pop(0)
        if kind == "awaitable":
            return Later(message)
        if kind == "task":
            return asyncio.ensure_future(asyncio.sleep(0, message))
        future = asyncio.get_running_loop().create_future()
        future.set_result(message)
        return future

    async def send(message: Any) -> None:
        sent.append(message)

    client.loop.run_until_complete(client.app(scope("/embed"), receive, send))
    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"]) == client.post("/embed", {"inputs": "a cat"}).json


def test_a_request_that_is_cancelled_is_no_success(serve: Serve) -> None:
    client = serve(limits=Limits(body_seconds=0.2))

    async def receive() -> Any:
        await asyncio.sleep(10)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def scenario(body: Any, seconds: float) -> None:
        bodies = [body]

        async def receive_once() -> Any:
            return bodies.pop() if bodies and body else await receive()

        task = asyncio.ensure_future(client.app(scope("/embed"), receive_once, send))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    many = json.dumps({"inputs": ["the cat runs " * 60] * 2000}).encode()
    client.loop.run_until_complete(scenario({"type": "http.request", "body": many}, 0.01))
    meters = client.app.models.all[0].meters
    assert (meters.batch_success, sum(meters.duration.counts)) == (0, 0)
    client.loop.run_until_complete(scenario(None, 0.05))  # while its body is waited for
    client.app.metrics.text(client.app)
    assert 'te_request_failure{err="gone"' in client.get("/metrics").body.decode()


def test_many_bodies_in_one_have_the_limits_of_one(serve: Serve) -> None:
    client = serve(limits=Limits(max_client_batch_size=4, request_seconds=0.5), cache=VectorCache(10**6))
    instances = [{"inputs": "a cat"}] * 4
    assert len(client.post("/vertex", {"instances": instances}).json["predictions"]) == 4
    for too_many in ([{"inputs": "a cat"}] * 5, [{"inputs": ["a", "b", "c"]}, {"inputs": ["a", "b"]}], ["a"] * 5):
        refused = client.post("/vertex", {"instances": too_many})
        assert (refused.status, refused.json["error_type"]) == (422, "Validation")
        assert "max_client_batch_size is 4" in refused.json["error"]
    began = client.app.limits.request_seconds
    exchange = Exchange(client.app, scope("/vertex"), None, None)  # type: ignore[arg-type]
    exchange.check_time()
    exchange.began -= 2 * began
    with pytest.raises(DeadlineError):
        exchange.check_time()


def test_after_its_end_an_application_answers_503_and_begins_nothing(serve: Serve) -> None:
    client = serve()
    many = json.dumps({"inputs": ["the cat runs " * 12] * 3000}).encode()

    async def scenario() -> list[Any]:
        waiting = [asyncio.ensure_future(client.request("POST", "/embed", many, {})) for _ in range(3)]
        await asyncio.sleep(0.02)
        client.app.close()
        return await asyncio.gather(*waiting)

    answers = [*client.loop.run_until_complete(scenario()), client.post("/embed", {"inputs": "a cat"})]
    assert {(answer.status, answer.json["error_type"]) for answer in answers} == {(503, "Unhealthy")}
    assert client.app.admission.tokens == client.app.admission.requests == 0
    assert not any(served._gatherers for served in client.app.models.all)


@pytest.mark.parametrize("place", ["load", "warm_up"])
def test_a_reload_that_is_cancelled_leaves_no_model_open(directories: Any, place: str, monkeypatch: Any) -> None:
    made: list[EmbeddingModel] = []
    loading, go_on = threading.Event(), threading.Event()

    def load() -> Any:
        if made and place == "load":
            loading.set()
            assert go_on.wait(10)
        made.append(EmbeddingModel(directories.models["encoder"], threads=1))
        return named_models(made[-1], token_ids=False)

    async def slowly(served: Served) -> None:
        loading.set()
        await asyncio.sleep(10)

    async def scenario() -> None:
        app = App(load(), load=load)
        if place == "warm_up":
            monkeypatch.setattr(Served, "warm_up", slowly)
        task = asyncio.ensure_future(app.reload())
        while not loading.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        for _ in range(2000):
            if len(made) == 2 and made[1]._closed:
                break
            await asyncio.sleep(0.005)
        assert [model._closed for model in made] == [False, True]
        app.close()
        made[0].close()

    asyncio.run(scenario())


def test_several_threads_share_a_cache() -> None:
    cache = VectorCache(40 * (320 + 16))
    vectors = np.zeros((8, 4), np.float32)

    def work(number: int) -> None:
        for turn in range(400):
            keys = cache.keys("m", [str((number * 7 + turn + k) % 60) for k in range(8)])
            cache.find(keys)
            cache.put(keys, vectors, [1] * 8)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert cache.bytes == len(cache) * (320 + 16) <= cache.most_bytes
    assert cache.hits + cache.misses == 4 * 400 * 8
