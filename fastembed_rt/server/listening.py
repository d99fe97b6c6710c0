"""Where the server listens, how long it waits for clients, and how many processes it is."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InvalidInputError
from . import sockets

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Options of what is not the application's."""

    host: str = "127.0.0.1"
    port: int = 8080
    uds: str | None = None  # a Unix socket instead
    certificate: str | None = None  # files of TLS
    certificate_key: str | None = None
    root_path: str = ""  # that a proxy in front takes away
    keep_alive_seconds: int = 30  # of a connection without a request
    head_seconds: float = 10.0  # for a request's header lines
    max_connections: int = 4096  # at a time in each process; those beyond it wait
    drain_seconds: int = 30  # for requests that run when the server is told to stop
    workers: int = 1

    def __post_init__(self) -> None:
        """Raise InvalidInputError for a port that no system has: some would take its last 16 bits for another."""
        if not 0 <= self.port <= MOST_PORT:
            raise InvalidInputError(
                f"port {self.port} is not possible; expected 0 to {MOST_PORT}, 0 for any that is free"
            )

    @property
    def address(self) -> str:
        """For people."""
        if self.uds is not None:
            return f"unix:{self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}"

    def open(self) -> tuple[list[socket.socket], Listening]:
        """Sockets that listen, and this with their port, which the system chooses where 0 is asked for.

        Raises:
            InvalidInputError: that cannot be, or the files of TLS are not what they should be.
        """
        self.check_certificate()
        found = self.bind()
        return found, self if self.uds is not None else replace(self, port=found[0].getsockname()[1])

    def check_certificate(self) -> None:
        """Raise InvalidInputError for a certificate or a key that cannot be used, before a model is loaded."""
        if self.certificate is None:
            if self.certificate_key is not None:
                raise InvalidInputError("--ssl-keyfile is the key of a certificate; give --ssl-certfile too")
            return
        for option, path in (("--ssl-certfile", self.certificate), ("--ssl-keyfile", self.certificate_key)):
            if path is not None:
                try:
                    Path(path).read_bytes()
                except OSError as error:
                    raise InvalidInputError(f"{option} {path} cannot be read: {error.strerror}") from None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.certificate_key)
        except ssl.SSLError as error:
            files = " and ".join(path for path in (self.certificate, self.certificate_key) if path is not None)
            raise InvalidInputError(
                f"{files}: no certificate in PEM with its private key ({error.reason or error}); "
                "give --ssl-certfile, and --ssl-keyfile where the key has a file of its own"
            ) from None

    def bind(self) -> list[socket.socket]:
        """Sockets that listen.

        Raises:
            InvalidInputError: that cannot be.
        """
        return sockets.bind(self.host, self.port) if self.uds is None else [sockets.bind_unix(self.uds)]
