"""HTTP requests that ask for another protocol beside: they are answered in this one, which leaves the client as it was.

Java's own client (java.net.http, and what is made with it) asks for HTTP/2 in clear with its requests, `Upgrade: h2c`.
httptools takes a request for over at the end of such a head, and its body for that of the other protocol.
"""

from __future__ import annotations

from typing import Any, Protocol

import httptools

BODY = (b"content-length", b"transfer-encoding")  # which say where the body ends


class Reader(Protocol):
    """Who is told of a request's parts."""

    headers: list[tuple[bytes, bytes]]  # of the request that comes, names in lower case
    again: bool  # the head that comes is one that was told already


class Parser:
    """httptools' parser, to which no request asks for another protocol."""

    def __init__(self, reader: Reader, parser: Any) -> None:
        """`parser` tells the reader."""
        self._reader, self._parser = reader, parser

    def feed_data(self, data: bytes) -> None:
        """A part of a request, or several.

        Raises:
            httptools.HttpParserError: what is no HTTP.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            else:
                return
            self._reader.again = True
            try:
                self._parser.feed_data(self._head())
            finally:
                self._reader.again = False

    def _head(self) -> bytes:
        """As much of the head as the body needs."""
        lines = [b"POST / HTTP/" + self._parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self._reader.headers if name in BODY]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def asks_for_another(self) -> bool:
        """Whether httptools takes the request for over, and its body is still to come."""
        return bool(self._parser.should_upgrade())

    def should_upgrade(self) -> bool:
        """For uvicorn."""
        return False

    def should_keep_alive(self) -> bool:
        """Whether another request may come."""
        return bool(self._parser.should_keep_alive())

    def get_method(self) -> bytes:
        """Of the request."""
        method: bytes = self._parser.get_method()
        return method

    def get_http_version(self) -> str:
        """Such as 1.1."""
        version: str = self._parser.get_http_version()
        return version
