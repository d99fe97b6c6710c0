"""The application in a process of its own: uvicorn with our settings, and what is said at the start."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..errors import MissingDependencyError
from .app import App
from .exchange import dumped
from .models import Served

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the server listens, and how long it waits for clients."""

    host: str = "127.0.0.1"
    port: int = 8080
    uds: str | None = None  # a Unix socket instead
    certificate: str | None = None  # files of TLS
    certificate_key: str | None = None
    root_path: str = ""  # that a proxy in front takes away
    keep_alive_seconds: int = 30  # of a connection without a request
    drain_seconds: int = 30  # for requests that run when the server is told to stop

    @property
    def address(self) -> str:
        """For people."""
        if self.uds is not None:
            return f"unix:{self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}"


def run(app: App, listening: Listening) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish those that run."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError(f"serve needs {error.name}; install fastembed-rt[server]") from error
    config = uvicorn.Config(
        app,
        host=listening.host,
        port=listening.port,
        uds=listening.uds,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.certificate_key,
        root_path=listening.root_path,
        timeout_keep_alive=listening.keep_alive_seconds,
        timeout_graceful_shutdown=listening.drain_seconds,
        access_log=False,
        log_level="warning",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
    )
    # uvicorn raises again what ended it, when it is done: that was no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run()


def start_lines(app: App, listening: Listening) -> list[str]:
    """What runs, where, and within which limits; and what is worth a warning."""
    limits = app.limits
    lines = [f"fastembed-rt {__version__} serves {listening.address} (page to try it: /docs)"]
    lines += [f"  {described(served)}" for served in app.models.all]
    lines.append(
        f"  limits: {limits.max_concurrent_requests} requests, {limits.max_queue_tokens} tokens in the queue, "
        f"{limits.max_client_batch_size} inputs and {limits.payload_limit} bytes a request, "
        f"{limits.request_seconds:g} s; {len(app.keys)} keys"
    )
    if listening.uds is None and listening.host not in LOOPBACK and not app.keys:
        lines.append(f"  warning: {listening.host} can be reached from elsewhere, and no --api-key is set")
    return lines


def described(served: Served) -> str:
    """A model in a line."""
    about = served.about()
    parts = [
        f"{served.name}: {served.task}",
        f"{about['max_input_length']} tokens",
        f"{about['target']}/{about['model_dtype']} on {about['provider']}, {about['threads']} threads",
        f"batches of {about['max_batch_tokens']} tokens",
    ]
    fingerprint = getattr(served.model, "fingerprint", None)
    if fingerprint is not None:
        parts.append(f"fingerprint {fingerprint()}")
    other = [alias for alias in served.aliases if alias != served.name]
    return ", ".join(parts) + (f"; also {', '.join(other)}" if other else "")


def json_lines(sample: float, write: Callable[[str], Any] = sys.stdout.write) -> Callable[[dict[str, Any]], None]:
    """An access log: a line of JSON for this share of the requests that went well, and for all others."""

    def log(told: dict[str, Any]) -> None:
        if told["status"] >= 400 or sample >= 1 or random.random() < sample:
            write(dumped(told).decode() + "\n")

    return log


def say(lines: Iterable[str]) -> None:
    """On stderr: stdout is for the access log."""
    print("\n".join(lines), file=sys.stderr, flush=True)
