"""Chroma: embedding functions that a collection remembers, dense and sparse. Needs chromadb alone.

Importing this module registers both. A process that opens a stored collection has to import it before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, cast

from .. import EmbeddingModel, SparseModel
from ..errors import InvalidInputError
from ..models.kept_options import KeptOptions, without_secrets
from .opening import name_of, needs, several, shared_model

with needs("chromadb", "chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space, SparseEmbeddingFunction
    from chromadb.api.types import SparseVector as ChromaSparseVector
    from chromadb.utils.embedding_functions import register_embedding_function, register_sparse_embedding_function

__all__ = ["FastEmbedRtEmbeddingFunction", "FastEmbedRtSparseEmbeddingFunction"]
SPACES: Mapping[str, Space] = {"cosine": "cosine", "dot": "ip", "euclidean": "l2"}
KEYS = {"model", "model_kwargs", "encode_kwargs"}
Config = dict[str, Any]


class _Configured:
    """A model's name and options as a collection stores them."""

    model_kwargs = KeptOptions()

    def __init__(
        self,
        model: str | os.PathLike[str],
        model_kwargs: Config | None = None,
        encode_kwargs: Config | None = None,
    ) -> None:
        """Name a model; it opens with the first texts, once in a process for all functions with these options.

        Args:
            model: a model directory, a checkpoint or a hub repository; the collection stores it.
            model_kwargs: options of the model's `from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of each call's `encode`, such as prompt_name, prompt, normalize, truncate_dim.
        """
        self.model, self.model_kwargs, self.encode_kwargs = name_of(model), model_kwargs or {}, encode_kwargs or {}

    def get_config(self) -> Config:
        """What `build_from_config` makes the same function of, in another process too; without a hub token."""
        options = without_secrets(self.model_kwargs)
        return {"model": self.model, "model_kwargs": options, "encode_kwargs": self.encode_kwargs}

    def validate_config_update(self, old_config: Config, new_config: Config) -> None:
        """Where a model lies may change; that it is the same one is for its fingerprint to tell."""
        self.validate_config(new_config)

    @staticmethod
    def validate_config(config: Config) -> None:
        """Raise InvalidInputError, a ValueError, for a configuration that is not one of `get_config`'s."""
        if not isinstance(config.get("model"), str) or set(config) - KEYS:
            names = ", ".join(map(repr, config))  # values may be secrets
            raise InvalidInputError(
                f"a configuration of {names or 'nothing'} is not one of fastembed-rt's: it has a str as its model, and "
                f"of {', '.join(sorted(KEYS))} what it needs"
            )


@register_embedding_function
class FastEmbedRtEmbeddingFunction(_Configured, EmbeddingFunction[Documents]):  # type: ignore[misc]  # which is not followed
    """Dense vectors for collections: documents with the model's document prompt, queries with its query prompt."""

    @property
    def client(self) -> EmbeddingModel:
        """The model itself."""
        return shared_model(EmbeddingModel, self.model, self.model_kwargs)

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's name
        """Vectors (dim,) float32 of documents, all in one call."""
        return cast(Embeddings, list(self._opened().encode_document(several(input), **self.encode_kwargs)))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's name
        """Vectors (dim,) float32 of queries."""
        return cast(Embeddings, list(self._opened().encode_query(several(input), **self.encode_kwargs)))

    @staticmethod
    def name() -> str:
        """What a collection stores of the class."""
        return "fastembed_rt"

    def default_space(self) -> Space:
        """How a collection compares unless it is told: as the model does."""
        return SPACES.get(self._opened().manifest.similarity, "cosine")

    def supported_spaces(self) -> list[Space]:
        """Chroma's three."""
        return ["cosine", "l2", "ip"]

    @staticmethod
    def build_from_config(config: Config) -> FastEmbedRtEmbeddingFunction:
        """The function of a collection that was stored."""
        FastEmbedRtEmbeddingFunction.validate_config(config)
        return FastEmbedRtEmbeddingFunction(**config)

    def _opened(self) -> EmbeddingModel:
        self._held = self.client  # as long as this function is there
        return self._held


@register_sparse_embedding_function
class FastEmbedRtSparseEmbeddingFunction(_Configured, SparseEmbeddingFunction[Documents]):  # type: ignore[misc]
    """Sparse vectors for a collection's schema: documents and queries with the model's prompts for them."""

    @property
    def client(self) -> SparseModel:
        """The model itself."""
        return shared_model(SparseModel, self.model, self.model_kwargs)

    def __call__(self, input: Documents) -> list[ChromaSparseVector]:  # noqa: A002 - Chroma's name
        """Token ids and weights of documents."""
        return self._made("encode_document", input)

    def embed_query(self, input: Documents) -> list[ChromaSparseVector]:  # noqa: A002 - Chroma's name
        """Token ids and weights of queries."""
        return self._made("encode_query", input)

    @staticmethod
    def name() -> str:
        """What a collection stores of the class."""
        return "fastembed_rt_sparse"

    @staticmethod
    def build_from_config(config: Config) -> FastEmbedRtSparseEmbeddingFunction:
        """The function of a collection that was stored."""
        FastEmbedRtSparseEmbeddingFunction.validate_config(config)
        return FastEmbedRtSparseEmbeddingFunction(**config)

    def _made(self, call: Literal["encode_document", "encode_query"], texts: Documents) -> list[ChromaSparseVector]:
        self._held = self.client
        found = getattr(self._held, call)(several(texts), **self.encode_kwargs)
        return [ChromaSparseVector(indices=one.indices.tolist(), values=one.values.tolist()) for one in found]
