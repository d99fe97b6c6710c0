"""The progress bar, where one is asked for."""

from __future__ import annotations

import sys
from typing import Any


class NoBar:
    """Stands in for a bar that nobody asked for."""

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Nothing to show."""


def progress(total: int, show: bool | None, unit: str = "text", what: str = "encode") -> Any:
    """A tqdm bar over `total` texts, or other units, on stderr, or nothing; a context manager with `update(count)`."""
    if not show or sys.stderr is None or sys.stderr.closed:  # pythonw, a daemon: nobody could see it
        return NoBar()
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, desc=what)
