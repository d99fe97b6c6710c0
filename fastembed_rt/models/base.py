"""What models of every task share: a model directory opened, checked, loaded; texts through it; threads let go.

Knows no task: what is tokenized and what becomes of a graph's output, each task says itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, SupportsIndex, Unpack

from .. import machine
from ..errors import FastembedRtError, InvalidInputError
from ..files import Identity
from ..manifest import RERANKING, Manifest, Variant
from ..run import batching
from ..run.contract import Runner, Running, Split
from ..run.providers import AUTO, PROVIDERS
from ..system.threads import CLOSED, Workers, aside
from ..text.chat import Chat
from ..text.tokenizer import TextTokenizer
from . import forks, travel
from .fixed import Chosen, Fixed, check_assigned
from .opening import MOST_THREADS, Source, check_task, chosen_provider, chosen_variant, of_route
from .opening import opened as find
from .options import check_device_ids, positive, seconds
from .passing import Passing
from .prompts import Prompts
from .shared import Arrival, Shared
from .starting import start
from .stats import Counter, EncodeStats

if TYPE_CHECKING:
    from .checkpoint import CheckpointOptions

MAX_BATCH_TOKENS = PROVIDERS["cpu"].batch_tokens
ASYNC_CALLERS = 64  # asynchronous calls that may wait for results at a time
BatchTokens = Callable[[Manifest], int]


class LoadedModel(Passing):
    """A model directory with tokenizer, sessions and threads. Safe to use from several threads and after a fork."""

    task: ClassVar[str]
    path: Fixed[Path] = Fixed()
    manifest: Fixed[Manifest] = Fixed()
    variant: Fixed[Variant] = Fixed("precision= or target")
    provider: Fixed[str] = Fixed("provider")
    threads: Fixed[int] = Fixed("threads")
    device_ids: Fixed[tuple[int, ...]] = Fixed("device_ids")
    max_batch_tokens: Fixed[int] = Fixed("max_batch_tokens")
    _prompts: Prompts
    # (source, arrival, **settings): what the constructor does, with settings as `_settings_now` gives them.
    _set_up: Callable[..., None]
    _output: ClassVar[str] = ""  # of the graph; "": the task's
    _own: frozenset[str] = frozenset()  # names of what an object has from this class, not from a user's below it

    def __init__(
        self, source: Source, arrival: Arrival | None = None, *, batch_tokens: BatchTokens | None = None
    ) -> None:
        """Find the directory and choose what runs; `_load` loads it.

        `arrival` is what another model has opened, of which this is a copy or a route; `batch_tokens` gives
        max_batch_tokens where the caller names none, instead of the provider's.

        Raises:
            ModelNotFoundError, ModelFormatError, IntegrityError: no directory, or one that cannot be read.
            InvalidInputError: a model of another task; an option that the model cannot have.
        """
        self._source = source
        self._opened = find(source, self.task) if arrival is None else arrival.opened
        self._shared = Shared() if arrival is None else arrival.shared
        self._shared.opened = self._opened
        self._shared.users.add(self)
        self._longest = 1 if arrival is None or arrival.longest is None else arrival.longest
        whole, self._files = self._opened.whole, self._opened.files
        self.path = self._opened.path
        check_task(whole, self.task, str(self.path))
        self.manifest = of_route(whole, source.route)
        self._route = source.route
        self._choice = chosen_provider(self.manifest, source)
        self.provider = self._choice.provider
        self.variant = self._chosen(source)
        self.threads = positive("threads", source.threads, machine.available_threads(), MOST_THREADS)
        fitting = PROVIDERS[self.provider].batch_tokens if batch_tokens is None else batch_tokens(self.manifest)
        self.max_batch_tokens = positive("max_batch_tokens", source.max_batch_tokens, fitting)
        self._measured = source.max_batch_tokens is None and batch_tokens is None
        self._max_wait = seconds("max_wait", source.max_wait)
        self.device_ids = check_device_ids(source.device_ids)
        self._check_hashes = source.check_hashes
        self._counter = Counter()
        self._started: tuple[int, Running] = (0, [])  # texts and batches of the last large call
        self._closed = False
        self._engine: Runner | None = None
        self._callers = Workers(ASYNC_CALLERS, "fastembed_rt_async")  # they wait; the engine's own do the work

    @classmethod
    def from_checkpoint(cls, name_or_path: str | os.PathLike[str], **options: Unpack[CheckpointOptions]) -> Self:
        """A model from its checkpoint: exported into the cache when that was not done before, then loaded.

        A checkpoint that has changed since is exported again. A model directory, or a hub repository that holds one, is
        loaded as it is. Processes that want the same export wait for the first; `fastembed-rt cache` lists and clears.

        Args:
            name_or_path: a checkpoint's directory or hub repository.
            **options: of the constructor, and of the export:
                precision: fp32, fp16, bf16, fp8 or int8, exported and loaded; None takes fp32, on GPUs fp16.
                provider: decides with `target` what the graphs are made for.
                pooling: instead of the checkpoint's: cls, max, mean, mean_sqrt_len, weightedmean, lasttoken, or several
                    joined by +.
                normalize: instead of the checkpoint's.
                adapter: one of a checkpoint that holds several, or "query=ONE,document=ANOTHER".
                tokens: graphs of token states too, for output="tokens" and encode_spans.
                calibration: a file or directory of texts for int8 instead of those that ship.
                min_cosine: floor for int8 vectors, below which int8 is refused; None takes 0.98.
                exporter: builder, optimum, or auto: trace what has no builder.
                trust_remote_code: compare with code of the checkpoint's own, which runs then.
                verify: compare with the reference where torch and sentence-transformers are installed.
                show_progress: lines on stderr while it exports; None: where that is a terminal.

        Raises:
            MissingDependencyError: it has to be exported, and fastembed-rt[export] is not installed.
            CheckpointError, UnsupportedCheckpointError: a checkpoint that cannot be exported.
            ParityError: its vectors differ from the reference.
            InvalidInputError: a checkpoint of another task; an option that is not possible.
            ModelNotFoundError and others: as the constructor.
        """
        from .checkpoint import from_checkpoint  # what is loaded from directories does without

        return from_checkpoint(cls, name_or_path, options)

    def _complete(self) -> None:
        """All that an object has of this class is there; what comes is a subclass's."""
        self._own = frozenset({*vars(self), "_own"})

    def _chosen(self, source: Source) -> Variant:
        """The graph that runs."""
        return chosen_variant(self.manifest, source)

    @Chosen
    def precision(self) -> str:
        """Of the graph that runs: fp32, fp16, bf16, fp8 or int8."""
        return self.variant.precision

    @Chosen
    def target(self) -> str:
        """Of the graph that runs: native, cpu, portable, cuda-native, cuda or tensorrt."""
        return self.variant.target

    @property
    def provider_choice(self) -> str:
        """Why this provider runs: asked for, or what "auto" took and what it passed over."""
        return self._choice.why

    def _load(self, max_length: int, truncation: str, longest: int | None = None) -> TextTokenizer:
        """Start the engine and check the hashes meanwhile; the tokenizer with this limit and policy.

        `longest` is what the longest text may have in tokens, where that is more than `max_length`.
        """
        self._longest = max(self._longest, max_length if longest is None else longest)
        shared = self._shared
        # Both on threads that nothing interrupts: what fails there is the model's fault and no one's time limit.
        checked = aside(self._check_files) if self._check_hashes and not shared.checked else None
        starting = shared.starting(self._start)
        if not starting.finished:
            # Both leave the interpreter lock once they have begun. Reading the tokenizer keeps it to the end.
            time.sleep(0.001)
        try:
            read = partial(self._read_tokenizer, max_length, truncation)
            tokenizer = shared.tokenizer((max_length, truncation), read)
            self._engine = starting.result()
        except FastembedRtError:
            if checked is not None:
                checked.result()  # an altered file explains the failure better
            raise
        finally:
            shared.failed()
        if checked is not None:
            checked.result()
            shared.checked = True
        self._announce()
        forks.watch(self)
        return tokenizer

    def _announce(self) -> None:
        """Let copies of this model find what it has."""
        travel.announce(self)

    def _read_tokenizer(self, max_length: int, truncation: str) -> TextTokenizer:
        name, about = self.manifest.tokenizer.file, self.manifest.reranking
        chat = None if about is None else about.chat
        return TextTokenizer(
            self.path / name,
            max_length=max_length,
            truncation=truncation,
            truncation_side=self.manifest.truncation_side,
            parallel=self.threads >= machine.available_threads(),
            of_pairs=self.task == RERANKING and chat is None,
            read=partial(self._files.read, name),
            vocabulary=self.manifest.vocabulary,
            chat=None if chat is None else Chat(chat),
        )

    def _new_limit(self, name: str, wanted: int, default: int) -> int:
        """A limit in tokens that is assigned to a loaded model, checked."""
        value = positive(name, wanted, default, self.manifest.max_positions)
        if value > self._longest:
            if self.provider == "tensorrt":
                raise InvalidInputError(
                    f"{name} {value} is not possible: the engines were built for {self._longest} tokens; "
                    f"load the model again with {name}={value}"
                )
            self._longest = value
        return value

    @property
    def stats(self) -> EncodeStats:
        """Texts, tokens and truncated texts since the model was loaded."""
        return self._counter.total()

    def _texts_now(self) -> int:
        """Texts of `stats`, and those of the last large call that are done while it runs; for who watches it."""
        texts, running = self._started
        batches = list(running)  # it is emptied when the call has its results, and then counted
        rows = sum(len(batch) for batch, _ in batches)
        done = sum(len(batch) for batch, promise in batches if promise.finished)
        return self.stats.texts + (texts * done // rows if rows else 0)

    @property
    def prompts(self) -> dict[str, str]:
        """Texts to put in front, by name."""
        return self._prompts.by_name

    @prompts.setter
    def prompts(self, prompts: Mapping[str, str]) -> None:
        self._prompts = Prompts(self.manifest, prompts, self._prompts.default)
        self._pass_on_prompts()

    def _pass_on_prompts(self) -> None:
        """Prompts or a default one were assigned: encoders of other roles, where there are any, have them too."""

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt when none is named."""
        return self._prompts.default

    @default_prompt_name.setter
    def default_prompt_name(self, name: str | None) -> None:
        self._prompts = Prompts(self.manifest, self._prompts.by_name, name)
        self._pass_on_prompts()

    def close(self) -> None:
        """Give the memory and the threads back; further use is an error."""
        self._closed = True
        engine, self._engine = self._engine, None
        self._shared.leave(self, engine)
        self._callers.close()

    def __setattr__(self, name: str, value: Any) -> None:
        check_assigned(type(self), name)
        super().__setattr__(name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """A model is pickled and copied as what opens it again: its path, options, fingerprint and settings."""
        return travel.reduced(self)

    def _settings_now(self) -> dict[str, Any]:
        """What may have been assigned since the model was loaded, and what no other model shares."""
        raise NotImplementedError

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

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInputError(CLOSED)

    def _check_files(self) -> None:
        for record in (*self.variant.files, self.manifest.tokenizer):
            self._files.check(record.file)

    def _identities(self) -> dict[str, Identity]:
        """What tells the files that run from others of the same names, for the processes of devices."""
        records = (*self.variant.files, self.manifest.tokenizer)
        return {record.file: self._files.identity(record.file) for record in records}

    def _running(self) -> Runner:
        engine = self._engine
        if engine is None:
            self._check_open()
            engine = self._shared.engine(self._start)
            self._engine = engine
            if self._closed:  # meanwhile
                self.close()
                self._check_open()
        return engine

    def _start(self) -> Runner:
        return start(self)

    def _limits(self) -> dict[str, int]:
        """Options with which a device's model takes the longest text."""
        return {"max_length": self._longest}

    @staticmethod
    def _feeds(
        rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
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
        self._callers = Workers(ASYNC_CALLERS, "fastembed_rt_async")


class WithMaxLength(LoadedModel):
    """A model with one limit for all its texts."""

    _max_length: int
    _tokenizer: TextTokenizer

    @property
    def max_length(self) -> int:
        """Tokens after which inputs are cut, special tokens included. Assigned to, it holds for the calls to come."""
        return self._max_length

    @max_length.setter
    def max_length(self, wanted: int) -> None:
        self._limit(wanted)

    def _limit(self, wanted: int) -> None:
        value = self._new_limit("max_length", wanted, self.manifest.max_length)
        self._tokenizer = self._tokenizer.with_max_length(value)
        self._max_length = value
