"""The application in a process of its own: uvicorn with our settings, and what is said at the start."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterable, Sequence

from .. import __version__
from .app import App
from .listening import LOOPBACK, Listening
from .models import Served


def run(app: App, listening: Listening, sockets: Sequence[socket.socket]) -> None:
    """Say what runs, answer requests until SIGTERM or SIGINT, then finish those that run."""
    from .serving import Server, serve

    server = Server(app, listening, sockets)
    server.stderr.say(start_lines(app, listening))
    serve(server)


def start_lines(app: App, listening: Listening) -> list[str]:
    """What runs, where, and within which limits; and what is worth a warning."""
    limits = app.limits
    each = "" if listening.workers == 1 else f" of each of {listening.workers} workers"
    lines = [f"fastembed-rt {__version__} serves {listening.address} (page to try it: /docs)"]
    lines += [f"  {described(served)}" for served in app.models.all]
    lines.append(
        f"  limits{each}: {limits.max_concurrent_requests} requests, {limits.max_queue_tokens} tokens in the queue, "
        f"{limits.max_client_batch_size} inputs and {limits.payload_limit} bytes a request, "
        f"{limits.request_seconds:g} s; {len(app.keys)} keys"
    )
    if listening.uds is None and listening.host not in LOOPBACK and not app.keys:
        lines.append(f"  warning: {listening.host} can be reached from elsewhere, and no --api-key is set")
    return lines


def described(served: Served) -> str:
    """A model in a line."""
    about = served.about()
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}"
    parts = [
        f"{served.name}: {served.task}",
        f"{about['max_input_length']} tokens",
        f"{about['target']}/{about['model_dtype']} on {about['provider']}, {threads}",
        f"batches of {about['max_batch_tokens']} tokens",
    ]
    fingerprint = getattr(served.model, "fingerprint", None)
    if fingerprint is not None:
        parts.append(f"fingerprint {fingerprint()}")
    other = [alias for alias in served.aliases if alias != served.name]
    return ", ".join(parts) + (f"; also {', '.join(other)}" if other else "")


def say(lines: Iterable[str]) -> None:
    """On stderr: stdout is for the access log. What cannot be written there is left unsaid, and nothing ends for it."""
    if sys.stderr is None:  # it was closed at the start, and print would take stdout
        return
    with contextlib.suppress(OSError, ValueError):  # no room, nobody who reads; closed since
        print("\n".join(lines), file=sys.stderr, flush=True)
