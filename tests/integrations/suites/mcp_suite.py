"""The MCP server by the protocol's own client: in process, over stdio and HTTP, by both handshakes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from conftest import Case, close
from mcp import Client, StdioServerParameters

from fastembed_rt import EmbeddingModel, Reranker
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.integrations.mcp.folder import Folder, Found
from fastembed_rt.integrations.mcp.server import make_server, serve

COMMAND = [sys.executable, "-m", "fastembed_rt", "mcp"]


@pytest.fixture
def notes(case: Case, tmp_path: Path) -> Path:
    """A folder with a file for each text, some lines down, and what is not to be found."""
    folder = tmp_path / "notes"
    (folder / "deeper").mkdir(parents=True)
    for k, text in enumerate(case.texts):
        place = folder / "deeper" if k % 2 else folder
        (place / f"note{k}.md").write_text("\n" * k + text + "\n", encoding="utf-8")
    (folder / ".hidden.md").write_text(case.query, encoding="utf-8")
    (folder / "picture.md").write_bytes(b"\xff\xd8\xff\xe0")
    outside = tmp_path / "outside.md"
    outside.write_text(case.query, encoding="utf-8")
    (folder / "link.md").symlink_to(outside)
    return folder


@asynccontextmanager
async def over(way: str, case: Case, notes: Path, **options: Any) -> AsyncIterator[Client]:
    arguments = [case.dense, "--reranker", case.reranker, "--folder", str(notes), "--threads", "1"]
    if way == "in process":
        ranker = Reranker(case.reranker)
        server: Any = make_server(case.model, reranker=ranker, folder=Folder(notes, case.model, ranker))
        async with Client(server, **options) as client:
            yield client
    elif way == "stdio":
        environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "HOME") if key in os.environ}
        started = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *arguments], env=environment)
        async with Client(started, **options) as client:
            yield client
    else:
        with http(arguments) as (url, _):
            async with Client(url, **options) as client:
                yield client


class http:  # noqa: N801 - a context manager
    def __init__(self, arguments: list[str], host: str = "127.0.0.1") -> None:
        self.host = host
        with socket.socket() as free:
            free.bind((host, 0))
            self.port = free.getsockname()[1]
        command = [*COMMAND, *arguments, "--transport", "http", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> tuple[str, subprocess.Popen[str]]:
        for _ in range(600):
            assert self.process.poll() is None, self.process.communicate()
            with socket.socket() as trying:
                if trying.connect_ex((self.host, self.port)) == 0:
                    return f"http://{self.host}:{self.port}/mcp", self.process
            time.sleep(0.1)
        raise AssertionError("it does not listen")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


async def call(client: Client, name: str, **arguments: Any) -> Any:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refused(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error
    return str(result.content[0].text)


async def test_without_a_role_texts_have_the_default_prompt(case: Case) -> None:
    model = EmbeddingModel(case.dense, default_prompt_name="query")
    wanted = case.model.encode_query(case.texts)
    async with Client(make_server(model)) as client:
        close((await call(client, "embed", texts=case.texts))["vectors"], wanted)
        found = await call(client, "similarity", left=case.texts)
        np.testing.assert_allclose(found["scores"], model.similarity(wanted, wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("way", "mode"), [("in process", "auto"), ("stdio", "auto"), ("stdio", "legacy"), ("http", "auto")]
)
async def test_the_tools(case: Case, notes: Path, way: str, mode: str) -> None:
    async with over(way, case, notes, **({} if way == "in process" else {"mode": mode})) as client:
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == ["embed", "similarity", "rerank", "search"]
        assert all(tool.annotations.read_only_hint and tool.output_schema and tool.description for tool in listed)

        plain = await call(client, "embed", texts=case.texts)
        close(plain["vectors"], case.model.encode(case.texts))
        assert plain["dim"] == case.model.dim
        close((await call(client, "embed", texts=case.texts, role="document"))["vectors"], case.documents)
        close((await call(client, "embed", texts=[case.query], role="query"))["vectors"][0], case.queried)
        short = await call(client, "embed", texts=case.texts, truncate_dim=8)
        close(short["vectors"], case.model.encode(case.texts, truncate_dim=8))

        vectors = case.model.encode(case.texts)
        found = await call(client, "similarity", left=case.texts[:2], right=case.texts)
        np.testing.assert_allclose(found["scores"], case.model.similarity(vectors[:2], vectors), rtol=0, atol=1e-5)
        assert found["function"] == case.model.manifest.similarity
        among = await call(client, "similarity", left=case.texts)
        np.testing.assert_allclose(among["scores"], case.model.similarity(vectors, vectors), rtol=0, atol=1e-5)

        ranked = await call(client, "rerank", query=case.query, documents=case.texts, top_k=3)
        assert [row["index"] for row in ranked["documents"]] == case.order[:3]
        assert [row["text"] for row in ranked["documents"]] == [case.texts[k] for k in case.order[:3]]
        close([row["score"] for row in ranked["documents"]], case.scores[case.order[:3]])
        assert ranked["scored_by"] == "reranker"

        hits = await call(client, "search", query=case.query, top_k=3)
        assert hits["scored_by"] == "reranker" and hits["files"] == 8 and hits["left_out"] == 1
        assert [hit["text"] for hit in hits["hits"]] == [case.texts[k] for k in case.order[:3]]
        first, place = hits["hits"][0], case.order[0]
        assert first["path"] == ("deeper/" if place % 2 else "") + f"note{place}.md"
        assert first["first_line"] == first["last_line"] == place + 1


async def test_without_a_reranker_and_a_folder(case: Case) -> None:
    async with Client(make_server(case.model)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["embed", "similarity", "rerank"]
        ranked = await call(client, "rerank", query=case.query, documents=case.texts)
        scores = case.model.similarity(case.documents, case.queried[None])[:, 0]
        assert [row["index"] for row in ranked["documents"]] == np.argsort(-scores, kind="stable").tolist()
        assert ranked["scored_by"] == "vectors"


async def test_inputs_are_bounded(case: Case, notes: Path) -> None:
    async with over("in process", case, notes) as client:
        assert "256" in await refused(client, "embed", texts=["a"] * 257)
        assert "at least 1" in await refused(client, "embed", texts=[])
        assert "100000" in await refused(client, "embed", texts=["a" * 100_001])
        assert "1000000" in await refused(client, "similarity", left=["a" * 90_000] * 12)
        assert "100" in await refused(client, "rerank", query="a", documents=["a"], top_k=101)
        assert "truncate_dim" in await refused(client, "embed", texts=["a"], truncate_dim=5000)
        assert "role" in await refused(client, "embed", texts=["a"], role="passage")
        assert "unicode" in await refused(client, "embed", texts=["\ud800"])
        await call(client, "embed", texts=["a"] * 256)
        schema = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        assert schema["embed"]["properties"]["texts"]["maxItems"] == 256
        assert set(schema["search"]["properties"]) == {"query", "top_k"}  # no tool takes a path


def test_a_folder_is_brought_up_to_date(case: Case, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    encode = type(case.model).encode

    def counted(self: Any, inputs: Any, **options: Any) -> Any:
        counts.append(1 if isinstance(inputs, str) else len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(type(case.model), "encode", counted)
    folder = Folder(notes, case.model)
    scores = case.model.similarity(case.documents, case.queried[None])[:, 0]
    best = int(np.argmax(scores))
    counts.clear()
    for _ in range(2):
        assert folder.search(case.query, 1).hits[0].text == case.texts[best]
    assert counts == [8, 1, 1]  # the files are encoded once
    counts.clear()
    (notes / "new.txt").write_text(case.query, encoding="utf-8")
    found = folder.search(case.query, 1)
    assert (found.hits[0].path, found.files, counts) == ("new.txt", 9, [1, 1])
    (notes / "new.txt").write_text("the house is red", encoding="utf-8")
    assert folder.search(case.query, 1).hits[0].text == case.texts[best]
    (notes / "new.txt").unlink()
    assert folder.search(case.query, 1).files == 8
    with pytest.raises(InvalidInputError, match="no folder"):
        Folder(notes / "nowhere", case.model)
    (empty := notes / "empty").mkdir()
    assert Folder(empty, case.model).search("a", 3) == Found(hits=[], files=0, left_out=0, scored_by="vectors")


def test_a_folder_has_bounds(case: Case, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastembed_rt.integrations.mcp.folder.MOST_FILES", 3)
    found = Folder(notes, case.model).search("a", 1)
    assert (found.files, found.left_out) == (3, 6)
    monkeypatch.setattr("fastembed_rt.integrations.mcp.folder.MOST_FILES", 100)
    monkeypatch.setattr("fastembed_rt.integrations.mcp.folder.MOST_BYTES", 20)
    small = [file for file in notes.rglob("note*.md") if file.stat().st_size <= 20]
    assert Folder(notes, case.model).search("a", 1).files == len(small) < 8


async def test_http_is_for_this_machine(case: Case) -> None:
    with pytest.raises(InvalidInputError, match="ask for no key"):
        serve(make_server(case.model), transport="http", host="0.0.0.0")
    done = subprocess.run(
        [*COMMAND, case.dense, "--transport", "http", "--host", "0.0.0.0"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "127.0.0.1" in done.stderr
    with http([case.dense]) as (url, _):
        async with httpx2.AsyncClient() as client:
            headers = {"Accept": "application/json", "Content-Type": "application/json"}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            stranger = await client.post(url, json=body, headers={**headers, "Host": "example.org"})
            assert stranger.status_code == 421  # a page of another site, by a name that it lets point here
            page = await client.post(url, json=body, headers={**headers, "Origin": "https://example.org"})
            assert page.status_code == 403
            large = await client.post(url, content=b" " * 5_000_000, headers=headers)
            assert large.status_code == 413


def test_wrong_models_are_named(case: Case) -> None:
    for arguments, said in (
        ([case.reranker], "a model for reranking"),
        ([case.dense, "--reranker", case.dense], "a model for embedding"),
        ([case.dense, "--folder", "/nowhere"], "no folder"),
        (["/nowhere"], "/nowhere"),
    ):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, input="")
        assert done.returncode in (2, 3) and said in done.stderr, done.stderr
        assert done.stdout == ""


def test_the_server_ends_with_its_client(case: Case) -> None:
    done = subprocess.run([*COMMAND, case.dense], capture_output=True, text=True, check=False, input="", timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_what_was_asked_before_the_end_is_answered(case: Case) -> None:
    """As `printf ... | fastembed-rt mcp` asks. What was cancelled is not waited for."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "lines", "version": "1"}}
    lines = [json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode() + b"\n"]
    lines += [embedding(" the red dog" * 2000).replace(b"7", b"%d" % (k % 6 + 2)) for k in range(8)]  # ids come twice
    cancelled = {"method": "notifications/cancelled", "params": {"requestId": 2}}
    lines += [json.dumps({"jsonrpc": "2.0", **cancelled}).encode() + b"\n", b'{"jsonrpc":"2.0","id":9,"method":"ping"}']
    done = subprocess.run([*COMMAND, case.dense], capture_output=True, check=False, input=b"".join(lines), timeout=120)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert all("result" in answer for answer in answers), answers
    numbers = [answer["id"] for answer in answers]
    assert all(numbers.count(k) == (2 if k == 3 else 1) for k in (1, 3, 4, 5, 6, 7, 9)), numbers


class Lines:
    """The command over stdio, asked by the line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def ask(self, line: bytes | dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, f"no answer to {line!r}"
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> tuple[int, str]:
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error.decode()

    def __enter__(self) -> Lines:
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "lines", "version": "1"}}
        assert "result" in self.ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def embedding(text: str) -> bytes:
    asked = {"name": "embed", "arguments": {"texts": ["TEXT"]}}
    line = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": asked})
    return line.replace("TEXT", text).encode("latin-1") + b"\n"


def test_every_line_has_an_answer(case: Case) -> None:
    """Also one that is no message; with its id, where one can be read."""
    with Lines(case.dense) as server:
        for line, number, code in (
            (b"hello\n", None, -32700),
            (b'{"jsonrpc":"2.0","id":7,\n', None, -32700),
            (b"[" * 100_000 + b"\n", None, -32700),
            (embedding("\\ud800"), 7, -32700),  # half a surrogate pair, which json reads
            (embedding("gr\xf6\xdfe"), 7, -32700),  # no UTF-8: never a vector of other letters
            (b'{"a":1}\n', None, -32600),
            (b'[{"jsonrpc":"2.0","id":7,"method":"ping"}]\n', None, -32600),
            (b'{"jsonrpc":"2.0","id":"seven","method":"ping","params":[1]}\n', "seven", -32600),
            (b'{"jsonrpc":"2.0","id":7,"method":"no/such"}\n', 7, -32601),
        ):
            answer = server.ask(line)
            assert (answer["id"], answer["error"]["code"]) == (number, code), (line, answer)
            assert "\n" not in answer["error"]["message"]
        assert server.ask(b'\n  \r\n{"jsonrpc":"2.0","id":8,"method":"ping"}\r\n')["id"] == 8
        vectors = server.ask(embedding("größe".encode().decode("latin-1")))["result"]["structuredContent"]["vectors"]
        close(vectors[0], case.model.encode("größe"))


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_server_while_the_client_says_nothing(case: Case, name: str, code: int) -> None:
    with Lines(case.dense) as server:
        server.process.send_signal(getattr(signal, name))
        server.process.wait(30)
        returned, error = server.end()
        assert (returned, error.count("\n")) == (code, 1), error


def test_a_client_that_reads_no_more_ends_the_server(case: Case) -> None:
    with Lines(case.dense) as server:
        assert server.process.stdin is not None and server.process.stdout is not None
        server.process.stdout.close()
        server.process.stdin.write(b'{"jsonrpc":"2.0","id":7,"method":"ping"}\n')
        server.process.stdin.flush()
        assert server.process.wait(60) == 141


@pytest.mark.parametrize(("closed", "name"), [("<&-", "input"), (">&-", "output")])
def test_a_standard_stream_that_is_closed_is_said_at_once(case: Case, closed: str, name: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, case.dense], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and f"standard {name} is closed" in done.stderr


def test_a_port_that_is_taken_is_said_before_a_model_loads(case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = ["--transport", "http", "--port", str(taken.getsockname()[1])]
        done = subprocess.run([*COMMAND, "/nowhere", *where], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "cannot listen on 127.0.0.1" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give a machine 127.0.0.1 alone")
async def test_every_address_of_this_machine_refuses_strangers(case: Case) -> None:
    with http([case.dense, "--host", "127.0.0.2"], "127.0.0.2") as (url, _):
        async with httpx2.AsyncClient() as client:
            headers = {"Accept": "application/json", "Content-Type": "application/json"}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            stranger = await client.post(url, json=body, headers={**headers, "Host": "example.org"})
            assert stranger.status_code == 421
        async with Client(url) as client:
            assert (await client.list_tools()).tools
