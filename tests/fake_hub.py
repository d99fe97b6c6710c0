"""A hub on 127.0.0.1: just enough of the Hugging Face hub's interface that huggingface_hub cannot tell.

Holds repositories as dictionaries of files and logs every request, so that a test can say what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import fake_hub_uploads as uploads

LARGE_FILES = (".safetensors", ".bin", ".onnx")  # kept in another store, reached through a redirect


class Request(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    token: str | None


@dataclass
class FakeRepository:
    """A repository: its commits, oldest first, and who may read it."""

    commits: dict[str, dict[str, bytes]]
    private_token: str | None = None  # the token that may read it, when it is private
    gated: bool = False
    main: str = ""  # commit
    branches: dict[str, str] = field(default_factory=dict)  # the others
    messages: dict[str, str] = field(default_factory=dict)  # of commits that were pushed

    @property
    def head(self) -> str:
        return self.main

    def at(self, revision: str) -> str | None:
        """The commit of a branch or of itself."""
        found = self.head if revision == "main" else self.branches.get(revision, revision)
        return found if found in self.commits else None


@dataclass
class FakeHub:
    """The server's state; `url` is for HF_ENDPOINT, `store` for the host of large files."""

    url: str = ""
    store: str = ""
    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    known_tokens: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    broken_paths: dict[str, int | tuple[int, str]] = field(default_factory=dict)  # path -> status, words
    objects: dict[str, bytes] = field(default_factory=dict)  # large files that were sent, by SHA-256

    def add(
        self,
        name: str,
        files: Mapping[str, str | bytes],
        *,
        private_token: str | None = None,
        gated: bool = False,
    ) -> str:
        """Commit `files` as the whole content of a repository; the commit's hash."""
        content = {file: data.encode() if isinstance(data, str) else data for file, data in sorted(files.items())}
        repository = self.repositories.setdefault(name, FakeRepository(commits={}))
        repository.private_token, repository.gated = private_token, gated
        if private_token is not None:
            self.known_tokens.add(private_token)
        seed = f"{name} {len(repository.commits)}".encode() + b"".join(content.values())
        commit = hashlib.sha1(seed).hexdigest()
        repository.commits[commit], repository.main = content, commit
        return commit

    def downloaded(self) -> list[str]:
        """Files whose contents were sent, in order, without those sent by reference to the large store."""
        return [
            unquote(request.path.split("/resolve/", 1)[1].split("/", 1)[1])
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path
        ] + [
            unquote(request.path.split("/", 4)[4])
            for request in self.requests
            if request.method == "GET" and request.path.startswith("/large/")
        ]

    def revisions_asked(self) -> set[str]:
        """Revisions that file requests named."""
        return {
            request.path.split("/resolve/", 1)[1].split("/", 1)[0]
            for request in self.requests
            if "/resolve/" in request.path
        }


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that serves until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (Handler,), {"hub": hub})
    with _serving(handler) as hub.url, _serving(handler) as hub.store:
        yield hub


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written one after the other

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep the tests' output quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        sent = token if scheme == "Bearer" else None
        self.hub.requests.append(Request(self.command, address.path, sent))
        path = unquote(address.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path in self.hub.broken_paths:
            broken = self.hub.broken_paths[path]
            if isinstance(broken, int):
                self.send(broken)
            else:
                self.fail(broken[0], None, broken[1])
        elif sent is not None and sent not in self.hub.known_tokens:
            self.fail(401, None, "Invalid credentials in Authorization header")
        elif self.command in ("POST", "PUT"):
            uploads.answer(self, path, body, sent)
        elif path.startswith("/large/"):
            _, _, organisation, commit, file = path.split("/", 4)
            name = next(name for name in self.hub.repositories if name.replace("/", "--") == organisation)
            self.send(200, self.hub.repositories[name].commits[commit][file])
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), sent, parse_qs(address.query))
        elif "/resolve/" in path:
            name, _, rest = path[1:].partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._resolve(name, revision, file, sent)
        else:
            self.send(404)

    def _api(self, path: str, token: str | None, query: dict[str, list[str]]) -> None:
        for word in ("/tree/", "/revision/"):
            if word in path:
                name, _, revision = path.partition(word)
                break
        else:
            name, word, revision = path, "/revision/", "main"
        found = self._commit(name, revision, token)
        if found is None:
            return
        commit, files = found
        if word == "/revision/":
            body: object = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
        elif query.get("recursive") != ["True"] and query.get("recursive") != ["true"]:
            body = [_tree_entry(file, data) for file, data in files.items() if "/" not in file]
        else:
            body = [_tree_entry(file, data) for file, data in files.items()]
        self.send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str, token: str | None) -> None:
        found = self._commit(name, revision, token, content=True)
        if found is None:
            return
        commit, files = found
        headers = {"X-Repo-Commit": commit}
        if file not in files:
            self.fail(404, "EntryNotFound", "Entry not found", headers)
            return
        data = files[file]
        if file.endswith(LARGE_FILES):
            large = f"/large/{name.replace('/', '--')}/{commit}/{file}"
            sha256 = f'"{hashlib.sha256(data).hexdigest()}"'
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": sha256, "ETag": '"pointer"'}
            self.send(302, headers={**headers, **linked, "Location": self.hub.store + large})
        else:
            self.send(200, data, {**headers, "ETag": f'"{_git_oid(data)}"'})

    def _commit(
        self, name: str, revision: str, token: str | None, *, content: bool = False
    ) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files, or None after having answered why not."""
        repository = self.hub.repositories.get(name)
        hidden = repository is not None and repository.private_token not in (None, token)
        if repository is None or hidden:
            # Without a token the hub does not tell a missing repository from a private one.
            self.fail(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif repository.gated and content:
            self.fail(401 if token is None else 403, "GatedRepo", f"Access to model {name} is restricted.")
        elif (commit := repository.at(revision)) is not None:
            return commit, repository.commits[commit]
        else:
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def fail(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        extra = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.send(status, json.dumps({"error": message}).encode(), extra)

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _tree_entry(file: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": file, "size": len(data), "oid": _git_oid(data)}
    if file.endswith(LARGE_FILES):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
