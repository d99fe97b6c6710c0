"""The progress bar, where one is asked for, and lines for steps."""

from __future__ import annotations

import sys
import time
from typing import Any


class NoBar:
    """Stands in for a bar that nobody asked for."""

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Nothing to show."""


class Bar(NoBar):
    """A tqdm bar that moves with the batches of a window of texts, long before the window is done."""

    def __init__(self, shown: Any) -> None:
        self._shown, self._early = shown, 0

    def __exit__(self, *_: object) -> None:
        self._shown.close()

    def early(self, count: int) -> None:
        """So many are done of those that the next `update` counts."""
        self._shown.update(count - self._early)
        self._early = count

    def update(self, count: int) -> None:
        """So many more are done."""
        self._shown.update(count - self._early)
        self._early = 0


def progress(total: int, show: bool | None, unit: str = "text", what: str = "encode") -> NoBar:
    """A tqdm bar over `total` texts, or other units, on stderr, or nothing; a context manager with `update(count)`."""
    if not show or sys.stderr is None or sys.stderr.closed:  # pythonw, a daemon: nobody could see it
        return NoBar()
    from tqdm import tqdm

    return Bar(tqdm(total=total, unit=unit, desc=what))


class Steps:
    """Says each step on stderr with the seconds since the start, where it is to be shown."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one step."""
        if self._show and sys.stderr is not None and not sys.stderr.closed:
            print(f"[{time.monotonic() - self._start:5.1f} s] {line}", file=sys.stderr, flush=True)


def watched() -> bool:
    """Whether stderr is a terminal, where people are."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
