"""LateInteractionModel: a ColBERT-style encoder from a model directory; a vector a token, compared by MaxSim."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from ..errors import InvalidInputError, InvalidTypeError
from ..manifest import LATE_INTERACTION
from ..run import batching
from ..run.contract import Split
from ..system.progress import progress
from ..text.inputs import check_iterable, counted
from ..text.tokenizer import TRUNCATIONS, TextTokenizer
from ..text.windows import ERROR, STREAM_TEXTS, TEXTS, windows
from ..vectors.dense import Vectors
from ..vectors.maxsim import maxsim
from .answers import answered
from .base import LoadedModel
from .extras import asked
from .late_calls import Call, Role, feeds, split
from .opening import LoadOptions, Source, documented
from .options import all_texts, flag, optional_flag, positive
from .prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, Prompts, check_role
from .reranker import Ranked
from .shared import Arrival
from .work import Prepared


class LateInteractionModel(LoadedModel):
    """A late-interaction encoder from a model directory. Safe to use from several threads and after a fork."""

    task = LATE_INTERACTION

    @documented
    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        *,
        query_length: int | None = None,
        document_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        truncation: str = "truncate",
        **options: Unpack[LoadOptions],
    ) -> None:
        """Load a late-interaction encoder.

        Args:
            path_or_name: a model directory, else a hub repository that holds one.
            query_length: tokens after which queries are cut, special tokens included; where the model fills all
                queries up to one length, this is that length; where it has a least length, no less. None takes the
                model's own.
            document_length: tokens after which documents are cut; None takes the model's own.
            prompts: what stands in front of texts, by name, instead of the model's own ("query", "document").
            truncation: "truncate" cuts and counts in `stats`, "warn" also warns, "error" raises.
            **options: as for all models.
        """
        self._set_up(
            Source(path_or_name=path_or_name, **options),
            query_length=query_length,
            document_length=document_length,
            prompts=prompts,
            truncation=truncation,
        )

    def _set_up(
        self,
        source: Source,
        arrival: Arrival | None = None,
        *,
        query_length: int | None,
        document_length: int | None,
        prompts: Mapping[str, str] | None,
        truncation: str,
    ) -> None:
        LoadedModel.__init__(self, source, arrival)
        if truncation not in TRUNCATIONS:
            raise InvalidInputError(
                f"truncation {truncation!r} is not for token vectors; known: {', '.join(TRUNCATIONS)}"
            )
        assert self.manifest.late_interaction is not None  # the manifest is checked at birth
        about, most = self.manifest.late_interaction, self.manifest.max_positions
        self._about = about
        self._query_length = positive("query_length", query_length, about.query_length, most)
        self._document_length = positive("document_length", document_length, about.document_length, most)
        self._prompts = Prompts(self.manifest, prompts, None)
        longest = max(self._query_length, self._document_length)  # of all that the engine has to take
        self._documents = self._role(self._load(self._document_length, truncation, longest), queries=False)
        tokenizer = self._documents.tokenizer
        if self._query_length != self._document_length:
            read = partial(tokenizer.with_max_length, self._query_length)
            tokenizer = self._shared.tokenizer((self._query_length, truncation), read)
        try:
            self._queries = self._role(tokenizer, queries=True)
        except InvalidInputError:
            self.close()  # its engine has started
            raise

    def _settings_now(self) -> dict[str, Any]:
        return {
            "query_length": self._query_length,
            "document_length": self._document_length,
            "prompts": self._prompts.by_name,
            "truncation": self._documents.tokenizer.truncation,
        }

    def _limits(self) -> dict[str, int]:
        return {"document_length": self._longest}

    def _role(self, tokenizer: TextTokenizer, *, queries: bool) -> Role:
        about = self._about
        if not queries:
            return Role(tokenizer, np.array(about.document_skiplist, dtype=np.int64), 0)
        self._check_expansion(tokenizer)
        return Role(tokenizer, np.array(about.query_skiplist, dtype=np.int64), self.expansion_length)

    def _check_expansion(self, tokenizer: TextTokenizer) -> None:
        """Whether queries are filled up as the checkpoint's own: to its least length, by tokens that see the query."""
        about, longest = self._about, self.expansion_length
        if not about.fixed and longest < about.expansion_length:
            raise InvalidInputError(
                f"query_length {longest} is not possible: queries of this model are filled up to "
                f"{about.expansion_length} tokens at least; query_length may be {about.expansion_length} or more"
            )
        if about.reach is None or about.attend_to_expansion or longest <= about.reach:
            return
        shortest = max(sum(map(len, tokenizer.around())), 1)  # tokens of a query
        if longest - shortest > about.reach:
            raise InvalidInputError(
                f"queries of {longest} tokens are not possible: attention reaches {about.reach} tokens back, so that "
                f"the last of those that fill up a short query would see none of it; query_length may be "
                f"{about.reach + shortest} at most"
            )

    @property
    def query_length(self) -> int:
        """Tokens after which queries are cut, special tokens included. Assigned to, it holds for the calls to come."""
        return self._query_length

    @query_length.setter
    def query_length(self, wanted: int) -> None:
        value = self._new_limit("query_length", wanted, self._about.query_length)
        tokenizer = self._queries.tokenizer.with_max_length(value)
        before, self._query_length = self._query_length, value
        try:
            self._queries = self._role(tokenizer, queries=True)
        except InvalidInputError:
            self._query_length = before
            raise

    @property
    def document_length(self) -> int:
        """Tokens after which documents are cut. Assigned to, it holds for the calls to come."""
        return self._document_length

    @document_length.setter
    def document_length(self, wanted: int) -> None:
        value = self._new_limit("document_length", wanted, self._about.document_length)
        self._documents = self._role(self._documents.tokenizer.with_max_length(value), queries=False)
        self._document_length = value

    @property
    def expansion_length(self) -> int:
        """Tokens that queries are filled up to; 0 where they are not."""
        return self._about.filled_to(self._query_length)

    @property
    def dim(self) -> int:
        """Length of a token's vector."""
        return self.manifest.dim

    @property
    def similarity_name(self) -> str:
        """What `similarity` computes: maxsim, or meanmaxsim."""
        return self._about.similarity

    @answered
    def encode_query(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        show_progress_bar: bool | None = None,
        on_null: str = "error",
        return_tokens: bool = False,
    ) -> Any:
        """Token vectors of queries: (tokens, dim) float32 for a str, a list of them for a list, in input order.

        A query is cut at `query_length` and, where the model was trained so, filled up with mask tokens, which have
        vectors too.

        Args:
            inputs: one query or several.
            prompt_name: which of `prompts` stands in front; None takes "query", if there is one.
            prompt: a text to put in front, instead of a named one.
            show_progress_bar: a tqdm bar over the texts on stderr.
            on_null: what a row without a text (None, NaN, pandas' NA) gives: "error"; "empty", the vector of the empty
                text; "zero", no token at all.
            return_tokens: give `Encoded`, the vectors with the tokens of each text, (n,) int64 or an int for a str: as
                they ran, special tokens, prompt and the mask tokens of queries included, and without what was cut.

        Raises:
            InvalidTypeError: something that is not a str.
            InvalidInputError: a lone surrogate, an unknown prompt.
            TextTooLongError: under truncation="error".
        """
        prompts = self._prompts.for_role(QUERY_PROMPTS, {"prompt_name": prompt_name, "prompt": prompt})
        call = self._call(self._queries, prompts)
        return self._encode(inputs, call, show_progress_bar, on_null, return_tokens=return_tokens)

    @answered
    def encode_document(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        show_progress_bar: bool | None = None,
        on_null: str = "error",
        return_tokens: bool = False,
    ) -> Any:
        """Token vectors of documents, as `encode_query` gives those of queries.

        A document is cut at `document_length`; tokens that the model skips, such as punctuation, have no vector. The
        prompt is "document", "passage" or "corpus", if there is one.
        """
        prompts = self._prompts.for_role(DOCUMENT_PROMPTS, {"prompt_name": prompt_name, "prompt": prompt})
        call = self._call(self._documents, prompts)
        return self._encode(inputs, call, show_progress_bar, on_null, return_tokens=return_tokens)

    def prepare(
        self,
        *,
        role: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: str | None = None,
        truncation_side: str | None = None,
    ) -> Prepared[list[Vectors]]:
        """What `encode_query` and `encode_document` do with texts, for callers that gather those of many calls.

        See EmbeddingModel.prepare; without a role texts are documents.
        """
        if role is not None:
            check_role(role)
        queries = role == "query"
        options = {"prompt_name": prompt_name, "prompt": prompt}
        prompts = self._prompts.for_role(QUERY_PROMPTS if queries else DOCUMENT_PROMPTS, options)
        found = self._queries if queries else self._documents
        found = replace(found, tokenizer=found.tokenizer.with_policy(truncation, truncation_side))
        call = self._call(found, prompts)
        return self._prepared(call, found.tokenizer, call._prompt)

    async def aencode_query(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """`encode_query` for asyncio: the event loop stays free, and calls that wait together are run together."""
        return await self._aside(self.encode_query, inputs, **options)

    async def aencode_document(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """`encode_document` for asyncio."""
        return await self._aside(self.encode_document, inputs, **options)

    @answered
    def embed_documents(
        self,
        inputs: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        on_null: str = "error",
    ) -> Iterator[Vectors]:
        """Token vectors (tokens, dim) of any number of documents, one by one and in order, in bounded memory."""
        prompts = self._prompts.for_role(DOCUMENT_PROMPTS, {"prompt_name": prompt_name, "prompt": prompt})
        return self._stream(inputs, self._call(self._documents, prompts), on_null)

    @answered
    def embed_queries(
        self,
        inputs: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        on_null: str = "error",
    ) -> Iterator[Vectors]:
        """Token vectors (tokens, dim) of any number of queries, as `embed_documents` gives those of documents."""
        prompts = self._prompts.for_role(QUERY_PROMPTS, {"prompt_name": prompt_name, "prompt": prompt})
        return self._stream(inputs, self._call(self._queries, prompts), on_null)

    def _stream(self, inputs: Iterable[str], call: Call, on_null: str) -> Iterator[Vectors]:
        if isinstance(inputs, str):
            raise InvalidTypeError("inputs are one text; pass an iterable of str, or use encode_document for one text")
        work, _ = asked(call, on_null, self._nothing, return_tokens=False)
        return self._one_by_one(windows(check_iterable(inputs), STREAM_TEXTS, nulls=on_null != ERROR), work)

    @answered
    def similarity(self, queries: Vectors | Sequence[Vectors], documents: Vectors | Sequence[Vectors]) -> Vectors:
        """Scores of n queries and m documents: (n, m) float32.

        MaxSim: for each token of the query the largest dot product with a token of the document, summed over the
        query; under meanmaxsim divided by the query's tokens. A document without a token is below all others.

        Args:
            queries: what `encode_query` gave, for one or several.
            documents: what `encode_document` gave, for one or several.

        Raises:
            InvalidInputError: something that is not (tokens, dim).
        """
        return maxsim(queries, documents, self.dim, mean=self.similarity_name == "meanmaxsim")

    @answered
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Ranked]:
        """Documents by falling score to the query, each with its index; equal scores keep the documents' order.

        Args:
            query: one text.
            documents: the texts to rank.
            top_k: only the best so many; None for all.
            show_progress_bar: a tqdm bar over the documents on stderr.

        Raises:
            InvalidTypeError: a query or document that is not a str; other errors as for `encode_query`.
        """
        if not isinstance(query, str):
            raise InvalidTypeError(f"query is {type(query).__name__}, expected str")
        if isinstance(documents, str):
            raise InvalidTypeError("documents are one text; pass a list of str")
        texts = all_texts(documents)
        most = positive("top_k", top_k, max(len(texts), 1))
        asked = self.encode_query(query)
        scores = self.similarity(asked, self.encode_document(texts, show_progress_bar=show_progress_bar))[0]
        return [Ranked(int(k), float(scores[k]), texts[k]) for k in np.argsort(-scores, kind="stable")[:most]]

    async def arank(self, query: str, documents: Sequence[str], **options: Any) -> list[Ranked]:
        """`rank` for asyncio."""
        return await self._aside(self.rank, query, documents, **options)

    @answered
    def count_tokens(self, inputs: str | Sequence[str], *, prompt: str = "") -> Any:
        """Tokens before any cut, special tokens and prompt included: an int for a str, (n,) int64 for a list."""
        texts = all_texts([inputs] if isinstance(inputs, str) else inputs)
        counts = self._documents.tokenizer.count(texts, prompt)
        return int(counts[0]) if isinstance(inputs, str) else counts

    def _facts(self) -> str:
        return f"dim={self.dim}, query_length={self.query_length}, document_length={self.document_length}"

    def _encode(
        self, inputs: str | Sequence[str], call: Call, show: bool | None, on_null: str, *, return_tokens: bool
    ) -> Any:
        show, return_tokens = optional_flag("show_progress_bar", show), flag("return_tokens", return_tokens)
        single = isinstance(inputs, str)
        count, texts = counted(inputs)
        work, counting = asked(call, on_null, self._nothing, return_tokens=return_tokens)
        out: list[Vectors] = []
        with progress(count, show) as bar:
            for found in self._work(windows(texts, (TEXTS,), nulls=on_null != ERROR), work, ahead=True, bar=bar):
                out += found
                bar.update(len(found))
        made = out[0] if single else out
        return made if counting is None else counting.encoded(made, single=single)

    def _nothing(self) -> Vectors:
        return np.empty((0, self.dim), np.float32)

    def _call(self, role: Role, prompts: Mapping[str, Any]) -> Call:
        self._check_open()
        text = self._prompts.text(prompts.get("prompt_name"), prompts.get("prompt"))
        about = self._about
        return Call(role, text, about.expansion_token_id, attend=about.attend_to_expansion, dim=self.dim)

    @staticmethod
    def _feeds(
        rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
    ) -> batching.Feeds:
        return feeds(rows, inputs, pad_token_id, boundaries)

    def _splitter(self) -> Split | None:
        return split
