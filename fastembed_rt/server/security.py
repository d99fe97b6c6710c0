"""Who may ask: API keys, and the origins whose pages browsers let ask."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from ..errors import InvalidInputError
from .errors import ApiError
from .exchange import Exchange, Headers

METHODS = b"GET, POST, OPTIONS"
KEYED = (b"x-api-key", b"api-key", b"x-goog-api-key")  # headers beside authorization; the last is of Google's clients
ASKED = b"authorization, content-type, " + b", ".join(KEYED) + b", x-request-id, traceparent, tracestate"
SHOWN = b"x-request-id, retry-after, x-compute-time, x-compute-tokens, x-total-time, x-queue-time, x-inference-time"
SECONDS = b"600"  # that a browser keeps what it was told


class Keys:
    """API keys, any of which opens all routes that are not public; none at all opens them to everybody."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in dict.fromkeys(keys)]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, exchange: Exchange) -> None:
        """Raise ApiError where keys are wanted and the request has none of them."""
        if self._keys and not self._has(exchange):
            raise ApiError("Unauthorized", "send one of the server's keys as authorization: Bearer KEY")

    def _has(self, exchange: Exchange) -> bool:
        headers = exchange.headers
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = [token.strip()] if kind.lower() == b"bearer" else []
        given += [headers[name] for name in KEYED if name in headers]
        # All of them, whichever fits: the time tells nothing.
        found = [hmac.compare_digest(key, other) for key in self._keys for other in given]
        return any(found)


def read_keys(path: str) -> list[str]:
    """Keys of a file, a line each; empty lines and those that begin with # are none.

    Raises:
        InvalidInputError: there is none, or the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise InvalidInputError(f"the file of keys {path} cannot be read: {reason}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise InvalidInputError(f"the file of keys {path} holds none; write a key a line")
    return keys


class Cors:
    """Which origins' pages may read answers; "*" lets all."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = {origin.encode() for origin in origins}

    def headers(self, origin: bytes | None) -> Headers:
        """What an answer to a page of this origin carries."""
        if origin is None or not self._origins:
            return []
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", SHOWN)]
        made = [(b"vary", b"Origin")]
        if origin in self._origins:
            made += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", SHOWN)]
        return made

    def preflight(self, origin: bytes | None) -> Headers:
        """What a browser is told that asks before it sends."""
        made = self.headers(origin)
        if any(name == b"access-control-allow-origin" for name, _ in made):
            made += [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", ASKED),
                (b"access-control-max-age", SECONDS),
            ]
        return made
