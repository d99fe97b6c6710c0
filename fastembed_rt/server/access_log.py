"""A line of JSON for requests, written aside: a full disk or a reader that stalls costs lines, never an answer."""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from typing import Any

from .writing import dumped

MOST_LINES = 10_000  # that wait; those that come then are dropped and counted


class AccessLog:
    """For a share of the requests that went well, and for all others."""

    def __init__(self, share: float, descriptor: int = 1) -> None:
        """`share` from 0 to 1; the file `descriptor` is stdout by default."""
        self.share, self._descriptor = share, descriptor
        self.dropped = 0  # lines
        self._lines: deque[dict[str, Any]] = deque()
        self._wake, self._idle = threading.Event(), threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def __call__(self, told: dict[str, Any]) -> None:
        """A request that is answered; for the event loop, and it waits for nothing."""
        if told["status"] < 400 and self.share < 1 and random.random() >= self.share:
            return
        if len(self._lines) >= MOST_LINES:
            self.dropped += 1
            return
        self._lines.append(told)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="fastembed_rt_access_log", daemon=True)
            self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits, for no longer than that."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._lines:
                told = [self._lines.popleft() for _ in range(min(len(self._lines), 256))]
                self._write(b"".join(dumped(one) + b"\n" for one in told), len(told))
            if self._closed:
                return

    def _write(self, content: bytes, lines: int) -> None:
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except OSError:  # no room, or nobody reads
            self.dropped += lines
