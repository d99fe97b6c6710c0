"""The application under uvicorn: sockets, the end without a lost request, and reloads by signal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvicorn

from ..text.library import THREADS as LIBRARY_THREADS
from . import hangups
from .accepting import Acceptor
from .app import App
from .connections import Connection, Patience
from .deadlines import Deadlines
from .lines import Handler, StandardError
from .listening import Listening
from .reloading import outcome
from .running import say
from .sockets import Board
from .worker import Channel

logger = logging.getLogger("fastembed_rt.server")
IDLE_SECONDS = 0.5  # at the end, for requests that are on their way over connections that are open
FAILED = 3  # exit code where the application does not start, as uvicorn has it
SPARE_FILES = 64  # descriptors that are not for connections


class Server(uvicorn.Server):  # type: ignore[misc]
    """One process that answers."""

    def __init__(
        self,
        app: App,
        listening: Listening,
        sockets: Sequence[socket.socket],
        *,
        board: Board | None = None,
        slot: int = 0,
        channel: Channel | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`board`, `slot` and `channel` are of a worker among others; `patience` is with single clients."""
        self._acceptor: Acceptor | None = None
        self.stderr = StandardError()
        config = uvicorn.Config(
            app,
            log_config=_log_config(self.stderr),
            http=functools.partial(Connection, patience=patience or Patience(head_seconds=listening.head_seconds)),
            ws="none",
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
        super().__init__(config)
        self.app, self._listening, self._sockets = app, listening, sockets
        self._board, self._slot, self._channel = board, slot, channel
        self._reloads: set[asyncio.Task[None]] = set()
        self._ended = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Warm up, then accept; and end at once where a signal has come meanwhile."""
        await super().startup(sockets=[])
        if not self.started:  # a model does not answer; old uvicorns leave it to their own `run` to exit with an error
            sys.exit(FAILED)
        # What is here now stays: the collector need not look through it, again and again, for circles in requests.
        gc.collect()
        gc.freeze()
        config = self.config
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)

        def protocol() -> Any:
            return config.http_protocol_class(
                config=config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                acceptor=self._acceptor,
                deadlines=deadlines,
            )

        self._acceptor = Acceptor(
            self._sockets,
            protocol,
            most=most_connections(self._listening.max_connections),
            tls=config.ssl,
            board=self._board,
            slot=self._slot,
        )
        self.servers = [self._acceptor]
        if self._channel is not None:
            await self._channel.open(self)
        else:
            hangups.listen(loop, self._reload)
        if self.should_exit:  # what waits is answered; old uvicorns would leave it
            await self.shutdown()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer all that has come, then end, within the seconds for it."""
        if self._ended:
            return
        self._ended = True
        began = time.monotonic()
        self.app.drain()  # each answer now closes its connection
        assert self._acceptor is not None
        self._acceptor.drain()
        # A connection that is idle may have a request on its way: closing it at once would lose that.
        grace = min(IDLE_SECONDS, self._listening.drain_seconds)
        while self._acceptor.connections and time.monotonic() - began < grace and not self.force_exit:
            await asyncio.sleep(0.02)
        left = self._listening.drain_seconds - (time.monotonic() - began)
        self.config.timeout_graceful_shutdown = max(left, 0.1)
        await super().shutdown(sockets)
        if self.force_exit:  # which uvicorn takes for a reason to tell the application nothing
            await self.lifespan.shutdown()
        if self._channel is not None:
            await self._channel.end()

    def _reload(self) -> None:
        async def reload() -> None:
            try:
                found = await self.app.reload()
            except Exception as error:  # noqa: BLE001  it goes on with what it has
                logger.error("reload: %s", error)
            else:
                say([f"reloaded: {outcome(found)}"])

        task = asyncio.get_running_loop().create_task(reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


def _log_config(stderr: StandardError) -> dict[str, Any]:
    """uvicorn's own, and ours as it is without any, on stderr where nobody has to read it."""
    own = {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s", "use_colors": None}
    handlers = {name: {"()": lambda: Handler(stderr.lines), "formatter": name} for name in ("uvicorn", "plain")}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"uvicorn": own, "plain": {"format": "%(message)s"}},
        "handlers": handlers,
        "loggers": {
            "uvicorn": {"handlers": ["uvicorn"], "level": "INFO", "propagate": False},
            "uvicorn.error": {"level": "INFO"},
            logger.name: {"handlers": ["plain"]},
        },
    }


def most_connections(wanted: int) -> int:
    """As many as wanted, or as the process may have files open: the limit is raised as far as it can be."""
    try:
        import resource
    except ImportError:  # Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < want:
        soft = want if hard == resource.RLIM_INFINITY else min(want, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - SPARE_FILES), 1)


def serve(server: Server) -> None:
    """Until SIGTERM or SIGINT."""
    if not any(served.model.prepare().runner.spare for served in server.app.models.all):
        # Batches keep all cores busy, for which the threads of tokenizers would wait.
        os.environ.setdefault(LIBRARY_THREADS, "false")
    # From here on a signal is kept until there is a loop to end. uvicorn raises again what ended it, when it is done:
    # that was no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    try:
        server.run()
    finally:
        server.stderr.lines.close()
    if server.app.loading:
        os._exit(0)  # all is answered; Python would end within the other thread's work, and a crash is what may come
