"""Texts through a model's engine: windows one after the other, a few texts by a shorter way, calls for asyncio.

Knows neither directories nor tasks: what is tokenized and what becomes of a graph's output, a `Work` says.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from ..run.contract import Rows, Runner, Running
from ..system.progress import NoBar
from ..system.threads import CURRENT, Call, GivenUpError, Task, Workers
from ..text.inputs import check_texts
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import Window, few_tokens
from .stats import Counter
from .work import Prepared, Work, show

T = TypeVar("T")


class Passing:
    """What has an engine, and threads for calls that wait."""

    _engine: Runner | None
    _callers: Workers
    _counter: Counter
    _started: tuple[int, Running]  # texts and batches of the last large call

    def _running(self) -> Runner:
        """The engine, started if need be."""
        raise NotImplementedError

    def _check_open(self) -> None:
        """Raise InvalidInputError once it is closed."""
        raise NotImplementedError

    async def _aside(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Run a call on a thread of its own, so that the event loop stays free; calls that wait run together.

        Cancelled, it stops at the next batch.
        """
        import asyncio  # only here: it takes longer to import than this module

        loop = asyncio.get_running_loop()
        coming = loop.create_future()
        call = Call()
        context = contextvars.copy_context()
        context.run(CURRENT.set, call)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(lambda: None if coming.done() else coming.set_result(None))

        self._check_open()
        task = self._callers.start(Task(context.run, partial(function, *arguments, **options), call=call, then=tell))
        try:
            await coming
        except BaseException:
            call.given_up = True
            raise
        made: T = task.result()
        return made

    def _work(self, pieces: Iterator[Window], work: Work[T], *, ahead: bool, bar: NoBar | None = None) -> Iterator[T]:
        """Finished results of each window; the next window is tokenized while one runs, the second only if `ahead`.

        `bar` is told of each batch; of a window that is done, by the caller.
        """
        outer = CURRENT.get()
        call = Call() if outer is None else outer
        engine = self._running()
        try:
            window = next(pieces, None)
            if ahead and window is not None and (tokens := few_tokens(window.texts, engine.limits.tokens)) is not None:
                yield self._run_few(window, tokens, work, engine)
                window = next(pieces, None)  # nearly always it was all
            tokenized = None if window is None else work.tokenize(window)
            while tokenized is not None:
                if call.given_up:
                    raise GivenUpError
                following = next(pieces, None) if ahead else None
                boundaries = work.boundaries(tokenized)
                coming: Task[Tokenized] | None = None
                if following is None and engine.is_small(tokenized.ids):
                    results = engine.run_small(tokenized.ids, boundaries)
                else:
                    running = engine.submit(tokenized.ids, boundaries, call)
                    if following is not None:
                        # Behind the batches in the same queue: it begins when a thread has nothing else to do.
                        coming = engine.background(call, work.tokenize, following)
                    self._started = (tokenized.texts, running)
                    show(running, tokenized.texts, bar)
                    results = engine.collect(running)
                tokenized.report()
                self._counter.add(tokenized)
                yield work.finish(tokenized, results)
                if self._engine is not engine:  # closed, or this is a fork's child, where nothing is coming any more
                    engine, coming = self._running(), None
                if not ahead:
                    following, ahead = next(pieces, None), True
                if coming is not None:
                    tokenized = coming.result()
                else:
                    tokenized = None if following is None else work.tokenize(following)
        finally:
            if outer is None:
                call.given_up = True  # whatever of it still waits is not begun

    def _few(self, inputs: Sequence[Any], work: Work[T]) -> T | None:
        """Finished results of a call of a few texts, by a shorter way than `_work`; None where they are more."""
        engine = self._running()
        tokens = few_tokens(inputs, engine.limits.tokens) if inputs else None
        return None if tokens is None else self._run_few(Window(check_texts(inputs), 0), tokens, work, engine)

    def _run_few(self, window: Window, tokens: int, work: Work[T], engine: Runner) -> T:
        """Finished results of a call that is one window of about so many tokens.

        It is tokenized where it runs, so that calls that wait meanwhile cost little before they do.
        """
        made: list[Tokenized] = []

        def make(alone: bool) -> Rows:
            if not alone:
                window.parallel = False
            tokenized = work.tokenize(window)
            made.append(tokenized)
            return tokenized.ids, work.boundaries(tokenized)

        results = engine.run_few(tokens, make)
        (tokenized,) = made
        tokenized.report()
        self._counter.add(tokenized)
        return work.finish(tokenized, results)

    def _one_by_one(self, pieces: Iterator[Window], work: Work[Iterable[T]]) -> Iterator[T]:
        for found in self._work(pieces, work, ahead=False):
            yield from found

    def _prepared(self, work: Work[T], tokenizer: TextTokenizer, prompt: str) -> Prepared[T]:
        return Prepared(work, tokenizer, prompt, self._running(), self._counter.add)
