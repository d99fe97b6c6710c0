"""Results as JSON. Long ones in pieces, so that an event loop sees to its other connections between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson

VECTORS_AT_ONCE = 64  # written between two looks at other connections


def dumped(value: Any) -> bytes:
    """As JSON; arrays of numpy included."""
    made: bytes = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return made


async def listed(
    values: Sequence[Any], write: Callable[[Any], bytes] = dumped, at_once: int = VECTORS_AT_ONCE
) -> bytes:
    """A list as JSON, many values in pieces between which other connections have their turn.

    `write` makes JSON of a slice of the values: a list. `at_once` values are a piece.
    """
    if len(values) <= at_once:
        return write(values)
    parts = []
    for start in range(0, len(values), at_once):
        parts.append(write(values[start : start + at_once])[1:-1])
        await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"
