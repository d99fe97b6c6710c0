"""The parity gate of late interaction: token vectors and scores beside sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.late import LateInteractionModel
from fastembed_rt.manifest import Variant
from fastembed_rt.manifest import read as read_manifest

from ..checkpoint import Checkpoint
from ..errors import ParityError
from ..parity import Case, Comparison, Vectors, compare, parity_texts
from ..verify import REFERENCE_BATCH, first_here, opened, report, some
from .reference import require_reference, versions
from .task import Say

QUERY_WORDS = 8
QUERY, DOCUMENT = "query", "document"
SCORE_TOLERANCE = 1e-4  # of fp32 scores, on the scale of the score


@dataclass(frozen=True)
class Side:
    """Cases of one side with the vectors that they must have."""

    role: str
    cases: list[Case]
    expected: list[Vectors]


def verify(directory: Path, checkpoint: Checkpoint, say: Say = lambda _: None, *, min_cosine: float) -> dict[str, Any]:
    """Parity report: a text's token vectors, one after another, beside the reference's; see verify.verify.

    Raises:
        ParityError: vectors out of bounds, another number of them, or scores that differ where vectors do not.
    """
    start = time.monotonic()
    described = read_manifest(directory)
    with LateInteractionModel(directory, **first_here(directory, described)) as model:
        queries, documents = _cases(model)
    say(f"reference: {len(queries)} queries, {len(documents)} documents with MultiVectorEncoder on torch")
    sides, scores = _reference(checkpoint, queries, documents)
    gc.collect()

    def compared(variant: Variant, provider: str) -> list[Comparison]:
        with LateInteractionModel(directory, **opened(variant, provider)) as model:
            found = [entry for side in sides for entry in _compare(model, side)]
            if variant.precision == "fp32":
                _check_scores(model, sides, scores, variant.graph.file)
        return found

    return report(described, compared, versions(), start, len(queries) + len(documents), say, min_cosine)


def _cases(model: LateInteractionModel) -> tuple[list[Case], list[Case]]:
    """Queries and documents: the texts and their beginnings, and some that are too long."""
    texts = parity_texts()
    longest = max(texts, key=lambda case: len(case.text)).text
    times = model.document_length // max(model.count_tokens(longest), 1) + 2
    long = Case("longer-than-the-limit", " ".join([longest] * times))
    queries = [Case(case.id, " ".join(case.text.split()[:QUERY_WORDS])) for case in texts[::2]]
    return [replace(case, id=f"query {case.id}") for case in (*queries, long)], [*texts, long]


def _encode(model: Any, role: str, cases: Sequence[Case], **options: Any) -> list[Vectors]:
    encode = model.encode_query if role == QUERY else model.encode_document
    return [np.asarray(vectors, dtype=np.float32) for vectors in encode([case.text for case in cases], **options)]


def _compare(model: LateInteractionModel, side: Side) -> list[Comparison]:
    found = _encode(model, side.role, side.cases)
    compared = [_flat(*given) for given in zip(side.cases, found, side.expected, strict=True)]
    for k in some(side.cases):
        (alone,) = _encode(model, side.role, [side.cases[k]])
        compared.append(_flat(side.cases[k], alone, side.expected[k]))
    return compared


def _flat(case: Case, found: Vectors, expected: Vectors) -> Comparison:
    """A text's token vectors as one long one: its cosine is the mean over the tokens, where they have unit length.

    The difference is that of a single number, on the scale of a token's vector.
    """
    if found.shape != expected.shape:
        raise ParityError(
            f"{case.id} has token vectors of shape {found.shape}, the reference {expected.shape}: other tokens"
        )
    if not len(found):
        return Comparison(case, 1.0, 0.0)
    cosine = compare([case], found.reshape(1, -1), expected.reshape(1, -1))[0].cosine
    return Comparison(case, cosine, max(one.max_abs_diff for one in compare([case] * len(found), found, expected)))


def _check_scores(model: LateInteractionModel, sides: Sequence[Side], scores: Vectors, file: str) -> None:
    """Raise ParityError where the reference's vectors get other scores here."""
    queries, documents = (side.expected for side in sides)
    found = model.similarity(queries, documents)
    off = float((np.abs(found - scores) / np.maximum(np.abs(scores), 1.0)).max())
    if not off <= SCORE_TOLERANCE:
        raise ParityError(f"{file}: scores of the same vectors differ by {off:.2g}: another similarity")


def _reference(checkpoint: Checkpoint, queries: list[Case], documents: list[Case]) -> tuple[tuple[Side, Side], Vectors]:
    """Both sides with MultiVectorEncoder's vectors, and its scores (queries, documents)."""
    require_reference()
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(checkpoint.root), device="cpu", trust_remote_code=False, local_files_only=True)
    model = model.float().eval()
    model[0].document_length = checkpoint.max_length
    sides = []
    for role, cases in ((QUERY, queries), (DOCUMENT, documents)):
        names = [name for name in (QUERY,) if role == QUERY] or [DOCUMENT, "passage", "corpus"]
        prompt = next((checkpoint.prompts[name] for name in names if name in checkpoint.prompts), "")
        options = {"batch_size": REFERENCE_BATCH, "show_progress_bar": False, "convert_to_numpy": True}
        sides.append(Side(role, cases, _encode(model, role, cases, prompt=prompt, **options)))
    scores = model.similarity(*(side.expected for side in sides)).numpy()
    return (sides[0], sides[1]), scores.astype(np.float32)
