"""`fastembed-rt serve` on loopback: started, asked, stopped; options and their environment variables."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import of_a_terminal

from fastembed_rt import native
from fastembed_rt.cli import build_parser, main

Start = Callable[..., tuple["subprocess.Popen[str]", int]]
TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, json.loads(content)


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[subprocess.Popen[str]] = []

    def run(*arguments: object, **env: str) -> tuple[subprocess.Popen[str], int]:
        port = free_port()
        command = [sys.executable, "-m", "fastembed_rt", "serve", *map(str, arguments)]
        with of_a_terminal():
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PORT": str(port), **env},
            )
        made.append(process)
        for _ in range(600):
            if process.poll() is not None:
                pytest.fail(f"it ended: {process.communicate()}")
            try:
                if ask(port, "GET", "/health")[0] == 200:
                    return process, port
            except OSError:
                time.sleep(0.1)
        pytest.fail("not ready after a minute")

    yield run
    for process in made:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_link_that_moves_on_and_a_reload_keep_the_name_and_say_what_runs(
    start: Start, directories: Any, tmp_path: Path, workers: str
) -> None:
    link, encoder = tmp_path / "current", directories.models["encoder"]
    first, second = shutil.copytree(encoder, tmp_path / "v1"), shutil.copytree(encoder, tmp_path / "v2")
    manifest = json.loads((second / "manifest.json").read_text())
    (second / "manifest.json").write_text(json.dumps({**manifest, "prompts": {"query": "query: "}}))
    link.symlink_to(first)
    process, port = start(link, "--workers", workers)
    assert process.stderr is not None
    body = {"input": "a", "model": "current"}
    assert ask(port, "POST", "/v1/embeddings", body)[0] == 200

    said = []
    for target in (first, second):
        link.unlink()
        link.symlink_to(target)
        process.send_signal(signal.SIGHUP)
        said.append(next(line for line in process.stderr if line.startswith("reloaded")))
        assert ask(port, "POST", "/v1/embeddings", body)[0] == 200
    assert re.search(r": current \S+ \(unchanged\)$", said[0])
    before, now = re.search(r": current (\S+) \(", said[0]), re.search(r": current (\S+) \(was (\S+)\)$", said[1])
    assert before and now
    assert (now[2], now[1] != now[2]) == (before[1], True)
    assert ask(port, "POST", "/v1/embeddings", {**body, "input_type": "query"})[0] == 200


def test_it_serves_until_it_is_told_to_stop_and_answers_what_runs(start: Start, directories: Any, loaded: Any) -> None:
    encoder, ranker = directories.models["encoder"], directories.models["ranker"]
    process, port = start(
        encoder, f"judge={ranker}", "--access-log", "1", "--alias", "small", API_KEY="first, another-key"
    )
    key = {"authorization": "Bearer another-key"}
    assert ask(port, "POST", "/embed", {"inputs": "a"})[0] == 401
    body = {"input": TEXTS, "model": "small", "encoding_format": "base64"}
    status, headers, answer = ask(port, "POST", "/v1/embeddings", body, **key)
    found = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]]
    np.testing.assert_array_equal(found, loaded.encoder.encode(TEXTS))
    assert (status, "server" in headers) == (200, False)
    ranked = ask(port, "POST", "/rerank", {"query": "a dog", "texts": TEXTS, "model": "judge"}, **key)[2]
    assert {entry["index"] for entry in ranked} == {0, 1}

    late: list[int] = []
    long = {"inputs": TEXTS * 2000}
    asking = threading.Thread(target=lambda: late.append(ask(port, "POST", "/embed", long, **key)[0]))
    asking.start()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    asking.join()
    assert (process.returncode, late) == (0, [200]), err
    said = err.splitlines()
    best = "native" if native.kernels() else "cpu"
    assert f"serves http://127.0.0.1:{port}" in said[0]
    assert said[1].startswith(f"  encoder: embedding, 40 tokens, {best}/fp32 on cpu")
    assert "also small" in said[1]
    assert said[2].startswith("  judge: reranking")
    assert "512 requests" in said[3]
    assert "2 keys" in said[3]
    logged = [json.loads(line) for line in out.splitlines()]
    assert [entry["status"] for entry in logged if entry["route"] == "/v1/embeddings"] == [200]
    assert "another-key" not in out + err


def test_what_text_embeddings_inference_calls_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MAX_CONCURRENT_REQUESTS": "7",
        "MAX_CLIENT_BATCH_SIZE": "8",
        "MAX_BATCH_TOKENS": "9000",
        "PAYLOAD_LIMIT": "10",
        "DTYPE": "float32",
        "AUTO_TRUNCATE": "false",
        "DEFAULT_PROMPT_NAME": "query",
        "CORS_ALLOW_ORIGIN": "https://example.org",
        "SERVED_MODEL_NAME": "other",
    }.items():
        monkeypatch.setenv(name, value)
    args = build_parser().parse_args(["serve", "model", "--payload-limit", "11"])
    assert (args.max_concurrent_requests, args.max_client_batch_size, args.max_batch_tokens) == (7, 8, 9000)
    assert (args.payload_limit, args.precision, args.auto_truncate) == (11, "fp32", False)
    assert (args.default_prompt_name, args.cors_allow_origin, args.alias) == ("query", "https://example.org", "other")


def test_a_variable_that_is_wrong_is_named_by_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_CLIENT_BATCH_SIZE", "many")
    assert main(["serve", "model"]) == 2
    assert "--max-client-batch-size" in capsys.readouterr().err


def test_nothing_to_serve_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve"]) == 2
    assert "no model to serve" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "missing")]) == 3
    assert main(["serve", "model", "--api-key-file", str(tmp_path / "missing")]) == 2


def test_default_prompts_are_those_of_the_options(directories: Any, loaded: Any) -> None:
    from fastembed_rt.server.loading import load

    source = str(directories.models["encoder"])
    for options, expected in (
        ({"default_prompt_name": "red"}, {"prompt_name": "red"}),
        ({"default_prompt": "the blue "}, {"prompt": "the blue "}),
    ):
        (served,) = load([source], **options).all  # type: ignore[arg-type]
        np.testing.assert_array_equal(served.model.encode(TEXTS), loaded.encoder.encode(TEXTS, **expected))
        assert (served.name, served.aliases) == ("encoder", ("encoder",))
        served.model.close()


def test_a_host_that_others_reach_without_a_key_is_warned_of(loaded: Any) -> None:
    from fastembed_rt.server.app import App
    from fastembed_rt.server.listening import Listening
    from fastembed_rt.server.running import start_lines

    warned = {
        (host, bool(keys)): any("warning" in line for line in start_lines(App(loaded.encoder, keys=keys), listening))
        for host in ("127.0.0.1", "0.0.0.0")
        for keys in ([], ["k"])
        for listening in [Listening(host=host)]
    }
    assert [case for case, said in warned.items() if said] == [("0.0.0.0", False)]


def test_a_checkpoint_is_exported_and_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cross_encoders import save_classifier

    from fastembed_rt.server.loading import load

    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "cache"))
    checkpoint = save_classifier(tmp_path / "my-reranker")
    (served,) = load([str(checkpoint)], threads=1).all
    assert (served.name, served.task) == ("my-reranker", "reranking")
    assert served.model.path.is_relative_to((tmp_path / "cache").resolve())
    served.close()
    served.model.close()
