"""Scores of texts beside another by a model of any task: a cross-encoder's, or the similarity of vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..manifest import EMBEDDING, LATE_INTERACTION, RERANKING
from .requests import prompt_used

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..models.embedding import EmbeddingModel
    from ..models.late_interaction import LateInteractionModel
    from ..models.reranker import Reranker
    from ..models.sparse import SparseModel
    from .opening import Model
    from .readers import Record

    Encoder = EmbeddingModel | SparseModel

PIECE = 512  # pairs that a cross-encoder is given at a time
VECTORS = 256  # of documents that are held at a time
Scores = npt.NDArray[np.float32]


def measure(model: Model) -> str:
    """What the scores are, in words."""
    if model.task == RERANKING:
        activation = cast("Reranker", model).activation
        return "cross-encoder scores" + (f" ({activation})" if activation != "identity" else " (logits)")
    if model.task == LATE_INTERACTION:
        return f"{cast('LateInteractionModel', model).similarity_name} of token vectors"
    name = model.manifest.similarity
    negated = ", negated" if name in ("euclidean", "manhattan") else ""
    kind = "vectors" if model.task == EMBEDDING else "sparse vectors"
    return f"{name} of {kind}{negated}"


def names(model: Model) -> tuple[str, ...]:
    """Of a pair's scores: the labels of a reranker that has several."""
    labels = cast("Reranker", model).labels if model.task == RERANKING else ()
    return labels if len(labels) > 1 else ("score",)


def check(described: Manifest, document_prompt: str | None) -> None:
    """Raise InvalidInputError for a reranker whose scores are no order, or with a prompt where it has none."""
    check_order(described, "this model", "use fastembed-rt similar for the scores of pairs")
    if described.reranking is not None and document_prompt is not None:
        raise InvalidInputError("--document-prompt is for models with vectors, this one scores pairs; drop it")


def check_order(described: Manifest, what: str, instead: str) -> None:
    """Raise InvalidInputError for a reranker whose scores are no order: what it is called, and what to do instead."""
    labels = ("",) if described.reranking is None else described.reranking.labels
    if len(labels) != 1:
        raise InvalidInputError(
            f"{what} gives {len(labels)} scores a pair ({', '.join(labels)}), so it has no order of relevance; "
            f"{instead}"
        )


def against(
    model: Model, query: str, texts: Iterable[str], *, query_prompt: str | None, document_prompt: str | None
) -> Iterator[float]:
    """The score of each text to the query, in order; vectors are held some at a time.

    Prompts are texts; None takes the model's own for queries and for documents.
    """
    if model.task == RERANKING:
        for piece in _pieces(texts, PIECE):
            pairs = [(query, text) for text in piece]
            yield from cast("Reranker", model).predict(pairs, prompt=query_prompt).tolist()
        return
    left: Any = cast("Encoder | LateInteractionModel", model).encode_query(query, prompt=query_prompt)
    stream: Iterator[Any]
    if model.task == LATE_INTERACTION:
        stream = cast("LateInteractionModel", model).embed_documents(texts, prompt=document_prompt)
    else:
        stream = _documents(cast("Encoder", model), texts, document_prompt)
    for vectors in _pieces(stream, VECTORS):
        yield from cast("Any", model).similarity(left, vectors)[0].tolist()


def _documents(model: Encoder, texts: Iterable[str], prompt: str | None) -> Iterator[Any]:
    """Vectors of documents, as `encode_document` gives them, one by one."""
    from ..models.prompts import DOCUMENT_PROMPTS, of_role

    prompts = of_role(DOCUMENT_PROMPTS, model.prompts, {"prompt": prompt})
    if hasattr(model, "for_role"):
        model = model.for_role("document")
    return model.embed(texts, **prompts)


def of_pairs(
    model: Model, records: Iterable[Record], *, prompt_name: str | None, prompt: str | None
) -> Iterator[tuple[Record, Scores]]:
    """Each record with the scores of its two texts, in order: (1,), or (labels,) of a reranker with several.

    Both texts are encoded alike, with the prompt or the model's default one; by late interaction, the first is a query
    and the second a document, whose own prompts the prompt takes the place of. A reranker has it before the first.
    """
    for piece in _pieces(records, PIECE if model.task == RERANKING else VECTORS):
        pairs = [(record.text, record.second) for record in piece]
        yield from zip(piece, _scored(model, pairs, {"prompt_name": prompt_name, "prompt": prompt}), strict=True)


def _scored(model: Any, pairs: Sequence[tuple[str, str]], prompts: dict[str, str | None]) -> Iterator[Scores]:
    if model.task == RERANKING:
        yield from model.predict(pairs, **prompts).reshape(len(pairs), -1)
        return
    first, second = map(list, zip(*pairs, strict=True))
    if model.task == LATE_INTERACTION:
        left, right = model.encode_query(first, **prompts), model.encode_document(second, **prompts)
    else:
        both = model.encode([*first, *second], **prompts)
        left, right = both[: len(first)], both[len(first) :]
    for one, other in zip(left, right, strict=True):
        yield model.similarity(one, other)[0]


def _pieces(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece


def prompts_used(model: Model, query_prompt: str | None, document_prompt: str | None) -> Iterator[str]:
    """Which prompts of the model's stood before the query and the texts."""
    if model.task == RERANKING:  # as `predict`: the default one, in front of the query
        used = prompt_used(model, {"prompt_name": None, "prompt": query_prompt})
        yield from filter(None, [used])
        return
    from ..models.prompts import ROLE_PROMPTS, of_role

    for role, given in (("query", query_prompt), ("document", document_prompt)):
        used = prompt_used(model, of_role(ROLE_PROMPTS[role], model.prompts, {"prompt_name": None, "prompt": given}))
        yield from filter(None, [used])


def short(score: float) -> float:
    """A float32 with the digits that tell it from others, and no more, for JSON."""
    return float(str(np.float32(score)))
