"""One request and its answer, between the protocol and a dialect."""

from __future__ import annotations

import asyncio
import itertools
import time
import types
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from ..manifest import EMBEDDING
from ..models.work import Prepared
from ..text.windows import estimate
from .aside import Check, Errand
from .cache import Key, VectorCache
from .errors import ApiError
from .jobs import DeadlineError, Job, after_cut, is_short
from .limits import LONG, SHORT, check_numbers, check_tokens
from .models import Served, joined
from .receiving import immediate, resumed
from .schema import Body, WrongError

if TYPE_CHECKING:
    from .app import App

Scope = dict[str, Any]
Receive = Callable[[], Any]
Headers = list[tuple[bytes, bytes]]
WATCH_AFTER = 0.1  # seconds of waiting after which it is looked whether the client is still there
UNNAMED = ("", "default/not-specified")  # models of clients that were told none; the latter is infinity's
JSON = b"application/json"
_prefix = uuid.uuid4().hex[:8]
_numbers = itertools.count(1)


class ClientGoneError(Exception):
    """Nobody waits for the answer."""


@dataclass
class Response:
    """An answer."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = field(default_factory=list)


class Exchange:
    """A request, and what is needed to answer it."""

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Any) -> None:
        """`send` may have methods `watch` and `unwatch`, as answering.Answer has them."""
        self.app, self.scope, self._receive, self._send = app, scope, receive, send
        self.began = time.monotonic()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.jobs: list[Job] = []
        self._errand: Errand | None = None  # what is done for it that no model does
        self.served: Served | None = None  # the first model that ran
        self.characters = 0
        self.cached_texts = self.cached_tokens = 0  # that the cache had
        self.model: str | None = None  # said by the path
        self.role: str | None = None
        self.prompt_name: str | None = None
        self.infinity = False  # the path asks for answers as infinity has them
        self.variable = ""  # what stands in the path in the place of a name
        self._request_id = ""
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone = self._slow = self._watched = self._ended = False
        self.counted = self.entered = False  # one of the requests that are limited; and has its place among them
        self._times: tuple[float, float, float] | None = None
        self._taken = [0, 0]  # tokens in the queue, by lane
        self._numbers = 0  # in vectors of tokens, of all that it asks for

    @property
    def request_id(self) -> str:
        """The client's, or one of ours."""
        if not self._request_id:
            given = self.headers.get(b"x-request-id", b"").decode("latin-1")
            sound = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
            self._request_id = given if sound else f"{_prefix}-{next(_numbers):x}"
        return self._request_id

    async def content(self) -> bytes:
        """The body.

        Raises:
            ApiError: it is too large, or does not come; or no place is free, for it or for the request.
            ClientGoneError: the client went away.
        """
        if self.counted:
            self.app.admission.check()  # who finds all places taken is told so before the body has come
        limits = self.app.limits
        said = self.headers.get(b"content-length", b"")
        if said.isdigit() and int(said) > limits.payload_limit:
            raise _too_large(limits.payload_limit)
        first = self._receive()
        if type(first) is not types.CoroutineType:  # of a server that is written in another language
            return self._whole(await self._in_time(first))
        try:
            waiting = first.send(None)
        except StopIteration as there:  # of most requests the body has come: no clock is set
            message = there.value
            if message["type"] != "http.disconnect" and not message.get("more_body", False):
                return self._whole(self._chunk(message, 0))
            return self._whole(await self._in_time(immediate(message)))
        return self._whole(await self._in_time(resumed(first, waiting)))

    def _whole(self, content: bytes) -> bytes:
        """The body is there: a place is taken now, so that who sends none, or slowly, has none."""
        if self.counted and not self.entered:
            self.app.admission.enter()
            self.entered = True
        return content

    async def _in_time(self, first: Any) -> bytes:
        """The body, whose `first` message is awaited; within the seconds for it."""
        limits = self.app.limits
        task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        timer = task.get_loop().call_later(limits.body_seconds, self._too_slow, task)  # asyncio.timeout takes 10 us
        try:
            return await self._chunks(first)
        except asyncio.CancelledError:
            if not self._slow or task.uncancel() > cancelled:  # somebody else cancels it, too
                raise
            what = f"the body was not there after {limits.body_seconds:g} seconds"
            raise ApiError("SlowBody", what) from None
        finally:
            timer.cancel()

    def _too_slow(self, task: asyncio.Task[Any]) -> None:
        self._slow = True
        task.cancel()

    async def _chunks(self, first: Any) -> bytes:
        admission = self.app.admission
        content = bytearray()  # which many small pieces fill with no more than their bytes
        held = 0
        message = await first
        try:
            while True:
                chunk = self._chunk(message, len(content))
                if not message.get("more_body", False):
                    return bytes(content) + chunk if content else chunk
                admission.hold(len(chunk))
                held += len(chunk)
                content += chunk
                message = await self._receive()
        finally:
            admission.let_go(held)

    def _chunk(self, message: dict[str, Any], before: int) -> bytes:
        """What a message has of the body, behind so many bytes."""
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        if before + len(chunk) > self.app.limits.payload_limit:
            raise _too_large(self.app.limits.payload_limit)
        return chunk

    async def json(self) -> Any:
        """The body, as JSON."""
        content = await self.content()
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            what = f"the body is no JSON in UTF-8: {error.msg}, position {error.pos}"  # none of the body is in it
            if self.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
                what = "the body has a content-encoding, and bodies that are compressed are not read; send it as it is"
            raise ApiError("Malformed", what) from None

    async def body(self, kind: Body) -> dict[str, Any]:
        """The body, checked."""
        return checked(kind, await self.json())

    def options(self, body: dict[str, Any]) -> dict[str, Any]:
        """Role and prompt: the body's, else those that the path has said."""
        name = body.get("prompt_name")
        return {"prompt_name": self.prompt_name if name is None else name, "role": self.role}

    def find(self, body: dict[str, Any], *tasks: str) -> Served:
        """The model that the body or the path names, or the first of these tasks."""
        name = body.get("model")
        if name in UNNAMED:
            name = None
        return self.app.models.find(self.model if name is None else name, tasks)

    @property
    def tokens(self) -> int:
        """Of all texts, as they ran."""
        return sum(job.tokens for job in self.jobs) + self.cached_tokens

    @property
    def texts(self) -> int:
        """That were given to models."""
        return sum(len(job.texts) for job in self.jobs) + self.cached_texts

    def times(self) -> tuple[float, float, float]:
        """Seconds of tokenizing, of waiting for a batch, and of the batches; of several jobs the longest.

        For when they are over: what was found is kept.
        """
        if self._times is not None:
            return self._times
        tokenizing = queue = inference = 0.0
        for job in self.jobs:
            ended = job.ended or time.monotonic()
            started = job.started or ended
            tokenizing = max(tokenizing, job.tokenizing)
            queue = max(queue, started - job.queued - job.tokenizing, 0.0)
            inference = max(inference, ended - started)
        self._times = tokenizing, queue, inference
        return self._times

    def timing(self) -> Headers:
        """Milliseconds and counts, under text-embeddings-inference's names."""
        total = b"%d" % ((time.monotonic() - self.began) * 1000)
        tokenizing, queue, inference = self.times()
        return [
            (b"x-compute-type", b"cpu" if self.served is None else self.served.provider),
            (b"x-compute-time", total),
            (b"x-compute-characters", b"%d" % self.characters),
            (b"x-compute-tokens", b"%d" % self.tokens),
            (b"x-total-time", total),
            (b"x-tokenization-time", b"%d" % (tokenizing * 1000)),
            (b"x-queue-time", b"%d" % (queue * 1000)),
            (b"x-inference-time", b"%d" % (inference * 1000)),
        ]

    def check_count(self, inputs: int) -> None:
        """Raise ApiError for more inputs than a request may have."""
        most = self.app.limits.max_client_batch_size
        if inputs > most:
            raise ApiError("Validation", f"{inputs} inputs, and max_client_batch_size is {most}")

    def check_time(self) -> None:
        """Raise DeadlineError where the seconds of a request are over."""
        if time.monotonic() > self.deadline:
            raise DeadlineError

    async def run(self, served: Served, texts: Sequence[Any], **options: Any) -> Any:
        """What a model makes of texts, in their order.

        Raises:
            ApiError: too many of them, or the queue is full, or their tokens would have too many numbers.
            ClientGoneError: nobody waits any more.
        """
        self.check_count(len(texts))
        self.served = self.served or served
        prepared = await served.prepared(**options)
        if served.of_tokens or "output" in options:
            tokens = after_cut(sum(map(estimate, texts)), texts, prepared.tokenizer)
            self._numbers += tokens * served.token_width
            check_numbers(self._numbers)
        self.characters += characters(texts)
        cache = self.app.cache
        if cache is not None and served.task == EMBEDDING and not options.get("ids") and "output" not in options:
            about = (served.identity, *sorted(options.items()))
            return await self._run_cached(cache, cache.keys(about, texts), served, prepared, texts)
        return joined(await self._run(served, prepared, texts))

    async def _run(
        self, served: Served, prepared: Prepared[Any], texts: Sequence[Any], lengths: list[int] | None = None
    ) -> Sequence[Any]:
        """Parts of the result; `lengths` is given the tokens of each text."""
        tokens = sum(map(estimate, texts))
        lane = SHORT if is_short(tokens, len(texts), prepared.runner.limits.tokens) else LONG
        self._check_wanted()
        cut = tokens > prepared.tokenizer.max_length
        room = after_cut(tokens, texts, prepared.tokenizer) if cut else tokens
        admission = self.app.admission
        admission.take(room, lane, self._taken)
        try:
            job = served.start(prepared, texts, tokens, self.deadline, lengths)
            self.jobs.append(job)
            parts: Sequence[Any] = await self._wait(job)
            return parts
        finally:
            admission.give_back(room, lane, self._taken)

    async def aside(self, work: Callable[[Check], bytes], prepared: Prepared[Any], *, texts: int, tokens: int) -> bytes:
        """What is made of so many texts by no model, in a thread; `work` calls what it is given between its pieces.

        Raises:
            ApiError: about so many `tokens` are too many, or the queue is full.
            ClientGoneError: nobody waits any more.
        """
        check_tokens(tokens, self.app.limits)
        self._check_wanted()
        lane = SHORT if is_short(tokens, texts, prepared.runner.limits.tokens) else LONG
        admission = self.app.admission
        admission.take(tokens, lane, self._taken)
        try:
            self._errand = self.app.aside.start(work, lane, self.deadline)
            made: bytes = await self._wait(self._errand)
            return made
        finally:
            admission.give_back(tokens, lane, self._taken)

    async def _run_cached(
        self, cache: VectorCache, keys: Sequence[Key], served: Served, prepared: Prepared[Any], texts: Sequence[str]
    ) -> npt.NDArray[Any]:
        """Vectors (n, dim), only those of unknown texts by the model."""
        found = cache.find(keys)
        missing = [k for k, entry in enumerate(found) if entry is None]
        if not missing:
            made = None
        else:
            lengths = [0] * len(missing)
            made = joined(await self._run(served, prepared, [texts[k] for k in missing], lengths))
            cache.put([keys[k] for k in missing], made, lengths)
            if len(missing) == len(texts):
                return made  # type: ignore[no-any-return]
        known = [entry for entry in found if entry is not None]
        self.cached_texts += len(known)
        self.cached_tokens += sum(count for _, count in known)
        vectors = np.empty((len(texts), len(known[0][0])), known[0][0].dtype)
        for k, entry in enumerate(found):
            if entry is not None:
                vectors[k] = entry[0]
        if made is not None:
            vectors[missing] = made
        return vectors

    async def _wait(self, job: Job | Errand) -> Any:
        if not self._watched:
            self._watched = True
            self._watch(job.loop)
        try:
            return await job.future
        except asyncio.CancelledError:
            job.given_up = True
            if self._gone:
                raise ClientGoneError from None
            raise

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look whether the client is still there, until the jobs are done or their time is over."""
        watch = getattr(self._send, "watch", None)
        if watch is None:  # another server's
            self._timer = loop.call_later(WATCH_AFTER, self._start_watcher)
        elif not watch(self):
            loop.call_soon(self.end_gone)

    def _check_wanted(self) -> None:
        """Raise ClientGoneError where another part of the request has failed while this one was being prepared."""
        if self._ended:
            raise ClientGoneError

    def end(self) -> None:
        """Nothing more is looked at or begun, and what still runs for a request that has failed is given up."""
        self._ended = True
        for job in self._begun():
            if not job.future.done():
                job.given_up = True
                job.future.cancel()
        if not self._watched:
            return
        if self._timer is None:
            self._send.unwatch()
        else:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begun(self) -> Sequence[Job | Errand]:
        return self.jobs if self._errand is None else [*self.jobs, self._errand]

    @property
    def deadline(self) -> float:
        """When its time is over, in seconds of time.monotonic."""
        return self.began + self.app.limits.request_seconds

    def _start_watcher(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._until_gone())

    async def _until_gone(self) -> None:
        try:
            async with asyncio.timeout(max(self.deadline - time.monotonic(), 0.0)):
                while (await self._receive())["type"] != "http.disconnect":
                    await asyncio.sleep(WATCH_AFTER)  # servers wait here themselves; tests' stand-ins may not
        except TimeoutError:
            self.end_late()
        else:
            self.end_gone()

    def end_late(self) -> None:
        """Its time is over."""
        for job in self._begun():
            if not job.future.done():
                job.given_up = True
                job.future.set_exception(DeadlineError())

    def end_gone(self) -> None:
        """Nobody waits for it any more."""
        self._gone = True
        for job in self._begun():
            job.given_up = True
            job.future.cancel()


def characters(texts: Sequence[Any]) -> int:
    """Of texts, pairs of texts, or token ids."""
    return sum(
        len(text) if isinstance(text, str) or not isinstance(text, tuple) else sum(map(len, text)) for text in texts
    )


def checked(kind: Body, value: Any) -> dict[str, Any]:
    """A body that is JSON already, checked.

    Raises:
        ApiError: it is not what the route takes.
    """
    try:
        made: dict[str, Any] = kind.check(value)
    except WrongError as wrong:
        place = wrong.where()
        raise ApiError("Validation", f"{place or 'body'}: {wrong.message}", param=place or None) from None
    return made


def _too_large(most: int) -> ApiError:
    return ApiError("TooLarge", f"the body is over payload_limit, {most} bytes")
