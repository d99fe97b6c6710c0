"""The parity gate of late interaction: token vectors and scores beside sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.manifest import Manifest, Variant
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.models.late_interaction import LateInteractionModel
from fastembed_rt.vectors.dense import Vectors

from ..checkpoint.read import Checkpoint
from ..errors import ParityError
from ..gate.long_texts import EXACT, FAR_MORE, LENGTH, LONGEST, ONE_MORE, Reach, at_limit, between, filled
from ..gate.order import ROLES, Known, Prepared, ask_reference, prompt_of
from ..gate.parity import Case, Comparison, ask, compare, parity_texts
from ..gate.reference import load
from ..gate.report import Refuse, raised, report
from ..gate.verify import first_here, opened
from .task import Say

QUERY_WORDS = 8
QUERY, DOCUMENT = (call for call, _ in ROLES.values())
SCORE_TOLERANCE = 1e-4  # of fp32 scores, on the scale of the score


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Say = lambda _: None,
    *,
    min_cosine: float,
    refuse: Refuse = raised,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Parity report: a text's token vectors, one after another, beside the reference's; see verify.verify.

    Raises:
        ParityError: vectors out of bounds, another number of them, or scores that differ where vectors do not.
    """
    start = time.monotonic()
    described = read_manifest(directory)
    with LateInteractionModel(directory, **first_here(directory, described)) as model:
        prepared = Prepared.of(model, _cases(model, checkpoint))
    say(f"reference: {prepared.compared} queries and documents with MultiVectorEncoder on torch")
    known, scores = _reference(directory, checkpoint, described, prepared, show_progress=show_progress)
    gc.collect()

    def compared(variant: Variant, provider: str) -> list[Comparison]:
        with LateInteractionModel(directory, **opened(variant, provider)) as model:
            found = _compare(model, known)
            if variant.precision == "fp32":
                _check_scores(model, known, scores, variant.graph.file)
        return found

    return report(described, compared, known, start, say, min_cosine, refuse)


def _cases(model: LateInteractionModel, checkpoint: Checkpoint) -> list[Case]:
    """Queries and documents: the texts' beginnings and the texts, and on both sides some at and beyond the limit."""
    texts = parity_texts()
    queries = [replace(case, text=" ".join(case.text.split()[:QUERY_WORDS])) for case in texts[::2]]
    cases: list[Case] = []
    for call, made, limit in ((QUERY, queries, model.query_length), (DOCUMENT, texts, model.document_length)):
        prompt = prompt_of(model, call)

        def count(text: str, prompt: str = prompt) -> int:
            return int(model.count_tokens(text, prompt=prompt))

        edges, reach = at_limit(limit, count), Reach.of(checkpoint, limit)
        beyond = limit > reach.longest
        at_edges = [Case(EXACT, edges.exact, tokens_only=beyond, kind=LENGTH)]
        at_edges += [Case(ONE_MORE, edges.one_more, tokens_only=True, kind=LENGTH)]
        at_edges += [Case(FAR_MORE, edges.far_more, tokens_only=True, kind=LENGTH)]
        if beyond:
            at_edges.append(Case(LONGEST, filled(reach.longest, count), kind=LENGTH))
        cases += [replace(case, call=call) for case in (*made, *between(reach, count), *at_edges)]
    return cases


def _compare(model: LateInteractionModel, known: Known) -> list[Comparison]:
    found = ask(model, known.cases)
    compared = [_flat(*given) for given in zip(known.cases, found, known.expected, strict=True)]
    for k in known.alone:
        (alone,) = ask(model, [known.cases[k]])
        compared.append(_flat(known.cases[k], alone, known.expected[k]))
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


def _check_scores(model: LateInteractionModel, known: Known, scores: Vectors, file: str) -> None:
    """Raise ParityError where the reference's vectors get other scores here."""
    found = model.similarity(*_sides(known))
    off = float((np.abs(found - scores) / np.maximum(np.abs(scores), 1.0)).max())
    if not off <= SCORE_TOLERANCE:
        raise ParityError(f"{file}: scores of the same vectors differ by {off:.2g}: another similarity")


def _sides(known: Known) -> tuple[list[Vectors], list[Vectors]]:
    """The reference's vectors of queries, and of documents."""
    queries, documents = (
        [vectors for case, vectors in zip(known.cases, known.expected, strict=True) if case.call == call]
        for call in (QUERY, DOCUMENT)
    )
    return queries, documents


def _reference(
    directory: Path, checkpoint: Checkpoint, described: Manifest, prepared: Prepared, *, show_progress: bool
) -> tuple[Known, Vectors]:
    """MultiVectorEncoder's vectors, (tokens, dim) each, and its scores (queries, documents)."""
    model = load("MultiVectorEncoder", checkpoint)
    if "max_length" in checkpoint.overrides:
        model[0].document_length = checkpoint.overrides["max_length"]
    options = {"show_progress_bar": False, "convert_to_numpy": True}
    known = ask_reference(model, directory, described, prepared, options, show_progress=show_progress)
    known = replace(known, expected=[np.asarray(vectors, dtype=np.float32) for vectors in known.expected])
    scores = model.similarity(*_sides(known)).numpy()
    return known, scores.astype(np.float32)
