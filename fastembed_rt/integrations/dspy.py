"""DSPy: an Embedder with the model's prompts and a cache that tells models apart, and a retriever. Needs dspy alone."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Mapping
from typing import Any

from .. import EmbeddingModel
from ..models.prompts import OF_ROLES, check_role, of_role
from ..vectors.dense import Vectors
from .opening import fingerprint, needs, open_model, several

with needs("dspy", "dspy"):
    import dspy

__all__ = ["FastEmbedRtEmbedder", "FastEmbedRtRetriever"]
BATCH = 2048  # texts of a call; the model makes its own batches


class FastEmbedRtEmbedder(dspy.Embedder):
    """Vectors (dim,) of a str or (n, dim) of a list, float32, as `encode` gives them.

    DSPy's cache knows a function by its source, and so takes two models for one. Here what is cached is told apart by
    the model's fingerprint, and `caching` is off unless it is asked for: encoding is often the cheaper of the two.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | EmbeddingModel,
        batch_size: int = BATCH,
        caching: bool = False,
        *,
        role: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **encode_kwargs: Any,
    ) -> None:
        """Open the model.

        Args:
            model: a model directory, a checkpoint or a hub repository; or an EmbeddingModel that is open.
            batch_size: texts of one call of the model.
            caching: keep vectors in DSPy's cache, in memory and on disk.
            role: "query" or "document" for the prompt and the encoder of that role; None: those of `encode`.
            model_kwargs: options of `EmbeddingModel.from_checkpoint`.
            **encode_kwargs: of each call's `encode`; those of `__call__` come before them.

        Raises:
            InvalidInputError: an unknown role; others as `EmbeddingModel.from_checkpoint`.
        """
        if role is not None:
            check_role(role)
        opened = open_model(EmbeddingModel, model, model_kwargs)
        options = encode_kwargs
        if role is not None:
            options = of_role(OF_ROLES[role], opened.prompts, encode_kwargs)
            opened = opened.for_role(role)
        self.client = opened
        super().__init__(_Encoding(opened), batch_size=batch_size, caching=caching, **options)

    def __call__(
        self, inputs: str | list[str], batch_size: int | None = None, caching: bool | None = None, **kwargs: Any
    ) -> Vectors:
        """Vectors of one text or several; `kwargs` are options of `encode`."""
        if not isinstance(inputs, str):
            inputs = several(inputs)
            if not inputs:  # DSPy would give them no length
                nothing: Vectors = self.model(inputs, **{**self.default_kwargs, **kwargs})
                return nothing
        if caching is None:
            caching = self.caching
        if not caching and self.caching:  # which DSPy would not hear of
            plain = copy.copy(self)
            plain.caching = False
            return plain(inputs, batch_size, **kwargs)
        if caching:  # what the cache tells models apart by: see `_Encoding`
            # The role is in the options and in the client already.
            kwargs = {**kwargs, FINGERPRINT: fingerprint(self.client, None, {**self.default_kwargs, **kwargs})}
        vectors: Vectors = super().__call__(inputs, batch_size, caching, **kwargs)
        return vectors

    async def acall(
        self, inputs: str | list[str], batch_size: int | None = None, caching: bool | None = None, **kwargs: Any
    ) -> Vectors:
        """`__call__` for asyncio: the event loop stays free, and calls that wait together are run together."""
        return await asyncio.to_thread(self, inputs, batch_size, caching, **kwargs)


FINGERPRINT = "fingerprint"


class _Encoding:
    """`encode` as DSPy calls it. A copy, which its cache makes of all arguments, is the same object."""

    __name__ = "fastembed_rt"  # DSPy's cache knows it by this, and by the fingerprint among the options

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model

    def __call__(self, texts: list[str], fingerprint: str | None = None, **options: Any) -> Vectors:
        vectors: Vectors = self._model.encode(texts, **options)
        return vectors

    def __deepcopy__(self, memo: Any) -> _Encoding:
        return self


class FastEmbedRtRetriever(dspy.retrievers.Embeddings):
    """DSPy's retriever over a list of passages, which have the document prompt, and queries the query prompt."""

    def __init__(
        self,
        corpus: list[str],
        model: str | os.PathLike[str] | EmbeddingModel,
        k: int = 5,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Encode the corpus.

        Args:
            corpus: passages.
            model: as for FastEmbedRtEmbedder.
            k: how many passages a query finds.
            model_kwargs: as there.
            encode_kwargs: of each call's `encode`.
            **options: of `dspy.retrievers.Embeddings`: normalize, brute_force_threshold, callbacks.
        """
        opened = open_model(EmbeddingModel, model, model_kwargs)
        of_passages, of_queries = (
            FastEmbedRtEmbedder(opened, role=role, **(encode_kwargs or {})) for role in ("document", "query")
        )
        super().__init__(corpus, of_passages, k=k, **options)
        self.embedder = of_queries
