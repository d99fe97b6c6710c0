"""A request's texts on their way through a model, and how the event loop that waits for them learns of the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ..models.work import Prepared
from ..run.batching import Ids
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import Window, estimate

WINDOW_TEXTS = 256  # of a long request, tokenized at a time


class DeadlineError(Exception):
    """The seconds that a request may take are over, and it has not been answered."""


class FatalError(Exception):
    """What was no Exception, in a thread that others need."""


def is_short(tokens: int, texts: int, most: int) -> bool:
    """Whether a request waits for no long one: it is one piece, of about no more tokens than a batch has at `most`."""
    return tokens <= most and texts <= WINDOW_TEXTS


def after_cut(tokens: int, texts: Sequence[Any], tokenizer: TextTokenizer) -> int:
    """About how many tokens of texts will run, which have about so many before any cut."""
    most = tokenizer.max_length
    if tokens <= most or tokenizer.truncation == "chunk":
        return tokens
    return sum(min(estimate(text), most) for text in texts)


class Job:
    """Texts of one request, all with the same options."""

    __slots__ = (
        "count",
        "deadline",
        "ended",
        "failed",
        "future",
        "given_up",
        "left",
        "lengths",
        "loop",
        "parts",
        "queued",
        "started",
        "texts",
        "tokenizing",
        "tokens",
        "work",
    )

    def __init__(self, prepared: Prepared[Any], texts: Sequence[Any], deadline: float) -> None:
        """Made in the event loop that waits for it; at least one text; `deadline` in seconds of time.monotonic."""
        self.work, self.count, self.texts, self.deadline = prepared.work, prepared.count, texts, deadline
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.parts: list[Any] = [None] * -(-len(texts) // WINDOW_TEXTS)
        self.left = len(self.parts)
        self.given_up = False  # nobody waits for it any more
        self.failed: Exception | None = None
        self.queued = time.monotonic()
        self.started = self.ended = 0.0  # when its first batch did, and all of it
        self.tokenizing = 0.0  # seconds
        self.tokens = 0  # as they ran
        self.lengths: list[int] | None = None  # tokens of each text, where somebody wants to know

    def over(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.given_up or self.failed is not None


class Piece:
    """Texts of a job that are tokenized together, and what has become of them."""

    __slots__ = (
        "boundaries",
        "job",
        "left",
        "length",
        "next",
        "number",
        "order",
        "rest",
        "results",
        "texts",
        "tokenized",
    )

    def __init__(self, job: Job, number: int) -> None:
        self.job, self.number = job, number
        start = number * WINDOW_TEXTS
        self.texts = job.texts if len(job.parts) == 1 else job.texts[start : start + WINDOW_TEXTS]
        self.next = 0  # in `order`: rows before it have been handed out
        self.results: Any = None

    def tokenize(self, *, parallel: bool) -> None:
        """Make rows, on all cores where `parallel`."""
        began = time.perf_counter()
        work = self.job.work
        made: Tokenized = work.tokenize(Window(self.texts, self.number * WINDOW_TEXTS, parallel))  # type: ignore[arg-type]
        self.take(made, work.boundaries(made), began)

    def take(self, made: Tokenized, boundaries: Ids, began: float) -> None:
        """Have these rows, longest first; `began` is when they were begun, in seconds of time.perf_counter."""
        job = self.job
        self.tokenized, self.boundaries = made, boundaries
        lengths = [len(row) for row in made.ids]
        self.order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True) if len(lengths) > 1 else [0]
        self.left = len(lengths)
        self.rest = self.length = sum(lengths)  # tokens; of the rest none has been handed out
        job.tokens += self.rest
        if job.lengths is not None:
            for owner, length in zip(made.owner.tolist(), lengths, strict=True):
                job.lengths[self.number * WINDOW_TEXTS + owner] += length
        job.tokenizing += time.perf_counter() - began


def tokenize_together(pieces: Sequence[Piece], *, parallel: bool) -> bool:
    """Tokenize texts of several requests with the same options in one go; False where each has to be by itself."""
    began = time.perf_counter()
    texts = [text for piece in pieces for text in piece.texts]
    work = pieces[0].job.work
    parts: list[tuple[Tokenized, Ids]] = []
    try:
        made: Tokenized = work.tokenize(Window(texts, 0, parallel))
        if made.truncated or len(made.ids) != len(texts):
            return False
        start = 0
        for piece in pieces:
            part = made.part(start, start + len(piece.texts))
            parts.append((part, work.boundaries(part)))
            start += len(piece.texts)
    except BaseException:  # noqa: BLE001  it belongs to one of them, who is found when each is by itself
        return False
    for piece, (part, boundaries) in zip(pieces, parts, strict=True):
        piece.take(part, boundaries, began)
    return True


def fail(job: Job, error: BaseException) -> None:
    """Nothing more is done for a job; `deliver` tells why."""
    if job.failed is None:
        if isinstance(error, Exception):
            job.failed = error
        else:  # such as a panic of the tokenizer's library, which must not end who waits
            job.failed = FatalError(type(error).__name__)
            job.failed.__cause__ = error


def deliver(jobs: Sequence[Job]) -> None:
    """Tell the event loops what is done, once for all jobs of a loop."""
    loops = {job.loop: None for job in jobs if not job.given_up}
    for loop in loops:
        mine = [job for job in jobs if job.loop is loop]
        try:
            loop.call_soon_threadsafe(settle, mine)
        except RuntimeError:  # it is closed, and nobody waits
            continue


def settle(jobs: Sequence[Job]) -> None:
    """Tell who waits what is done; in the event loop of the jobs."""
    now = time.monotonic()
    for job in jobs:
        job.ended = now
        if job.future.done():
            continue
        if job.failed is not None:
            job.future.set_exception(job.failed)
        else:
            job.future.set_result(job.parts)
