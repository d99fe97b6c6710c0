"""What a request may be answered with instead of a result; each dialect writes it in its own shape."""

from __future__ import annotations

from ..errors import FastembedRtError, InvalidInputError, LacksGraphError, TextTooLongError, UnknownTokenError
from ..system.threads import CLOSED
from .jobs import DeadlineError

# By kind, under text-embeddings-inference's names where it has one: status, and what OpenAI calls it.
KINDS = {
    "Unhealthy": (503, "server_error"),
    "Backend": (424, "server_error"),
    "Overloaded": (429, "rate_limit_error"),
    "Validation": (422, "invalid_request_error"),
    "Tokenizer": (422, "invalid_request_error"),
    "Empty": (400, "invalid_request_error"),
    "Malformed": (400, "invalid_request_error"),
    "Unauthorized": (401, "authentication_error"),
    "NotFound": (404, "not_found_error"),
    "MethodNotAllowed": (405, "invalid_request_error"),
    "TooLarge": (413, "invalid_request_error"),
    "Timeout": (504, "server_error"),
    "SlowBody": (408, "invalid_request_error"),
    "Internal": (500, "server_error"),
}


class ApiError(Exception):
    """An answer that is no result: a sentence without anything of the request's texts."""

    def __init__(self, kind: str, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        """`param` is the key of the body that it is about; `retry_after` in seconds."""
        super().__init__(message)
        self.kind, self.message, self.param, self.retry_after = kind, message, param, retry_after

    @property
    def status(self) -> int:
        """Of HTTP."""
        return KINDS[self.kind][0]

    @property
    def openai_type(self) -> str:
        """What OpenAI calls the kind."""
        return KINDS[self.kind][1]


def answer_to(error: BaseException, seconds: float) -> ApiError | None:
    """What to answer where a model refused or could not go on; None for what nobody expected."""
    if isinstance(error, DeadlineError):
        return ApiError("Timeout", f"not done within the {seconds:g} seconds that a request may take; send fewer texts")
    if isinstance(error, TextTooLongError):
        # "context length" are the words by which clients that can send a text in parts know that they have to.
        what = str(error).partition(";")[0] + ", the model's context length"
        return ApiError("Validation", what + "; send truncate: true, or shorter texts")
    if isinstance(error, UnknownTokenError):  # its words have the token, which is of the text
        return ApiError("Tokenizer", "a text has a token that the model does not know; take special tokens out of it")
    if isinstance(error, (InvalidInputError, LacksGraphError)):
        closed = str(error) == CLOSED  # which is no fault of the request
        return ApiError("Unhealthy", "the server is stopping") if closed else ApiError("Validation", str(error))
    if isinstance(error, FastembedRtError):
        return ApiError("Backend", "the model failed; the server's log says why")
    return None
