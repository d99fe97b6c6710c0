"""spaCy: a pipeline component that gives each Doc the model's vector. Needs spacy alone.

Installed, `nlp.add_pipe("fastembed_rt")` finds it by the entry point; importing this module registers it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import EmbeddingModel
from ..errors import InvalidInputError
from ..models.prompts import OF_ROLES, check_role, of_role
from ..vectors.dense import Vectors
from .opening import needs, open_model, refuse_secrets

with needs("spacy", "spacy"):
    from spacy.language import Language
    from spacy.tokens import Doc, Span
    from spacy.util import minibatch

__all__ = ["NAME", "FastEmbedRtVectors", "attach", "make"]
NAME = "fastembed_rt"
EXTENSION = "embedding"  # doc._.embedding, which is saved with a Doc
BATCH = 1000  # Docs of one call of the model


class FastEmbedRtVectors:
    """Sets `doc.vector` and `doc._.embedding`; with them `doc.similarity` is the model's."""

    def __init__(
        self,
        name: str,
        model: str | EmbeddingModel,
        *,
        role: str | None = None,
        batch_size: int = BATCH,
        model_kwargs: Mapping[str, Any] | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the model; see `make`."""
        if role is not None:
            check_role(role)
        self.name, self.batch_size = name, batch_size
        self.client = open_model(EmbeddingModel, model, model_kwargs)
        self._options = dict(encode_kwargs or {})
        self._encoder = self.client
        if role is not None:
            self._options = of_role(OF_ROLES[role], self.client.prompts, self._options)
            self._encoder = self.client.for_role(role)
        if not Doc.has_extension(EXTENSION):
            Doc.set_extension(EXTENSION, default=None)

    def __call__(self, doc: Doc) -> Doc:
        """One Doc with its vector."""
        self._set(doc, self.encode(doc.text))
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int | None = None) -> Iterator[Doc]:
        """Docs with their vectors, in order; a call of the model for the component's batch_size of them.

        spaCy's own `batch_size` is for components that hold a batch's states, and too small here.
        """
        for docs in minibatch(stream, self.batch_size):
            found = list(docs)
            for doc, vector in zip(found, self.encode([doc.text for doc in found]), strict=True):
                self._set(doc, vector)
            yield from found

    def encode(self, texts: str | list[str]) -> Vectors:
        """What the component gives for texts: (dim,) or (n, dim)."""
        vectors: Vectors = self._encoder.encode(texts, **self._options)
        return vectors

    def _set(self, doc: Doc, vector: Vectors) -> None:
        doc._.set(EXTENSION, vector)
        attach(doc)
        doc.user_span_hooks["vector"] = self._of_span
        doc.user_span_hooks["has_vector"] = _yes

    def _of_span(self, span: Span) -> Vectors:
        return self.encode(span.text)


def attach(doc: Doc) -> Doc:
    """Let `doc.vector` be `doc._.embedding` again: a Doc that was saved or came from another process lost it."""
    vector = doc._.get(EXTENSION)
    if vector is None:
        raise InvalidInputError(
            f"the Doc has no doc._.{EXTENSION}: no component {NAME!r} saw it, or it was saved without its user data"
        )
    doc.vector = np.asarray(vector)
    doc.user_hooks["has_vector"] = _yes
    doc.user_hooks["similarity"] = _cosine
    return doc


def _yes(_: Any) -> bool:
    return True


def _cosine(doc: Doc, other: Any) -> float:
    """As spaCy computes it, without its warning that the pipeline has no vectors of words."""
    left, right = np.asarray(doc.vector, np.float64), np.asarray(other.vector, np.float64)
    lengths = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / lengths if lengths else 0.0


@Language.factory(
    NAME,
    assigns=["doc._.embedding"],
    default_config={"role": None, "batch_size": BATCH, "model_kwargs": {}, "encode_kwargs": {}},
)
def make(
    nlp: Language,
    name: str,
    model: str,
    role: str | None,
    batch_size: int,
    model_kwargs: dict[str, Any],
    encode_kwargs: dict[str, Any],
) -> FastEmbedRtVectors:
    """The component from a pipeline's config.

    Args:
        nlp: the pipeline.
        name: of the component in it.
        model: a model directory, a checkpoint or a hub repository.
        role: "query" or "document" for the prompt and the encoder of that role; None: those of `encode`.
        batch_size: Docs of one call of the model.
        model_kwargs: options of `EmbeddingModel.from_checkpoint`.
        encode_kwargs: options of each call's `encode`.

    Raises:
        InvalidInputError: a hub token, which the pipeline would store with its config.
    """
    refuse_secrets(model_kwargs, "model_kwargs", "the pipeline")
    return FastEmbedRtVectors(
        name, model, role=role, batch_size=batch_size, model_kwargs=model_kwargs, encode_kwargs=encode_kwargs
    )
