"""txtai: dense and sparse vectors by path, a function for method="external", similarity for its Reranker.

Needs txtai alone (sparse vectors: its extra "vectors").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import EmbeddingModel, Reranker, SparseModel
from ..errors import InvalidInputError
from ..vectors.dense import Vectors
from .opening import needs, open_model, refuse_secrets, several

with needs("txtai", "txtai"):
    from txtai.vectors import Vectors as TheirVectors
    from txtai.vectors.sparse.base import SparseVectors

__all__ = ["FastEmbedRtSimilarity", "FastEmbedRtSparseVectors", "FastEmbedRtVectors", "transform"]
QUERY, DATA = "query", "data"  # txtai's categories


class FastEmbedRtVectors(TheirVectors):
    """Vectors of an EmbeddingModel: data with its document prompt, queries with its query prompt.

    As `method`, by its name `"fastembed_rt.integrations.txtai.FastEmbedRtVectors"`, so that an index which was saved
    opens in another process. `path` is the model; `vectors` holds options of `EmbeddingModel.from_checkpoint`, and
    `encodeargs` those of each call's `encode`. Where `instructions` are configured, they stand in front instead.
    """

    def loadmodel(self, path: str) -> EmbeddingModel:
        """The model of the configuration's path.

        Raises:
            InvalidInputError: a hub token in `vectors`, which txtai would store with the index.
        """
        return open_model(EmbeddingModel, path, _stored(self.config))

    def encode(self, data: Sequence[str], category: str | None = None) -> Vectors:
        """Vectors (n, dim) of texts in that category."""
        found: Vectors = _encoder(self, category)(list(data), **_options(self))
        return found

    def normalize(self, embeddings: Vectors) -> Vectors:
        """Vectors of unit length; those of a model that normalizes have it already, and are not divided again."""
        cut = embeddings.ndim == 2 and embeddings.shape[1] < self.model.dim
        if self.model.manifest.normalize and not cut:
            return embeddings
        made: Vectors = super().normalize(embeddings)
        return made


class FastEmbedRtSparseVectors(SparseVectors):
    """Weights of words of a SparseModel, as a SciPy matrix (n, vocabulary).

    As `vectormethod` of a `scoring` configuration, by its name; other settings as for FastEmbedRtVectors.
    """

    def loadmodel(self, path: str) -> SparseModel:
        """The model of the configuration's path.

        Raises:
            InvalidInputError: a hub token in `vectors`, which txtai would store with the index.
        """
        return open_model(SparseModel, path, _stored(self.config))

    def encode(self, data: Sequence[str], category: str | None = None) -> Any:
        """Weights (n, vocabulary) of texts in that category."""
        from scipy.sparse import csr_matrix

        found = _encoder(self, category)(list(data), **_options(self))
        ends = np.cumsum([0, *map(len, found)])
        indices = np.concatenate([vector.indices for vector in found]) if found else np.empty(0, np.int64)
        values = np.concatenate([vector.values for vector in found]) if found else np.empty(0, np.float32)
        return csr_matrix((values, indices, ends), shape=(len(found), self.model.dim))

    def defaultnormalize(self) -> bool:
        """Whether vectors are divided by their length: where the model's similarity is the cosine."""
        similarity: str = self.model.manifest.similarity
        return similarity == "cosine"


def _stored(config: Mapping[str, Any]) -> Mapping[str, Any]:
    options: Mapping[str, Any] = config.get("vectors") or {}
    refuse_secrets(options, "vectors", "the index")
    return options


def _encoder(vectors: Any, category: str | None) -> Callable[..., Any]:
    ways = {QUERY: vectors.model.encode_query, DATA: vectors.model.encode_document}
    found: Callable[..., Any] = ways.get(category or "", vectors.model.encode)
    return found


def _options(vectors: Any) -> dict[str, Any]:
    """Of `encode`; instructions, which stand before the texts already, take the prompts' place."""
    return {**({"prompt": ""} if vectors.instructions else {}), **vectors.config.get("encodeargs", {})}


def transform(
    model: str | os.PathLike[str] | EmbeddingModel,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    **encode_kwargs: Any,
) -> Callable[[list[str]], Vectors]:
    """A function for `Embeddings(method="external", transform=...)`, which does not say what is a query.

    Texts have the model's default prompt, if it has one, or that of encode_kwargs.
    """
    opened = open_model(EmbeddingModel, model, model_kwargs)

    def vectors(texts: list[str]) -> Vectors:
        found: Vectors = opened.encode(list(texts), **encode_kwargs)
        return found

    return vectors


class FastEmbedRtSimilarity:
    """Scores of texts for a query, for `txtai.pipeline.Reranker(embeddings, similarity)`."""

    def __init__(
        self, model: str | os.PathLike[str] | Reranker, *, model_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Open the model, a Reranker."""
        self.client = open_model(Reranker, model, model_kwargs)
        if len(self.client.labels) != 1:
            raise InvalidInputError(f"this model gives {len(self.client.labels)} scores a pair, and similarity is one")

    def __call__(self, query: str | list[str], texts: list[str], multilabel: bool | None = True, **_: Any) -> list[Any]:
        """(index, score) of each text, best first; for a list of queries a list of those.

        `multilabel` as in txtai: True gives scores from 0 to 1 (a sigmoid), None the model's logits, False shares of
        the texts that sum to 1.
        """
        queries, texts = [query] if isinstance(query, str) else several(query), several(texts)
        activation = "sigmoid" if multilabel else "identity"
        rows = []
        for each in queries:
            scores = np.asarray(self.client.predict([(each, text) for text in texts], activation=activation))
            if multilabel is False:
                powers = np.exp(scores.astype(np.float64) - scores.max(initial=-np.inf))
                scores = powers / powers.sum()
            order = np.argsort(-scores, kind="stable")
            rows.append([(int(k), float(scores[k])) for k in order])
        return rows[0] if isinstance(query, str) else rows
