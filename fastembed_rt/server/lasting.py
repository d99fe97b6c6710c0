"""What takes long is told of: loading may take as long as it wants, as a first export does, or be stuck."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

FIRST_SECONDS = 60.0  # then each time that it has taken twice as long


@contextlib.contextmanager
def told(what: str, say: Callable[[str], object]) -> Iterator[None]:
    """`say`, in a thread of its own, `what` with the time since the block began."""
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        seconds = FIRST_SECONDS
        while not done.wait(began + seconds - time.monotonic()):
            say(f"{what} for {seconds:g} s")
            seconds *= 2

    threading.Thread(target=tell, name="fastembed_rt_lasting", daemon=True).start()
    try:
        yield
    finally:
        done.set()
