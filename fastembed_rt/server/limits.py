"""What the server takes on at a time, and what it says to who comes when that is full."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from .errors import ApiError

SLOWEST, LONGEST_WAIT = 1, 60  # seconds of Retry-After


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds with the names of their options; each answer that one causes says which."""

    max_concurrent_requests: int = 512  # over it 429
    max_queue_tokens: int = 1_000_000  # in all requests that are not answered; over it 429, but for one alone
    max_client_batch_size: int = 4096  # inputs of a request; over it 422
    payload_limit: int = 16_000_000  # bytes of a body; over it 413
    request_seconds: float = 120.0  # from the body to the answer; over it 504
    body_seconds: float = 30.0  # until a body is there; over it 408


class Admission:
    """What is under way. For event loops: nothing here waits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.tokens = 0
        self._rate = 10_000.0  # tokens a second, as observed
        self._since, self._done = time.monotonic(), 0

    def enter(self) -> None:
        """A request more; `leave` takes it back.

        Raises:
            ApiError: there are too many.
        """
        if self.requests >= self.limits.max_concurrent_requests:
            raise self._full(f"{self.requests} requests are under way, and max_concurrent_requests allows no more")
        self.requests += 1

    def leave(self) -> None:
        """A request less."""
        self.requests -= 1

    def take(self, tokens: int) -> None:
        """Room in the queue; `give_back` makes it free.

        Raises:
            ApiError: there is none.
        """
        if self.tokens and self.tokens + tokens > self.limits.max_queue_tokens:
            raise self._full(f"{self.tokens} tokens wait, and max_queue_tokens is {self.limits.max_queue_tokens}")
        self.tokens += tokens

    def give_back(self, tokens: int) -> None:
        """Room that is free again."""
        self.tokens -= tokens
        self._done += tokens
        seconds = time.monotonic() - self._since
        if seconds > 1:
            self._rate = max(self._done / seconds, 1.0)
            self._since, self._done = time.monotonic(), 0

    def _full(self, why: str) -> ApiError:
        seconds = min(max(math.ceil(self.tokens / self._rate), SLOWEST), LONGEST_WAIT)
        return ApiError("Overloaded", f"{why}; try again in {seconds} s", retry_after=seconds)
