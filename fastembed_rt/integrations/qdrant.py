"""Qdrant: `models.Document` inference by our models where qdrant-client looks for fastembed's. Needs qdrant-client.

The classes are those of `fastembed_rt.compat.fastembed` with the model's prompts: points as documents, queries as
queries.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from .. import manifest
from ..compat import fastembed
from ..compat.fastembed.base import Entry, FastembedModel, pieces, texts_of
from ..errors import InvalidInputError, InvalidTypeError
from ..manifest import EMBEDDING, LATE_INTERACTION, SPARSE
from ..text.windows import TEXTS
from .opening import needs

with needs("qdrant-client", "qdrant"):
    import qdrant_client.embed.embedder
    import qdrant_client.fastembed_common
    from qdrant_client import models

__all__ = ["LateInteractionTextEmbedding", "SparseTextEmbedding", "TextEmbedding", "distance", "register"]


class _WithPrompts(FastembedModel):
    def embed(self, documents: str | Iterable[str], *_: Any, **__: Any) -> Iterator[Any]:
        """Vectors of documents, in order, with the model's prompt for them."""
        return self._with(self.model.get().encode_document, documents)

    def query_embed(self, query: str | Iterable[str], *_: Any, **__: Any) -> Iterator[Any]:
        """Vectors of queries, in order, with the model's prompt for them."""
        return self._with(self.model.get().encode_query, query)

    def _with(self, encode: Any, texts: str | Iterable[str]) -> Iterator[Any]:
        for piece in pieces(texts_of(texts), TEXTS):
            yield from encode(piece)


class TextEmbedding(_WithPrompts, fastembed.TextEmbedding):
    """A sentence encoder."""

    registered: ClassVar[dict[str, Entry]] = {}


class SparseTextEmbedding(_WithPrompts, fastembed.SparseTextEmbedding):
    """A sparse encoder."""

    registered: ClassVar[dict[str, Entry]] = {}


class LateInteractionTextEmbedding(_WithPrompts, fastembed.LateInteractionTextEmbedding):
    """A late-interaction encoder: a vector a token."""

    registered: ClassVar[dict[str, Entry]] = {}


CLASSES: Mapping[str, Any] = {
    EMBEDDING: TextEmbedding,
    SPARSE: SparseTextEmbedding,
    LATE_INTERACTION: LateInteractionTextEmbedding,
}
DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}


def register(names: Mapping[str, str | os.PathLike[str]]) -> None:
    """Let qdrant-client embed `models.Document(text=..., model=NAME)` with these model directories.

    In local mode and before points are sent to a server alike. Call it before a client is made. fastembed, where it is
    installed, is not used by qdrant-client in this process any more; its own models are not there. Options of a
    document, such as options={"precision": "int8", "threads": 4}, are those of the model's class.

    Args:
        names: model directories by the names that documents have.

    Raises:
        InvalidTypeError: something that is not directories by name.
        InvalidInputError: a name that another directory has, a reranker, which gives no vectors.
        ModelFormatError and others: a directory that cannot be read.
    """
    if not isinstance(names, Mapping):
        raise InvalidTypeError(f"names are {type(names).__name__}, expected directories by name")
    for name, place in names.items():
        described = manifest.read(Path(place))
        kind = CLASSES.get(described.task)
        if kind is None:
            raise InvalidInputError(f"{name}: a model for {described.task} gives no vectors; Qdrant stores vectors")
        source = str(Path(place).resolve())
        known = [other.registered[name.lower()][0] for other in CLASSES.values() if name.lower() in other.registered]
        if any(one.sources.hf != source for one in known):
            raise InvalidInputError(f"{known[0].model} is registered for {known[0].sources.hf}; choose another name")
        if not known:
            dim = {} if described.task == SPARSE else {"dim": described.dim}
            kind.add_custom_model(name, sources=fastembed.ModelSource(hf=source), **dim)
    for module in (qdrant_client.embed.embedder, qdrant_client.fastembed_common):
        for kind in CLASSES.values():
            setattr(module, kind.__name__, kind)
        for other in ("ImageEmbedding", "LateInteractionMultimodalEmbedding"):
            setattr(module, other, None)
    qdrant_client.fastembed_common.FastEmbedMisc.IS_INSTALLED = True


def distance(place: str | os.PathLike[str]) -> models.Distance:
    """How Qdrant compares the vectors of a model directory as the model does: for `VectorParams(distance=)`."""
    found: models.Distance = DISTANCES.get(manifest.read(Path(place)).similarity, models.Distance.DOT)
    return found
