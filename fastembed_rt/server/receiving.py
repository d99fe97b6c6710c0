"""What an application is sent that it has asked for before it waits."""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Any


async def immediate(message: dict[str, Any]) -> dict[str, Any]:
    """A message that is there already, for who awaits one."""
    return message


@types.coroutine
def resumed(coroutine: Any, waiting: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has been run as far as to where it waits."""
    while True:
        try:
            sent = yield waiting
        except BaseException as error:  # noqa: BLE001  it is the coroutine's
            step, with_what = coroutine.throw, error
        else:
            step, with_what = coroutine.send, sent
        try:
            waiting = step(with_what)
        except StopIteration as ended:
            return ended.value
