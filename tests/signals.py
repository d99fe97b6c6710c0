"""What signals do in a program that was started at a terminal, wherever the tests were started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Python's own handlers at a terminal. `&` in a script and some supervisors start programs with SIGINT ignored, `nohup`
# with SIGHUP; Python then installs no handler for it, and children inherit that it is ignored. A handler written in
# Python does not outlive exec, so that children start with the system's default and Python in them with
# KeyboardInterrupt.
HANDLERS: dict[str, Any] = {
    "SIGINT": signal.default_int_handler,
    "SIGTERM": signal.SIG_DFL,
    "SIGHUP": signal.SIG_DFL,
    "SIGALRM": signal.SIG_DFL,
}


@contextmanager
def of_a_terminal() -> Iterator[None]:
    """These handlers, and none of these signals blocked, here and in children started meanwhile; then as it was."""
    numbers = {getattr(signal, name): handler for name, handler in HANDLERS.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    can_block = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers) if can_block else set()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
