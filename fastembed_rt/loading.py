"""What models of every task share: a model directory opened, checked, loaded; texts through it; threads let go.

Knows no task: what is tokenized and what becomes of a graph's output, each task says itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, Self, SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt

from . import batching, forks, hub, machine, manifest
from .engine import Engine, Split
from .errors import FastembedRtError, InvalidInputError, InvalidTypeError
from .manifest import CLASSES, OUTPUTS, RERANKING, ROLES, Manifest
from .options import check_device_ids, checked_prompts, positive, seconds
from .providers import AUTO, PROVIDERS, Choice, choose
from .session import choose_variant, open_session
from .tokenizer import TextTokenizer, Tokenized, check_unicode
from .windows import Window

MAX_BATCH_TOKENS = PROVIDERS["cpu"].batch_tokens
MOST_THREADS = 4096  # beyond any machine: a typing error, not a wish
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the order in which sentence-transformers looks
ASYNC_CALLERS = 64  # asynchronous calls that may wait for results at a time
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class EncodeStats:
    """What a model has encoded since it was loaded."""

    texts: int = 0
    tokens: int = 0  # after truncation, special tokens included
    truncated: int = 0  # texts that lost tokens to max_length


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model is and how it is to run, as callers say it; see EmbeddingModel for each."""

    path_or_name: str | os.PathLike[str]
    provider: str = "cpu"
    precision: str | None = None
    target: str | None = None
    threads: int | None = None
    max_batch_tokens: int | None = None
    max_wait: float = 0.0
    device_ids: Sequence[int] | None = None
    check_hashes: bool = True
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    route: str | None = None  # "query" or "document": the encoder of those texts, where they have one of their own


class Work(Protocol[T_co]):
    """One call's texts on their way through the model."""

    def tokenize(self, window: Window) -> Tokenized:
        """Token ids of some texts."""

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        """(rows,) tokens at the beginning of each row that are told from the rest, as the model's feeds take them."""

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> T_co:
        """What the caller gets for those texts."""


class LoadedModel:
    """A model directory with tokenizer, sessions and threads. Safe to use from several threads and after a fork."""

    task: ClassVar[str]
    _prompts: Prompts

    def __init__(self, source: Source) -> None:
        """Find the directory and choose what runs; `_load` loads it.

        Raises:
            ModelNotFoundError, ModelFormatError, IntegrityError: no directory, or one that cannot be read.
            InvalidInputError: a model of another task; an option that the model cannot have.
        """

        def files(described: Manifest) -> list[str]:
            check_task(described, self.task, str(source.path_or_name))  # before anything large is fetched
            found = _of_route(described, source.route)
            wanted = [found] if source.route is not None else [found, *found.routes.values()]
            return [
                file
                for encoder in wanted
                for file in (
                    encoder.tokenizer.file,
                    *(record.file for record in self._choose(encoder, source).files),
                )
            ]

        self.path = hub.resolve_model(
            source.path_or_name,
            files=files,
            revision=source.revision,
            token=source.token,
            cache_dir=source.cache_dir,
            local_files_only=source.local_files_only,
        )
        whole = manifest.read(self.path)
        check_task(whole, self.task, str(self.path))
        self.manifest = _of_route(whole, source.route)
        self._route = source.route
        self._choice = self._choose_provider(self.manifest, source)
        self.provider = self._choice.provider
        self.variant = self._choose(self.manifest, source)
        self.threads = positive("threads", source.threads, machine.available_threads(), MOST_THREADS)
        row = PROVIDERS[self.provider]
        self.max_batch_tokens = positive("max_batch_tokens", source.max_batch_tokens, row.batch_tokens)
        self._max_wait = seconds("max_wait", source.max_wait)
        self.device_ids = check_device_ids(source.device_ids)
        self._check_hashes = source.check_hashes
        self._stats = EncodeStats()
        self._closed = False
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._callers: ThreadPoolExecutor | None = None

    @classmethod
    def _choose(cls, described: Manifest, source: Source) -> manifest.Variant:
        provider = cls._choose_provider(described, source).provider
        return choose_variant(described, provider=provider, precision=source.precision, target=source.target)

    @staticmethod
    def _choose_provider(described: Manifest, source: Source) -> Choice:
        return choose_provider(described, source.provider, source.precision, source.target)

    @property
    def provider_choice(self) -> str:
        """Why this provider runs: asked for, or what "auto" took and what it passed over."""
        return self._choice.why

    def _load(self, max_length: int, truncation: str) -> TextTokenizer:
        """Start the engine and check the hashes meanwhile; the tokenizer with this limit and policy."""
        self._longest = max_length
        with ThreadPoolExecutor(1) as background:
            # Hashing and loading both leave the interpreter lock, so checking costs no time on two cores.
            checked = background.submit(self._check_files) if self._check_hashes else None
            try:
                tokenizer = self._read_tokenizer(max_length, truncation)
                self._engine = self._start()
            except FastembedRtError:
                if checked is not None:
                    checked.result()  # an altered file explains the failure better
                raise
            if checked is not None:
                checked.result()
        forks.watch(self)
        return tokenizer

    def _read_tokenizer(self, max_length: int, truncation: str) -> TextTokenizer:
        return TextTokenizer(
            self.path / self.manifest.tokenizer.file,
            max_length=max_length,
            truncation=truncation,
            truncation_side=self.manifest.truncation_side,
            parallel=self.threads >= machine.available_threads(),
            of_pairs=self.task == RERANKING,
        )

    @property
    def stats(self) -> EncodeStats:
        """Texts, tokens and truncated texts since the model was loaded."""
        return self._stats

    @property
    def prompts(self) -> dict[str, str]:
        """Texts to put in front, by name."""
        return self._prompts.by_name

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt when none is named."""
        return self._prompts.default

    def close(self) -> None:
        """Give the memory and the threads back; further use is an error."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        if self._callers is not None:
            self._callers.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"a loaded model has threads and cannot be copied or pickled; load it in each process: "
            f"{type(self).__name__}({str(self.path)!r})"
        )

    def __repr__(self) -> str:
        variant = self.variant
        auto = f" ({AUTO})" if self._choice.automatic else ""
        return (
            f"{type(self).__name__}({self.manifest.source.checkpoint!r}, {self._facts()}, "
            f"variant={variant.target}/{variant.precision}, provider={self.provider!r}{auto}, threads={self.threads})"
        )

    def _facts(self) -> str:
        """What `repr` says of the model itself."""
        return f"dim={self.manifest.dim}, max_length={self.manifest.max_length}"

    async def _aside(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Run a call on a thread of its own, so that the event loop stays free; calls that wait run together."""
        import asyncio  # only here: it takes longer to import than this module

        with self._lock:
            if self._callers is None:
                # These threads wait; the engine's own do the work.
                self._callers = ThreadPoolExecutor(ASYNC_CALLERS, thread_name_prefix="fastembed_rt_async")
            callers = self._callers
        return await asyncio.get_running_loop().run_in_executor(callers, partial(function, *arguments, **options))

    def _work(self, pieces: Iterator[Window], work: Work[T], *, ahead: bool) -> Iterator[T]:
        """Finished results of each window; the next window is tokenized while one runs, the second only if `ahead`."""
        engine = self._running()
        window = next(pieces, None)
        tokenized = None if window is None else work.tokenize(window)
        while tokenized is not None:
            following = next(pieces, None) if ahead else None
            boundaries = work.boundaries(tokenized)
            coming: Future[Tokenized] | None = None
            if following is None and engine.is_small(tokenized.ids):
                results = engine.run_small(tokenized.ids, boundaries)
            else:
                running = engine.submit(tokenized.ids, boundaries)
                if following is not None:
                    # Behind the batches in the same queue: it begins when a thread has nothing else to do.
                    coming = engine.background(work.tokenize, following)
                results = engine.collect(running)
            tokenized.report()
            self._count(tokenized)
            yield work.finish(tokenized, results)
            if self._engine is not engine:  # closed, or this is the child of a fork, where nothing is coming any more
                engine, coming = self._running(), None
            if not ahead:
                following, ahead = next(pieces, None), True
            if coming is not None:
                tokenized = coming.result()
            else:
                tokenized = None if following is None else work.tokenize(following)

    def _count(self, tokenized: Tokenized) -> None:
        with self._lock:
            old = self._stats
            self._stats = EncodeStats(
                old.texts + tokenized.texts,
                old.tokens + tokenized.tokens,
                old.truncated + tokenized.truncated,
            )

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInputError("the model is closed; load it again")

    def _check_files(self) -> None:
        for record in (*self.variant.files, self.manifest.tokenizer):
            manifest.check_file(self.path, record)

    def _running(self) -> Engine:
        engine = self._engine
        if engine is None:
            with self._lock:
                self._check_open()
                if self._engine is None:
                    self._engine = self._start()
                engine = self._engine
        return engine

    def _start(self) -> Engine:
        if len(self.device_ids) > 1:
            return self._start_devices()
        return Engine(
            lambda threads: open_session(
                self.path,
                self.variant,
                provider=self.provider,
                threads=threads,
                output=OUTPUTS[self.task],
                device=0 if self.provider == "cpu" else self.device_ids[0],
                longest=self._longest,
                batch_tokens=self.max_batch_tokens,
            ),
            threads=self.threads,
            dim=self.manifest.dim,
            pad_token_id=self.manifest.pad_token_id,
            max_batch_tokens=self.max_batch_tokens,
            max_wait=self._max_wait,
            feeds=self._feeds,
            split=self._splitter(),
            mixed_lengths=self.manifest.padding,
        )

    def _start_devices(self) -> Engine:
        """A process for each device."""
        from .devices import DeviceEngine  # only here: one device needs none of it

        variant = self.variant
        options = {
            "provider": self.provider,
            "precision": variant.precision,
            "target": variant.target,
            "threads": max(self.threads // len(self.device_ids), 1),
            "max_length": self._longest,
            "max_batch_tokens": self.max_batch_tokens,
            "check_hashes": False,  # this process checks them
            **({"route": self._route} if self._route is not None else {}),
        }
        kind = type(self)
        return DeviceEngine(
            {"module": kind.__module__, "name": kind.__qualname__, "path": str(self.path), "options": options},
            self.device_ids,
            threads=self.threads,
            dim=self.manifest.dim,
            max_batch_tokens=self.max_batch_tokens,
            split=self._splitter(),
        )

    def _feeds(
        self, rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
    ) -> batching.Feeds:
        """What the graph takes for a batch."""
        return batching.feeds(rows, inputs, pad_token_id, boundaries)

    def _splitter(self) -> Split | None:
        """An object for each row of a batch, made of the graph's output; None where the output has a row for each."""
        return None

    def after_fork(self) -> None:
        """In a child: threads did not come along, so neither the engine nor a held lock can be used."""
        if self._engine is not None:
            forks.never_destroy(self._engine)
        self._engine = None
        self._callers = None
        self._lock = threading.Lock()


class Prompts:
    """A model's prompts by name, and the one that stands in front when none is named."""

    def __init__(self, described: Manifest, prompts: object, default: str | None) -> None:
        """The manifest's, or the caller's instead.

        Raises:
            InvalidInputError: prompts that are not texts by name, a default that is not one of them.
        """
        self.by_name = dict(described.prompts) if prompts is None else checked_prompts(prompts)  # type: ignore[arg-type]
        self.default = described.default_prompt_name if default is None and prompts is None else default
        if self.default is not None:
            self.text(self.default, None)

    def text(self, name: str | None, text: str | None) -> str:
        """The prompt of a call that named one, gave one, or did neither.

        Raises:
            InvalidInputError: both at once, or a name that the model does not have.
        """
        if text is not None:
            if name is not None:
                raise InvalidInputError(f"prompt and prompt_name {name!r} are both given; pass one of them")
            if not isinstance(text, str):
                raise InvalidTypeError(f"prompt is {type(text).__name__}, expected str")
            check_unicode(text, "prompt")
            return text
        name = name if name is not None else self.default
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.by_name:
            known = f"it has {', '.join(sorted(self.by_name))}" if self.by_name else "it has none"
            raise InvalidInputError(f"the model has no prompt {name!r}; {known}; pass prompt=TEXT for another")
        return self.by_name[name]

    def for_role(self, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        """A call's options with the first of the prompts `names` that there is, unless they have one already.

        Without such a prompt: none at all, not the default one, which is for plain `encode`.
        """
        if options.get("prompt_name") is not None or options.get("prompt") is not None:
            return options
        found = next((name for name in names if name in self.by_name), None)
        return {**options, **({"prompt_name": found} if found else {"prompt": ""})}


def _of_route(described: Manifest, role: str | None) -> Manifest:
    """What is said of the encoder for texts in this role, which is the only one of many models."""
    if role is None:
        return described
    if role not in ROLES:
        raise InvalidInputError(f"route {role!r} is not known; known: {', '.join(ROLES)}")
    # On its own, also where it is the default one: its prompts and vectors are those of its role alone.
    return described.routes.get(role, replace(described, routes={}))


def choose_provider(
    described: Manifest, provider: str, precision: str | None = None, target: str | None = None
) -> Choice:
    """The provider asked for, or what "auto" takes for this model."""

    def unsuited(name: str) -> str | None:
        try:
            choose_variant(described, provider=name, precision=precision, target=target)
        except FastembedRtError as error:
            return str(error).partition(";")[0]
        return None

    return choose(provider, unsuited)


def check_task(described: Manifest, wanted: str, where: str | Path) -> None:
    """Raise InvalidInputError where a model directory is for another class than the one that opens it."""
    if described.task != wanted:
        raise InvalidInputError(
            f"{where} holds a model for {described.task}; open it with fastembed_rt.{CLASSES[described.task]}, "
            f"not {CLASSES[wanted]}"
        )
