"""Rankers: documents in the order in which they fit a query."""

from __future__ import annotations

import os
from dataclasses import replace
from math import inf
from typing import Any

from haystack import Document, component
from haystack_integrations.common.fastembed_rt import ModelComponent, check_documents, name_of, text_of

from fastembed_rt import LateInteractionModel, Reranker


class _Ranker(ModelComponent):
    def __init__(
        self,
        model: str | os.PathLike[str],
        top_k: int = 10,
        query_prefix: str = "",
        document_prefix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        score_threshold: float | None = None,
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first query.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            top_k: most documents that are returned.
            query_prefix: put before the query.
            document_prefix: put before each document's text.
            meta_fields_to_embed: fields of `meta` that stand before a document's content.
            embedding_separator: between those fields and the content.
            score_threshold: documents with a lower score are left out; None keeps all.
            model_kwargs: options of the class's `from_checkpoint`, such as precision, threads.

        Raises:
            ValueError: top_k below 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected 1 or more")
        self.model = name_of(model)
        self.top_k = top_k
        self.query_prefix = query_prefix
        self.document_prefix = document_prefix
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.score_threshold = score_threshold
        self.model_kwargs = model_kwargs or {}

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, Any]:
        """`documents`: the best `top_k` by falling score, each with its `score`; of several with one id one.

        Args:
            query: one text.
            documents: what is ranked.
            top_k: instead of the component's.
            score_threshold: instead of the component's.

        Raises:
            ValueError: top_k below 1.
            TypeError: a query that is no str; something that is no list of Document.
        """
        most = self._most(top_k)
        once = _once(check_documents(documents, type(self).__name__))
        if not once:
            return {"documents": []}
        self.warm_up()
        return self._ranked(once, self._model.rank(*self._asked(query, once), top_k=most), score_threshold)

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, Any]:
        """`run` for asyncio: the event loop stays free, calls that wait together are run together."""
        most = self._most(top_k)
        once = _once(check_documents(documents, type(self).__name__))
        if not once:
            return {"documents": []}
        await self.warm_up_async()
        return self._ranked(once, await self._model.arank(*self._asked(query, once), top_k=most), score_threshold)

    def _most(self, top_k: int | None) -> int:
        most = self.top_k if top_k is None else top_k
        if most < 1:
            raise ValueError(f"top_k is {most}, expected 1 or more")
        return most

    def _asked(self, query: str, documents: list[Document]) -> tuple[str, list[str]]:
        if not isinstance(query, str):
            raise TypeError(f"{type(self).__name__} expects a str as its query, not {type(query).__name__}")
        texts = [text_of(one, self.meta_fields_to_embed, self.embedding_separator) for one in documents]
        return self.query_prefix + query, [self.document_prefix + text for text in texts]

    def _ranked(self, documents: list[Document], order: Any, threshold: float | None) -> dict[str, Any]:
        least = self.score_threshold if threshold is None else threshold
        kept = [entry for entry in order if least is None or entry.score >= least]
        return {"documents": [replace(documents[entry.index], score=entry.score) for entry in kept]}


@component
class FastEmbedRtRanker(_Ranker):
    """Ranks documents by a cross-encoder's score of query and document.

    ```python
    ranker = FastEmbedRtRanker(model="./my-reranker", top_k=5)
    documents = ranker.run(query="which dog runs?", documents=documents)["documents"]
    ```
    """

    kind = Reranker


@component
class FastEmbedRtLateInteractionRanker(_Ranker):
    """Ranks documents by MaxSim of their tokens' vectors with the query's (ColBERT).

    ```python
    ranker = FastEmbedRtLateInteractionRanker(model="./my-colbert", top_k=5)
    documents = ranker.run(query="which dog runs?", documents=documents)["documents"]
    ```
    """

    kind = LateInteractionModel


def _once(documents: list[Document]) -> list[Document]:
    """Of those with one id the one with the highest score, where the first of them stood."""
    found: dict[str, Document] = {}
    for document in documents:
        other = found.get(document.id)
        if other is None or _score(document) > _score(other):
            found[document.id] = document
    return list(found.values())


def _score(document: Document) -> float:
    return -inf if document.score is None else document.score
