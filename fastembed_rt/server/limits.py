"""What the server takes on at a time, and what it says to who comes when that is full."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from .errors import ApiError

SLOWEST, LONGEST_WAIT = 1, 60  # seconds of Retry-After
SHORT, LONG = 0, 1  # lanes of the queue: requests that fit a batch, and longer ones
NAMES = ("short", "long")
MOST_NUMBERS = 2**27  # in vectors of tokens of a request: 512 MB, and several times as much as JSON


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds with the names of their options; each answer that one causes says which."""

    max_concurrent_requests: int = 512  # over it 429
    max_queue_tokens: int = 1_000_000  # in all requests of a lane that are not answered; over it 429, but for one alone
    max_client_batch_size: int = 4096  # inputs of a request; over it 422
    payload_limit: int = 16_000_000  # bytes of a body; over it 413
    request_seconds: float = 120.0  # from the body to the answer; over it 504
    body_seconds: float = 30.0  # until a body is there; over it 408


def check_tokens(tokens: int, limits: Limits) -> None:
    """Raise ApiError where a request whose answer grows with its tokens has more than the whole queue may have."""
    most = limits.max_queue_tokens
    if tokens > most:
        raise ApiError("TooLarge", f"about {tokens} tokens, and max_queue_tokens is {most}; send fewer texts")


def check_numbers(numbers: int) -> None:
    """Raise ApiError where the vectors of all tokens of a request have too many."""
    if numbers > MOST_NUMBERS:
        what = f"about {numbers} numbers in vectors of tokens, and a request may have {MOST_NUMBERS}; send fewer texts"
        raise ApiError("TooLarge", what)


class Admission:
    """What is under way. For event loops: nothing here waits.

    Each lane has its own tokens, as it has its own threads: a long request, which may be over the limit when it is
    alone, keeps no short one out.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.body_bytes = 0  # of bodies that come in pieces and are not whole
        self._tokens = [0, 0]  # by lane
        self._rate = 10_000.0  # tokens a second, as observed
        self._since, self._done = time.monotonic(), 0

    @property
    def tokens(self) -> int:
        """In the queue, of both lanes."""
        return sum(self._tokens)

    def check(self) -> None:
        """Raise ApiError where there is no place for a request more."""
        if self.requests >= self.limits.max_concurrent_requests:
            raise self._crowded()

    def enter(self) -> None:
        """A request more, whose body is there; `leave` takes it back.

        Raises:
            ApiError: there are too many.
        """
        if self.requests >= self.limits.max_concurrent_requests:
            raise self._crowded()
        self.requests += 1

    def leave(self) -> None:
        """A request less."""
        self.requests -= 1

    def hold(self, size: int) -> None:
        """Bytes more of a body that is not whole; `let_go` takes them back.

        Raises:
            ApiError: those of all such bodies are too many.
        """
        most = self.limits.max_concurrent_requests * self.limits.payload_limit
        if self.body_bytes + size > most:
            raise self._full(f"{self.body_bytes} bytes of bodies that are not whole are here, and {most} may be")
        self.body_bytes += size

    def let_go(self, size: int) -> None:
        """Bytes less."""
        self.body_bytes -= size

    def take(self, tokens: int, lane: int, own: list[int]) -> None:
        """Room in a lane; `give_back` makes it free. `own` is what the same request has already, by lane, and is kept.

        Raises:
            ApiError: there is none, and others are in the lane.
        """
        waiting = self._tokens[lane]
        if waiting > own[lane] and waiting + tokens > self.limits.max_queue_tokens:
            most = self.limits.max_queue_tokens
            raise self._full(f"{waiting} tokens of {NAMES[lane]} requests wait, and max_queue_tokens is {most}")
        self._tokens[lane] = waiting + tokens
        own[lane] += tokens

    def give_back(self, tokens: int, lane: int, own: list[int]) -> None:
        """Room that is free again."""
        own[lane] -= tokens
        self._tokens[lane] -= tokens
        self._done += tokens
        seconds = time.monotonic() - self._since
        if seconds > 1:
            self._rate = max(self._done / seconds, 1.0)
            self._since, self._done = time.monotonic(), 0

    def _crowded(self) -> ApiError:
        return self._full(f"{self.requests} requests are under way, and max_concurrent_requests allows no more")

    def _full(self, why: str) -> ApiError:
        seconds = min(max(math.ceil(self.tokens / self._rate), SLOWEST), LONGEST_WAIT)
        return ApiError("Overloaded", f"{why}; try again in {seconds} s", retry_after=seconds)
