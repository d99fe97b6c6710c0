"""Reranker: a cross-encoder from a model directory; pairs of texts in, scores out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, InvalidTypeError
from ..manifest import ACTIVATIONS, RERANKING
from ..run import batching
from ..system.progress import progress
from ..text.inputs import check_iterable, check_pairs
from ..text.pairs import Pair
from ..text.tokenizer import TRUNCATIONS, Tokenized
from ..text.windows import CHARACTERS, ERROR, TEXTS, Window
from .answers import answered
from .base import LoadedModel, WithMaxLength
from .extras import asked
from .opening import LoadOptions, Source, documented
from .options import all_texts, flag, optional_flag, positive
from .prompts import Prompts
from .shared import Arrival
from .work import Prepared

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """One document in the order of relevance."""

    index: int  # of the document in the call
    score: float
    text: str


class Reranker(WithMaxLength):
    """A cross-encoder from a model directory. Safe to use from several threads and after a fork."""

    task = RERANKING

    @documented
    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        *,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncation: str = "truncate",
        **options: Unpack[LoadOptions],
    ) -> None:
        """Load a reranker.

        Args:
            path_or_name: a model directory, else a hub repository that holds one.
            max_length: tokens of a pair, special tokens included; the longer of its two texts is cut first, or, where
                a chat template makes one text of them, that text.
            prompts: texts put in front of the first text, or into the chat template as its system message (an
                instruction), by name, instead of the model's own.
            default_prompt_name: the prompt when none is named.
            truncation: "truncate" cuts and counts in `stats`, "warn" also warns, "error" raises.
            **options: as for all models.
        """
        self._set_up(
            Source(path_or_name=path_or_name, **options),
            max_length=max_length,
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
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        truncation: str,
    ) -> None:
        LoadedModel.__init__(self, source, arrival)
        if truncation not in TRUNCATIONS:
            raise InvalidInputError(f"truncation {truncation!r} is not for pairs; known: {', '.join(TRUNCATIONS)}")
        assert self.manifest.reranking is not None  # the manifest is checked at birth
        self._about = self.manifest.reranking
        self._max_length = positive("max_length", max_length, self.manifest.max_length, self.manifest.max_positions)
        self._prompts = Prompts(self.manifest, prompts, default_prompt_name)
        self._tokenizer = self._load(self._max_length, truncation)

    def _settings_now(self) -> dict[str, Any]:
        return {
            "max_length": self._max_length,
            "prompts": self._prompts.by_name,
            "default_prompt_name": self._prompts.default,
            "truncation": self._tokenizer.truncation,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a pair's scores; one for a reranker."""
        return self._about.labels

    @property
    def activation(self) -> str:
        """What makes scores of the logits: identity or sigmoid."""
        return self._about.activation

    @answered
    def predict(
        self,
        pairs: Pair | Sequence[Pair],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        activation: str | None = None,
        apply_softmax: bool = False,
        show_progress_bar: bool | None = None,
        return_tokens: bool = False,
    ) -> Any:
        """Scores of pairs of texts, float32 in input order: (n,), or (n, labels) where there are several labels.

        Args:
            pairs: (text, text) for one score, or several of them.
            prompt_name: which of the model's prompts stands in front of the first texts, or in the chat template.
            prompt: a text to put there, such as an instruction, instead of a named one.
            activation: identity or sigmoid, instead of the model's.
            apply_softmax: shares of the labels, behind the activation, where there are several.
            show_progress_bar: a tqdm bar over the pairs on stderr.
            return_tokens: give `Encoded`, the scores with the tokens of each pair, (n,) int64 or an int for one: as
                they ran, special tokens and prompt included, and without what was cut.

        Raises:
            InvalidTypeError: something that is not a pair of str.
            InvalidInputError: a lone surrogate, an unknown prompt or activation.
            TextTooLongError: under truncation="error".
        """
        show_progress_bar = optional_flag("show_progress_bar", show_progress_bar)
        apply_softmax, return_tokens = flag("apply_softmax", apply_softmax), flag("return_tokens", return_tokens)
        single = isinstance(pairs, (tuple, list)) and len(pairs) > 0 and isinstance(pairs[0], str)
        wanted: list[Any] = [pairs] if single else list(check_iterable(pairs))
        function = self.activation if activation is None else activation
        if function not in ACTIVATIONS:
            raise InvalidInputError(f"activation {function!r} is not known; known: {', '.join(ACTIVATIONS)}")
        self._check_open()
        call = _Call(self, self._prompts.text(prompt_name, prompt))
        work, counting = asked(call, ERROR, lambda: None, return_tokens=return_tokens)
        logits = np.empty((len(wanted), len(self.labels)), dtype=np.float32)
        done = 0
        with progress(len(wanted), show_progress_bar) as bar:
            for rows in self._work(_windows(wanted), work, ahead=True, bar=bar):
                logits[done : done + len(rows)] = rows
                done += len(rows)
                bar.update(len(rows))
        scores = sigmoid(logits) if function == "sigmoid" else logits
        if len(self.labels) == 1:
            scores = scores[:, 0]
        elif apply_softmax:
            scores = softmax(scores)
        result: Scores | np.float32 = scores[0] if single else scores
        return result if counting is None else counting.encoded(result, single=single)

    def prepare(
        self,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: str | None = None,
        truncation_side: str | None = None,
    ) -> Prepared[Scores]:
        """What `predict` does with pairs, for callers that gather those of many calls: logits (n, labels).

        See EmbeddingModel.prepare.
        """
        self._check_open()
        call = _Call(self, self._prompts.text(prompt_name, prompt))
        call._tokenizer = call._tokenizer.with_policy(truncation, truncation_side)
        return self._prepared(call, call._tokenizer, call._prompt)

    async def apredict(self, pairs: Pair | Sequence[Pair], **options: Any) -> Scores | np.float32:
        """`predict` for asyncio: the event loop stays free, and calls that wait together are run together."""
        return await self._aside(self.predict, pairs, **options)

    @answered
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        activation: str | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Ranked]:
        """Documents by falling score to the query, each with its index; equal scores keep the documents' order.

        Args:
            query: one text.
            documents: the texts to rank.
            top_k: only the best so many; None for all.
            prompt_name: see `predict`.
            prompt: see `predict`.
            activation: see `predict`.
            show_progress_bar: see `predict`.

        Raises:
            InvalidInputError: a model with several labels, which has no one score to rank by.
            InvalidTypeError: a query or document that is not a str; other errors as for `predict`.
        """
        if len(self.labels) != 1:
            raise InvalidInputError(
                f"this model gives {len(self.labels)} scores a pair ({', '.join(self.labels)}), so it has no order "
                "of relevance; use predict, or a reranker that gives one score"
            )
        if not isinstance(query, str):
            raise InvalidTypeError(f"query is {type(query).__name__}, expected str")
        if isinstance(documents, str):
            raise InvalidTypeError("documents are one text; pass a list of str")
        texts = all_texts(documents)
        most = positive("top_k", top_k, max(len(texts), 1))
        scores = self.predict(
            [(query, text) for text in texts],
            prompt_name=prompt_name,
            prompt=prompt,
            activation=activation,
            show_progress_bar=show_progress_bar,
        )
        order = np.argsort(-np.asarray(scores), kind="stable")[:most]
        return [Ranked(int(k), float(np.asarray(scores)[k]), texts[k]) for k in order]

    async def arank(self, query: str, documents: Sequence[str], **options: Any) -> list[Ranked]:
        """`rank` for asyncio; see `apredict`."""
        return await self._aside(self.rank, query, documents, **options)

    @answered
    def count_tokens(
        self, pairs: Pair | Sequence[Pair], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> Any:
        """Tokens of pairs before any cut, special tokens and prompt included: an int for one, (n,) int64 for a list."""
        single = isinstance(pairs, (tuple, list)) and len(pairs) > 0 and isinstance(pairs[0], str)
        text = self._prompts.text(prompt_name, prompt)
        counts = self._tokenizer.count(check_pairs([pairs] if single else pairs), text)
        return int(counts[0]) if single else counts

    def _facts(self) -> str:
        return f"labels={len(self.labels)}, max_length={self.max_length}"

    @staticmethod
    def _feeds(
        rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
    ) -> batching.Feeds:
        return feeds(rows, inputs, pad_token_id, boundaries)


class _Call:
    """Pairs of one call to a reranker."""

    def __init__(self, model: Reranker, prompt: str) -> None:
        self._tokenizer = model._tokenizer
        if self._tokenizer.chat is not None:
            self._tokenizer.chat.check_prompt(prompt)
        self._prompt = prompt
        assert model.manifest.reranking is not None  # which the task asks for
        self._unscored = model.manifest.reranking.unscored

    def tokenize(self, window: Window) -> Tokenized:
        made = self._tokenizer.pairs(window.texts, self._prompt, window.first, parallel=window.parallel)
        return made.without_end(self._unscored)

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        assert tokenized.first_segments is not None
        return tokenized.first_segments

    def finish(self, tokenized: Tokenized, results: Scores) -> Scores:
        return results


def feeds(
    rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
) -> batching.Feeds:
    """What a reranker's graph takes for a batch; `boundaries` (B,) is how many tokens of each row are of type 0."""
    made = batching.feeds(rows, inputs, pad_token_id, np.zeros_like(boundaries))
    if "token_type_ids" in inputs:
        if "position_ids" in made:
            second = made["position_ids"] >= np.repeat(boundaries, [len(row) for row in rows])
        else:
            second = np.arange(made["input_ids"].shape[1]) >= boundaries[:, None]
            second &= made["attention_mask"].astype(bool)
        made["token_type_ids"] = second.astype(np.int64)
    return made


def sigmoid(logits: Scores) -> Scores:
    """1 / (1 + exp(-x)), computed in float64 and rounded once."""
    wide = logits.astype(np.float64)
    small = np.exp(-np.abs(wide))  # of the negative, which never overflows
    scores: Scores = (np.where(wide >= 0, 1.0, small) / (1.0 + small)).astype(np.float32)
    return scores


def softmax(scores: Scores) -> Scores:
    """exp(x) over its sum along the last axis, computed in float64."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True, initial=-np.inf))
    shares: Scores = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


def _windows(pairs: Sequence[Any]) -> Iterator[Window]:
    """Checked pairs in pieces that are tokenized together, bounded in number and characters."""
    first, rest = 0, iter(pairs)
    while piece := list(islice(rest, TEXTS)):
        checked = check_pairs(piece, first)
        start = characters = 0
        for k, (left, right) in enumerate(checked, 1):
            characters += len(left) + len(right)
            if characters >= CHARACTERS or k == len(checked):
                yield Window(checked[start:k], first + start)
                start, characters = k, 0
        first += len(checked)
