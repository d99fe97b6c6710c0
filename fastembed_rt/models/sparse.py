"""SparseModel: a SPLADE encoder from a model directory; texts in, weights of words out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, InvalidTypeError
from ..manifest import SPARSE
from ..run import batching
from ..run.contract import Split
from ..system.progress import NoBar
from ..system.threads import CURRENT, GivenUpError
from ..text.columns import Texts
from ..text.inputs import check_iterable
from ..text.tokenizer import TRUNCATIONS, Tokenized
from ..text.windows import ERROR, STREAM_TEXTS, Window, windows
from ..vectors.sparse import SparseVector, similarity, sparse_rows
from .answers import answered
from .base import LoadedModel
from .extras import asked, lists
from .opening import LoadOptions, Source, documented
from .options import all_texts, flag, optional_flag, positive
from .prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, Prompts
from .roles import Given, WithRoles
from .shared import Arrival
from .work import Prepared, Work

__all__ = ["SparseModel", "SparseVector"]
# Tokens x vocabulary of a batch, which the graph goes through in pieces, and texts x vocabulary, which it gives.
MOST_WEIGHTS = 8_000_000
FEWEST_TOKENS, MOST_TOKENS = 64, 512
T = TypeVar("T")


class SparseModel(WithRoles):
    """A sparse encoder from a model directory. Safe to use from several threads and after a fork."""

    task = SPARSE

    @documented
    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        *,
        max_length: int | None = None,
        max_active_dims: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncation: str = "truncate",
        route: str | None = None,
        **options: Unpack[LoadOptions],
    ) -> None:
        """Load a sparse encoder.

        Args:
            path_or_name: a model directory, else a hub repository that holds one.
            max_length: tokens after which texts are cut, special tokens included; None takes the model's own.
            max_active_dims: words kept of each vector, the heaviest; None takes the model's own, which may be all.
            prompts: texts put in front, by name, instead of the model's own.
            default_prompt_name: prompt of `encode` when none is named.
            truncation: "truncate" cuts and counts in `stats`, "warn" also warns, "error" raises.
            route: "query" or "document" loads the encoder for such texts alone, where the model has one for each; None
                loads the default one, and another when `encode_query` or `encode_document` first needs it.
            **options: as for all models.
        """
        self._set_up(
            Source(path_or_name=path_or_name, **options, route=route),
            max_length=max_length,
            max_active_dims=max_active_dims,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            truncation=truncation,
        )

    def _set_up(
        self,
        source: Source,
        arrival: Arrival | None = None,
        *,
        max_length: int | None,
        max_active_dims: int | None,
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        truncation: str,
        every: bool = False,
        given: Given | None = None,
    ) -> None:
        LoadedModel.__init__(
            self,
            source,
            arrival,
            batch_tokens=lambda described: min(max(MOST_WEIGHTS // described.dim, FEWEST_TOKENS), MOST_TOKENS),
        )
        if truncation not in TRUNCATIONS:
            raise InvalidInputError(
                f"truncation {truncation!r} is not for sparse vectors; known: {', '.join(TRUNCATIONS)}"
            )
        assert self.manifest.sparse is not None  # the manifest is checked at birth
        most = self.manifest.sparse.max_active_dims
        self._max_active_dims = most if max_active_dims is None else self._most(max_active_dims)
        if every:  # None was assigned: all of them, whatever the model's own number is
            self._max_active_dims = None
        self._max_length = positive("max_length", max_length, self.manifest.max_length, self.manifest.max_positions)
        self._prompts = Prompts(self.manifest, prompts, default_prompt_name)
        self._tokenizer = self._load(self._max_length, truncation)
        self._given = given or (max_length, prompts, default_prompt_name)
        self._others = {}
        self._weights: npt.NDArray[np.float32] | None = None  # of a table, once they are wanted

    def _settings_now(self) -> dict[str, Any]:
        return {
            "max_length": self._max_length,
            "max_active_dims": self._max_active_dims,
            "every": self._max_active_dims is None,
            "prompts": self._prompts.by_name,
            "default_prompt_name": self._prompts.default,
            "truncation": self._tokenizer.truncation,
            "given": self._given,
        }

    @property
    def max_active_dims(self) -> int | None:
        """Words kept of each vector, None for all. Assigned to, it holds for the calls to come."""
        return self._max_active_dims

    @max_active_dims.setter
    def max_active_dims(self, wanted: int | None) -> None:
        self._max_active_dims = wanted if wanted is None else self._most(wanted)
        for other in self._loaded_others():
            assert isinstance(other, SparseModel)
            other.max_active_dims = wanted

    @property
    def dim(self) -> int:
        """Size of the vocabulary: indices are below it."""
        return self.manifest.dim

    @answered
    def encode(
        self,
        inputs: Texts,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_active_dims: int | None = None,
        show_progress_bar: bool | None = None,
        on_null: str = "error",
        return_tokens: bool = False,
    ) -> Any:
        """Sparse vectors of texts, in input order: a SparseVector for a str, a list of them for a list.

        Args:
            inputs: one text or several.
            prompt_name: which of `prompts` stands in front; None takes the default prompt, if there is one.
            prompt: a text to put in front, instead of a named one.
            max_active_dims: words kept of each vector, the heaviest, instead of the model's number.
            show_progress_bar: a tqdm bar over the texts on stderr.
            on_null: what a row without a text (None, NaN, pandas' NA) gives: "error"; "empty", the vector of the empty
                text; "zero", one without a word.
            return_tokens: give `Encoded`, the vectors with the tokens of each text, (n,) int64 or an int for a str: as
                they ran, special tokens and prompt included, and without what was cut.

        Raises:
            InvalidTypeError: something that is not a str.
            InvalidInputError: a lone surrogate, an unknown prompt, a number of words that is not possible.
            TextTooLongError: under truncation="error".
        """
        show_progress_bar = optional_flag("show_progress_bar", show_progress_bar)
        return_tokens = flag("return_tokens", return_tokens)
        call = self._call(prompt_name, prompt, max_active_dims)
        zero = partial(SparseVector.zero, self.dim)
        return lists(self._work, inputs, call, show_progress_bar, on_null, zero, return_tokens=return_tokens)

    def prepare(
        self,
        *,
        role: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_active_dims: int | None = None,
        truncation: str | None = None,
        truncation_side: str | None = None,
    ) -> Prepared[list[SparseVector]]:
        """What `encode` does with texts, for callers that gather those of many calls; see EmbeddingModel.prepare."""
        if role is not None:
            model, options = self._in_role(role, prompt_name, prompt)
            return model.prepare(
                **options,
                max_active_dims=max_active_dims,
                truncation=truncation,
                truncation_side=truncation_side,
            )
        work = self._call(prompt_name, prompt, max_active_dims)
        work._tokenizer = work._tokenizer.with_policy(truncation, truncation_side)
        return self._prepared(work, work._tokenizer, work._prompt)

    async def aencode(self, inputs: Texts, **options: Any) -> Any:
        """`encode` for asyncio: the event loop stays free, and calls that wait together are run together."""
        return await self._aside(self.encode, inputs, **options)

    @answered
    def encode_query(self, inputs: Texts, **options: Any) -> Any:
        """`encode` with the prompt "query", when there is one and no other is asked for."""
        return self.for_role("query").encode(inputs, **self._prompts.for_role(QUERY_PROMPTS, options))

    @answered
    def encode_document(self, inputs: Texts, **options: Any) -> Any:
        """`encode` with the prompt "document", "passage" or "corpus", when there is one and no other is asked for."""
        return self.for_role("document").encode(inputs, **self._prompts.for_role(DOCUMENT_PROMPTS, options))

    async def aencode_query(self, inputs: Texts, **options: Any) -> Any:
        """`encode_query` for asyncio; see `aencode`."""
        return await self._aside(self.encode_query, inputs, **options)

    async def aencode_document(self, inputs: Texts, **options: Any) -> Any:
        """`encode_document` for asyncio; see `aencode`."""
        return await self._aside(self.encode_document, inputs, **options)

    @answered
    def embed(
        self,
        inputs: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_active_dims: int | None = None,
        on_null: str = "error",
    ) -> Iterator[SparseVector]:
        """Sparse vectors of any number of texts, one by one and in order, in bounded memory; errors as for `encode`."""
        if isinstance(inputs, str):
            raise InvalidTypeError("inputs are one text; pass an iterable of str, or use encode for a single text")
        call = self._call(prompt_name, prompt, max_active_dims)
        work, _ = asked(call, on_null, lambda: SparseVector.zero(self.dim), return_tokens=False)
        return self._one_by_one(windows(check_iterable(inputs), STREAM_TEXTS, nulls=on_null != ERROR), work)

    @answered
    def similarity(
        self, left: SparseVector | Sequence[SparseVector], right: SparseVector | Sequence[SparseVector]
    ) -> npt.NDArray[np.float32]:
        """The model's own similarity (dot, cosine, or a negated distance) of n and m sparse vectors: (n, m) float32."""
        return similarity(self.manifest.similarity, left, right)

    @answered
    def decode(self, vectors: SparseVector | Sequence[SparseVector], *, top_k: int | None = None) -> Any:
        """Words with their weights, the heaviest first: a list of (token, weight) for each vector.

        Args:
            vectors: what `encode` gave.
            top_k: only the heaviest so many words.
        """
        if not isinstance(vectors, SparseVector):
            return [self.decode(vector, top_k=top_k) for vector in vectors]
        most = positive("top_k", top_k, max(len(vectors), 1))
        order = np.argsort(-vectors.values, kind="stable")[:most]
        tokens = self._tokenizer.tokens(vectors.indices[order].tolist())
        return list(zip(tokens, vectors.values[order].tolist(), strict=True))

    @answered
    def count_tokens(self, inputs: Texts, *, prompt_name: str | None = None, prompt: str | None = None) -> Any:
        """Tokens before any cut, special tokens and prompt included: an int for a str, (n,) int64 for a list."""
        texts = all_texts([inputs] if isinstance(inputs, str) else inputs)
        counts = self._tokenizer.count(texts, self._prompts.text(prompt_name, prompt))
        return int(counts[0]) if isinstance(inputs, str) else counts

    def _call(self, prompt_name: str | None, prompt: str | None, max_active_dims: int | None) -> _Call:
        self._check_open()
        most = self.max_active_dims if max_active_dims is None else self._most(max_active_dims)
        return _Call(self, self._prompts.text(prompt_name, prompt), most)

    def _most(self, wanted: int) -> int:
        return positive("max_active_dims", wanted, self.manifest.dim, self.manifest.dim)

    def _work(self, pieces: Iterator[Window], work: Work[T], *, ahead: bool, bar: NoBar | None = None) -> Iterator[T]:
        """As for all models; weights of a table are looked up, since its graph gives the whole vocabulary each time."""
        assert self.manifest.sparse is not None
        if not self.manifest.sparse.table:
            yield from super()._work(pieces, work, ahead=ahead, bar=bar)
            return
        call = CURRENT.get()
        for window in pieces:
            if call is not None and call.given_up:
                raise GivenUpError
            weights = self._table()
            tokenized = work.tokenize(window)
            work.boundaries(tokenized)
            found = np.empty(len(tokenized.ids), object)
            for k, ids in enumerate(tokenized.ids):
                indices = np.unique(ids)
                values = weights[indices]
                there = values != 0
                found[k] = SparseVector(indices[there], values[there], self.dim)
            tokenized.report()
            self._counter.add(tokenized)
            yield work.finish(tokenized, found)

    def _table(self) -> npt.NDArray[np.float32]:
        """The weight of each token, (dim,): what the graph gives for a text that has them all."""
        engine = self._running()
        if self._weights is None:
            every = [np.arange(self.dim, dtype=np.int64)]
            (vector,) = engine.run_small(every, np.zeros(1, np.int64))
            weights = np.zeros(self.dim, np.float32)
            weights[vector.indices] = vector.values
            self._weights = weights
        return self._weights

    def _splitter(self) -> Split | None:
        def split(weights: npt.NDArray[np.float32], rows: Sequence[batching.Ids]) -> list[SparseVector]:
            return sparse_rows(weights)

        return split


class _Call:
    """Texts of one call to a sparse encoder."""

    def __init__(self, model: SparseModel, prompt: str, most: int | None) -> None:
        self._tokenizer = model._tokenizer
        self._prompt = prompt
        self._most = most
        self._empty = SparseVector.zero(model.dim)

    def tokenize(self, window: Window) -> Tokenized:
        return self._tokenizer(window.texts, self._prompt, window.first, parallel=window.parallel)

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        return tokenized.left_out(0)

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> list[SparseVector]:
        # A text without a single token has no vector from the graph.
        vectors = [self._empty if vector is None else vector for vector in results]
        return vectors if self._most is None else [vector.heaviest(self._most) for vector in vectors]
