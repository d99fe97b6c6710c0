"""What is known of the terminal that a stream is on, if it is on one."""

from __future__ import annotations

import os
from typing import TextIO

USUAL = 80  # columns, where a terminal does not say how many it has


def columns(stream: TextIO | None) -> int | None:
    """How many a terminal has, or COLUMNS; None for what is no terminal, whose lines may be of any length."""
    if stream is None or stream.closed or not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL
    except (OSError, ValueError):
        return USUAL


def coloured(stream: TextIO | None) -> bool:
    """Whether it shows colours: a terminal, unless NO_COLOR holds something or the terminal is a dumb one."""
    return columns(stream) is not None and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
