"""A stand-in for servers that cannot be run here: it keeps what clients send, and answers as the servers' documentation
says. What it cannot tell is how a server itself would take it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, str, Any], Any]  # method, path, body: the answer, None for 404


@contextmanager
def standing_in(answer: Answer) -> Iterator[tuple[int, list[tuple[str, str, Any]]]]:
    """The port, and what was sent so far: (method, path, body), lines of JSON as a list."""
    sent: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            lines = "ndjson" in self.headers.get("Content-Type", "") or self.path.split("?")[0].endswith("_bulk")
            body = [json.loads(line) for line in content.splitlines()] if lines else json.loads(content or "null")
            path = self.path.split("?")[0]
            sent.append((self.command, path, body))
            found = answer(self.command, path, body)
            out = json.dumps({} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(out)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(out)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
