"""SIGHUP, which means to reload: what comes before there is anything to reload is kept until then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a program does first waits for no import
    import asyncio

_came = threading.Event()


def hold() -> None:
    """From now on SIGHUP ends nothing. For the main thread of a process that is going to serve."""
    if _is_possible():
        signal.signal(signal.SIGHUP, _keep)


def listen(loop: asyncio.AbstractEventLoop, reload: Callable[[], object]) -> None:
    """Call `reload` for each SIGHUP, and once for those that came since `hold`."""
    if not _is_possible():
        return
    loop.add_signal_handler(signal.SIGHUP, reload)
    if _came.is_set():
        _came.clear()
        reload()


def ignore() -> None:
    """SIGHUP is for the process that started this one."""
    if _is_possible():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _is_possible() -> bool:
    """Whether there is such a signal, and this is where it is heard."""
    return hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread()


def _keep(*_: object) -> None:
    _came.set()
