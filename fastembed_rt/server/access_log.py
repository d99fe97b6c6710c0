"""A line of JSON for requests, written aside: see lines."""

from __future__ import annotations

import random
from typing import Any

from .lines import Lines
from .writing import dumped


class AccessLog:
    """For a share of the requests that went well, and for all others."""

    def __init__(self, share: float, descriptor: int = 1) -> None:
        """`share` from 0 to 1; the file `descriptor` is stdout by default."""
        self.share = share
        self._lines = Lines(_line, descriptor, "fastembed_rt_access_log")

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._lines.dropped

    def __call__(self, told: dict[str, Any]) -> None:
        """A request that is answered; for the event loop, and it waits for nothing."""
        if told["status"] < 400 and self.share < 1 and random.random() >= self.share:
            return
        self._lines(told)

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits, for no longer than that."""
        self._lines.close(seconds)


def _line(told: dict[str, Any]) -> bytes:
    return dumped(told) + b"\n"
