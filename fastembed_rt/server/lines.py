"""Lines written aside, by a thread: a full disk or a reader that stands still costs lines, never the event loop."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

MOST_LINES = 10_000  # that wait; those that come then are dropped and counted
AT_ONCE = 256  # lines of one write


class Lines:
    """What is told, as lines in a file; the thread starts with the first."""

    def __init__(self, written: Callable[[Any], bytes], descriptor: int, name: str) -> None:
        """`written` gives a line's bytes, its end included, in the thread, which is called `name`."""
        self._written, self._descriptor, self._name = written, descriptor, name
        self.dropped = 0  # lines
        self._waiting: deque[Any] = deque()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def __call__(self, told: Any) -> None:
        """One line; waits for nothing."""
        if len(self._waiting) >= MOST_LINES:
            self.dropped += 1
            return
        self._waiting.append(told)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
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
            while self._waiting:
                told = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
                self._write(b"".join(map(self._written, told)), len(told))
            if self._closed:
                return

    def _write(self, content: bytes, lines: int) -> None:
        # By the descriptor: a thread that waits within sys.stderr would have its lock when Python exits.
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except OSError:  # no room, or nobody reads
            self.dropped += lines


class StandardError:
    """Lines on stderr, where nobody has to read them."""

    def __init__(self) -> None:
        descriptor = -1  # nothing can be said: it was closed at the start
        if sys.stderr is not None:
            try:
                descriptor = sys.stderr.fileno()
            except (OSError, ValueError):  # closed since
                descriptor = -1
        self.lines = Lines(_encoded, descriptor, "fastembed_rt_stderr")

    def say(self, lines: Iterable[str]) -> None:
        """As `running.say`, and it waits for nothing."""
        for line in lines:
            self.lines(line)


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


class Handler(logging.Handler):
    """A log's records among such lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """One line, or those of a traceback."""
        try:
            self._lines(self.format(record))
        except Exception:  # noqa: BLE001  as logging's own handlers have it
            self.handleError(record)
