"""Models that are replaced while requests run: new ones beside the old, a switch, and the old when nobody has them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import FastembedRtError
from . import lasting
from .models import Models, Served

if TYPE_CHECKING:
    from .app import App

logger = logging.getLogger("fastembed_rt.server")
Load = Callable[[], Models]


class ReloadError(FastembedRtError):
    """What should have been loaded cannot be; what was there goes on.

    `is_open`: nobody knows yet. A worker ended over it, and what it has when it is there again, the others load too.
    """

    def __init__(self, message: str, *, is_open: bool = False) -> None:
        super().__init__(message)
        self.is_open = is_open


class Generation:
    """Requests that may hold the models which were there when they came."""

    __slots__ = ("_empty", "count")

    def __init__(self) -> None:
        self.count = 0
        self._empty: asyncio.Event | None = None

    def leave(self) -> None:
        """A request less."""
        self.count -= 1
        if self._empty is not None and self.count == 0:
            self._empty.set()

    async def over(self) -> None:
        """Until all of them are answered; after the last one came."""
        self._empty = asyncio.Event()
        if self.count:
            await self._empty.wait()


class Reloader:
    """Of one application, one at a time."""

    def __init__(self, app: App, load: Load) -> None:
        self._app, self._load = app, load
        self._lock = asyncio.Lock()
        self.loading = False  # a thread that cannot be ended
        self._retiring: set[asyncio.Task[None]] = set()

    async def __call__(self) -> list[dict[str, Any]]:
        """Load what the same names and paths now stand for; each model with its old and new identity.

        Raises:
            ReloadError: that failed, and nothing is changed.
        """
        app = self._app
        async with self._lock:
            before = app.identities()
            loading = self._in_thread()
            try:
                fresh = await asyncio.shield(loading)
            except asyncio.CancelledError:
                loading.add_done_callback(_drop)  # the thread goes on
                raise
            try:
                meters = {served.name: served.meters for served in app.models.all}
                for served in fresh.all:
                    served.meters = meters.get(served.name, served.meters)  # counters go on
                    await served.warm_up()
            except BaseException as error:
                _close(fresh.all)
                if not isinstance(error, Exception):  # cancelled
                    raise
                raise ReloadError(f"the new model does not answer: {type(error).__name__}") from error
            for served in app.models.all:
                served.meters.truncated += served.model.stats.truncated
            old, generation = app.replace(fresh)
            task = asyncio.get_running_loop().create_task(_retire(old, generation))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            after = app.identities()
        return [{"name": name, "before": before.get(name), "now": now} for name, now in after.items()]

    def _in_thread(self) -> asyncio.Future[Models]:
        """Of its own: a program that ends would wait for the event loop's, however long they take."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Models] = loop.create_future()

        def work() -> None:
            try:
                done = partial(future.set_result, self._loaded())
            except Exception as error:  # noqa: BLE001  for who waits
                done = partial(future.set_exception, error)
            self.loading = False
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done)

        self.loading = True
        threading.Thread(target=work, name="fastembed_rt_reload", daemon=True).start()
        return future

    def _loaded(self) -> Models:
        try:
            with lasting.told(f"reload: process {os.getpid()} has been loading", logger.warning):
                return self._load()
        except FastembedRtError as error:
            raise ReloadError(f"{type(error).__name__}: {error}") from error


def outcome(found: Sequence[Mapping[str, Any]]) -> str:
    """What a reload gave, for people: each model's identity, and the one before where it has changed."""
    return ", ".join(
        f"{one['name']} {one['now']} ({'unchanged' if one['now'] == one['before'] else 'was ' + str(one['before'])})"
        for one in found
    )


async def _retire(old: Sequence[Served], generation: Generation) -> None:
    await generation.over()
    await asyncio.to_thread(_close, old)


def _drop(loading: asyncio.Future[Models]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        _close(loading.result().all)


def _close(models: Sequence[Served]) -> None:
    for served in models:
        served.close()
        served.model.close()
