"""EmbeddingModel: a model directory composed with tokenizer, batches and session into texts -> vectors."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import hub, machine, manifest
from .engine import Engine
from .errors import FastembedRtError, InvalidInputError, InvalidTypeError
from .manifest import Manifest
from .options import checked_prompts, positive, seconds
from .progress import progress
from .session import Session, choose_variant
from .tokenizer import TextTokenizer, Tokenized, check_iterable, check_texts, check_unicode
from .vectors import chunk_means, normalized, similarity
from .windows import STREAM_TEXTS, TEXTS, Window, windows

Vectors = npt.NDArray[np.float32]
MAX_BATCH_TOKENS = 512  # measured: 256 to 512 are fastest, one thread a batch; more falls out of the caches
MOST_THREADS = 4096  # beyond any machine: a typing error, not a wish
ASYNC_CALLERS = 64  # aencode calls that may wait for vectors at a time
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the order in which sentence-transformers looks


@dataclass(frozen=True)
class EncodeStats:
    """What a model has encoded since it was loaded."""

    texts: int = 0
    tokens: int = 0  # after truncation, special tokens included
    truncated: int = 0  # texts that lost tokens to max_length


class EmbeddingModel:
    """A sentence encoder from a model directory. Safe to use from several threads and after a fork."""

    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        *,
        provider: str = "cpu",
        precision: str | None = None,
        target: str | None = None,
        threads: int | None = None,
        max_length: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        truncate_dim: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncation: str = "truncate",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        check_hashes: bool = True,
        max_wait: float = 0.0,
    ) -> None:
        """Load a model.

        Args:
            path_or_name: a model directory, else a hub repository that holds one.
            provider: cpu, cuda or tensorrt. It runs, or an error says why not: there is no fallback.
            precision: fp32, fp16 or int8; None takes the directory's default variant.
            target: which of the precision's graphs; None takes the one that is fastest under the provider.
            threads: None takes what the process may use: affinity and container quota, not the host's cores.
            max_length: tokens after which texts are cut, special tokens included; None takes the model's own.
            max_batch_tokens: bound on the tokens of a batch, padding included, and so on memory.
            truncate_dim: length of the vectors returned (Matryoshka); cut vectors are normalized again if the
                model normalizes.
            prompts: texts put in front, by name, instead of the model's own.
            default_prompt_name: prompt of `encode` when none is named.
            truncation: what happens to a text over max_length. "truncate" cuts and counts it in `stats`, "warn" also
                warns, "error" raises, "chunk" encodes all of it in pieces of max_length and takes the mean of the
                pieces' vectors (a prompt stands in the first piece only), normalized again if the model normalizes.
            revision: branch, tag or commit on the hub.
            token: hub token; None takes the one that is logged in.
            cache_dir: where hub files are kept; None takes huggingface_hub's own.
            local_files_only: do not ask the hub, take what is in the cache.
            check_hashes: compare the files with the manifest's SHA-256 before the first vector.
            max_wait: seconds that a single text waits for texts of other threads to run with it. At 0 nothing waits,
                and what arrives while another call runs is still gathered into one batch.

        Raises:
            ModelNotFoundError: neither a directory nor a hub repository.
            ModelFormatError, IntegrityError: a directory that cannot be read, or was altered.
            ProviderUnavailableError: the provider does not run here.
            MissingDependencyError: no onnxruntime.
            InvalidInputError: an option that the model cannot have.
        """

        def files(described: Manifest) -> list[str]:
            variant = choose_variant(described, provider=provider, precision=precision, target=target)
            return [described.tokenizer.file, *(record.file for record in variant.files)]

        self.path = hub.resolve_model(
            path_or_name,
            files=files,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        self.manifest = manifest.read(self.path)
        self.variant = choose_variant(self.manifest, provider=provider, precision=precision, target=target)
        self.provider = provider
        self.threads = positive("threads", threads, machine.available_threads(), MOST_THREADS)
        self.max_length = positive("max_length", max_length, self.manifest.max_length, self.manifest.max_positions)
        self.max_batch_tokens = positive("max_batch_tokens", max_batch_tokens, MAX_BATCH_TOKENS)
        self.truncate_dim = truncate_dim if truncate_dim is None else self._dim(truncate_dim)
        self.prompts = dict(self.manifest.prompts) if prompts is None else checked_prompts(prompts)
        self.default_prompt_name = default_prompt_name
        if default_prompt_name is None and prompts is None:
            self.default_prompt_name = self.manifest.default_prompt_name
        if self.default_prompt_name is not None:
            self._prompt(self.default_prompt_name, None)
        self._max_wait = seconds("max_wait", max_wait)
        self._stats = EncodeStats()
        self._closed = False
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._callers: ThreadPoolExecutor | None = None
        with ThreadPoolExecutor(1) as background:
            # Hashing and loading both leave the interpreter lock, so checking costs no time on two cores.
            checked = background.submit(self._check_files) if check_hashes else None
            try:
                self._tokenizer = TextTokenizer(
                    self.path / self.manifest.tokenizer.file,
                    max_length=self.max_length,
                    truncation=truncation,
                    parallel=self.threads >= machine.available_threads(),
                )
                self._engine = self._start()
            except FastembedRtError:
                if checked is not None:
                    checked.result()  # an altered file explains the failure better
                raise
            if checked is not None:
                checked.result()
        _loaded.add(self)

    @property
    def dim(self) -> int:
        """Length of the vectors that `encode` returns."""
        return self.truncate_dim or self.manifest.dim

    @property
    def truncation(self) -> str:
        """Policy for texts over max_length."""
        return self._tokenizer.truncation

    @property
    def stats(self) -> EncodeStats:
        """Texts, tokens and truncated texts since the model was loaded."""
        return self._stats

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        show_progress_bar: bool | None = None,
    ) -> Vectors:
        """Vectors of texts: a str gives (dim,), a list gives (n, dim), float32, in input order.

        Args:
            inputs: one text or several.
            prompt_name: which of `prompts` stands in front; None takes the default prompt, if there is one.
            prompt: a text to put in front, instead of a named one.
            truncate_dim: length of the vectors, instead of the model's.
            normalize: True for unit length; None leaves it to the model; False is refused where the graph normalizes.
            show_progress_bar: a tqdm bar over the texts on stderr.

        Raises:
            InvalidTypeError: something that is not a str.
            InvalidInputError: a lone surrogate, an unknown prompt, a dim that the model does not have.
            TextTooLongError: under truncation="error".
        """
        texts = [inputs] if isinstance(inputs, str) else list(check_iterable(inputs))
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        out = np.empty((len(texts), settings.dim), dtype=np.float32)
        done = 0
        with progress(len(texts), show_progress_bar) as bar:
            for vectors in self._vectors(windows(iter(texts), (TEXTS,)), settings, ahead=True):
                out[done : done + len(vectors)] = vectors
                done += len(vectors)
                bar.update(len(vectors))
        return out[0] if isinstance(inputs, str) else out

    async def aencode(self, inputs: str | Sequence[str], **options: Any) -> Vectors:
        """`encode` for asyncio: the event loop stays free, and calls that wait together are run together.

        A cancelled call gives up its result and disturbs no other.
        """
        import asyncio  # only here: it takes longer to import than this module

        with self._lock:
            if self._callers is None:
                # These threads wait; the engine's own do the work.
                self._callers = ThreadPoolExecutor(ASYNC_CALLERS, thread_name_prefix="fastembed_rt_async")
            callers = self._callers
        return await asyncio.get_running_loop().run_in_executor(callers, partial(self.encode, inputs, **options))

    def encode_query(self, inputs: str | Sequence[str], **options: Any) -> Vectors:
        """`encode` with the prompt "query", when there is one and no other is asked for."""
        return self.encode(inputs, **self._with_prompt(QUERY_PROMPTS, options))

    def encode_document(self, inputs: str | Sequence[str], **options: Any) -> Vectors:
        """`encode` with the prompt "document", "passage" or "corpus", when there is one and no other is asked for."""
        return self.encode(inputs, **self._with_prompt(DOCUMENT_PROMPTS, options))

    def embed(
        self,
        inputs: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
    ) -> Iterator[Vectors]:
        """Vectors (dim,) of any number of texts, one by one and in order, in bounded memory.

        Arguments and errors as for `encode`; an error names the text by its number from the beginning.
        """
        if isinstance(inputs, str):
            raise InvalidTypeError("inputs are one text; pass an iterable of str, or use encode for a single text")
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        return self._stream(check_iterable(inputs), settings)

    def _stream(self, inputs: Iterator[str], settings: _Settings) -> Iterator[Vectors]:
        for vectors in self._vectors(windows(inputs, STREAM_TEXTS), settings, ahead=False):
            yield from vectors

    def similarity(self, left: npt.ArrayLike, right: npt.ArrayLike) -> Vectors:
        """The model's own similarity (cosine, dot, or a negated distance): (n, dim) and (m, dim) -> (n, m) float32."""
        return similarity(self.manifest.similarity, left, right)

    def count_tokens(
        self, inputs: str | Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> Any:
        """Tokens before any cut, special tokens and prompt included: an int for a str, (n,) int64 for a list."""
        texts = check_texts([inputs] if isinstance(inputs, str) else inputs)
        counts = self._tokenizer.count(texts, self._prompt(prompt_name, prompt))
        return int(counts[0]) if isinstance(inputs, str) else counts

    def close(self) -> None:
        """Give the memory and the threads back; further use is an error."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        if self._callers is not None:
            self._callers.shutdown(wait=False)

    def __enter__(self) -> EmbeddingModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"a loaded model has threads and cannot be copied or pickled; load it in each process: "
            f"EmbeddingModel({str(self.path)!r})"
        )

    def __repr__(self) -> str:
        variant = self.variant
        return (
            f"EmbeddingModel({self.manifest.source.checkpoint!r}, dim={self.dim}, max_length={self.max_length}, "
            f"variant={variant.target}/{variant.precision}, provider={self.provider!r}, threads={self.threads})"
        )

    def _vectors(self, pieces: Iterator[Window], settings: _Settings, *, ahead: bool) -> Iterator[Vectors]:
        """Finished vectors of each window; the next window is tokenized while one runs, the second only if `ahead`."""
        engine = self._running()
        window = next(pieces, None)
        tokenized = None if window is None else self._tokenize(window, settings)
        while tokenized is not None:
            following = next(pieces, None) if ahead else None
            left_out = np.where(tokenized.begins, settings.prompt_tokens, 0)
            coming: Future[Tokenized] | None = None
            if following is None and engine.is_small(tokenized.lengths):
                vectors = engine.run_small(tokenized.ids, left_out)
            else:
                running = engine.submit(tokenized.ids, left_out)
                if following is not None:
                    # Behind the batches in the same queue: it begins when a thread has nothing else to do.
                    coming = engine.background(self._tokenize, following, settings)
                vectors = engine.collect(running)
            yield self._finish(tokenized, vectors, settings)
            if self._engine is not engine:  # closed, or this is the child of a fork, where nothing is coming any more
                engine, coming = self._running(), None
            if not ahead:
                following, ahead = next(pieces, None), True
            if coming is not None:
                tokenized = coming.result()
            else:
                tokenized = None if following is None else self._tokenize(following, settings)

    def _tokenize(self, window: Window, settings: _Settings) -> Tokenized:
        return self._tokenizer(window.texts, settings.prompt, window.first)

    def _finish(self, tokenized: Tokenized, vectors: Vectors, settings: _Settings) -> Vectors:
        tokenized.report()
        with self._lock:
            old = self._stats
            self._stats = EncodeStats(
                old.texts + tokenized.texts,
                old.tokens + int(tokenized.lengths.sum()),
                old.truncated + tokenized.truncated,
            )
        return settings.finish(chunk_means(vectors, tokenized.owner, tokenized.texts, again=self.manifest.normalize))

    def _settings(
        self, prompt_name: str | None, prompt: str | None, truncate_dim: int | None, normalize: bool | None
    ) -> _Settings:
        if normalize is False and self.manifest.normalize:
            raise InvalidInputError(
                "normalize=False is not possible: this model normalizes in its graph; "
                "export the checkpoint with --no-normalize"
            )
        if self._closed:
            raise InvalidInputError("the model is closed; load it again")
        text = self._prompt(prompt_name, prompt)
        left_out = 0 if self.manifest.include_prompt or not text else self._tokenizer.prompt_tokens(text)
        return _Settings(
            prompt=text,
            prompt_tokens=left_out,
            dim=self.dim if truncate_dim is None else self._dim(truncate_dim),
            normalize=self.manifest.normalize if normalize is None else normalize,
            normalized_already=self.manifest.normalize,
        )

    def _prompt(self, name: str | None, text: str | None) -> str:
        if text is not None:
            if name is not None:
                raise InvalidInputError(f"prompt and prompt_name {name!r} are both given; pass one of them")
            if not isinstance(text, str):
                raise InvalidTypeError(f"prompt is {type(text).__name__}, expected str")
            check_unicode(text, "prompt")
            return text
        name = name if name is not None else self.default_prompt_name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.prompts:
            known = f"it has {', '.join(sorted(self.prompts))}" if self.prompts else "it has none"
            raise InvalidInputError(f"the model has no prompt {name!r}; {known}; pass prompt=TEXT for another")
        return self.prompts[name]

    def _with_prompt(self, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        if options.get("prompt_name") is None and options.get("prompt") is None:
            found = next((name for name in names if name in self.prompts), None)
            # Without such a prompt: none at all, not the default one, which is for plain `encode`.
            return {**options, **({"prompt_name": found} if found else {"prompt": ""})}
        return options

    def _dim(self, wanted: int) -> int:
        return positive("truncate_dim", wanted, self.manifest.dim, self.manifest.dim)

    def _check_files(self) -> None:
        for record in (*self.variant.files, self.manifest.tokenizer):
            manifest.check_file(self.path, record)

    def _running(self) -> Engine:
        engine = self._engine
        if engine is None:
            with self._lock:
                if self._closed:
                    raise InvalidInputError("the model is closed; load it again")
                if self._engine is None:
                    self._engine = self._start()
                engine = self._engine
        return engine

    def _start(self) -> Engine:
        return Engine(
            lambda threads: Session(self.path, self.variant, provider=self.provider, threads=threads),
            threads=self.threads,
            dim=self.manifest.dim,
            pad_token_id=self.manifest.pad_token_id,
            max_batch_tokens=self.max_batch_tokens,
            max_wait=self._max_wait,
        )

    def _after_fork(self) -> None:
        """In a child: threads did not come along, so neither the engine nor a held lock can be used."""
        if self._engine is not None:
            _never_destroy(self._engine)
        self._engine = None
        self._callers = None
        self._lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """One call's options, resolved."""

    prompt: str
    prompt_tokens: int
    dim: int
    normalize: bool
    normalized_already: bool

    def finish(self, vectors: Vectors) -> Vectors:
        """Cut and normalize, where the graph has not done so."""
        cut = self.dim < vectors.shape[1]
        vectors = vectors[:, : self.dim]
        return normalized(vectors) if self.normalize and (cut or not self.normalized_already) else vectors


_loaded: weakref.WeakSet[EmbeddingModel] = weakref.WeakSet()


def _never_destroy(engine: Engine) -> None:
    """Keep an engine beyond the interpreter's end: destroying its sessions would wait for threads that do not exist."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    for session in engine.sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session.native))


def _after_fork() -> None:
    if _loaded:
        # The tokenizers' thread pool did not survive either: whoever waits for it waits for good.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for model in list(_loaded):
        model._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
