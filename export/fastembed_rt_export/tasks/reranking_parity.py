"""The parity gate of rerankers: logits and scores of pairs beside sentence-transformers' CrossEncoder."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt.manifest import Manifest, Reranking, Variant
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.models.reranker import Reranker
from fastembed_rt.text.pairs import Pair
from fastembed_rt.vectors.dense import Vectors

from ..checkpoint.read import Checkpoint
from ..errors import MissingDependencyError, ParityError
from ..gate.long_texts import EXACT, FAR_MORE, LENGTH, LONGEST, ONE_MORE, SHORT, Reach, at_limit, between, filled
from ..gate.order import Known, Prepared, ask_reference
from ..gate.parity import NO_PROMPT, Bounds, Case, Fidelity, ask, bounds, parity_texts
from ..gate.reference import can_verify, check_facts, load, set_max_length, versions
from ..gate.report import Refuse, of_variants, raised
from ..gate.verify import first_here, opened
from .next_word import NextWord, Reference
from .pooled_score import is_pooled
from .task import Say

PREDICT = "predict"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score"
QUERY_WORDS = 8
LONGEST_TEXT = 8  # characters for each token that fits
SCORE_TOLERANCE = 1e-3  # of fp32 scores, on the scale of the score


def pairs_of(texts: Sequence[str]) -> list[Pair]:
    """Pairs to score: the beginning of each text with the text itself, or in turn with the following one."""
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts]
    return [(query, texts[(k + k % 2) % len(texts)]) for k, query in enumerate(queries)]


def fidelity(outputs: Vectors, expected: Vectors) -> Fidelity:
    """Correlation of logits (n, labels) with those expected, of the worst label: whatever their scale and offset.

    A cosine says nothing of single numbers, and an order of documents does not change with scale and offset.
    """
    found = [_correlation(outputs[:, k], expected[:, k]) for k in range(expected.shape[1])]
    return Fidelity(float(np.mean(found)), min(found), min(found), "correlation")


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Say = lambda _: None,
    *,
    min_cosine: float,
    refuse: Refuse = raised,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Parity report: logits and scores of pairs beside sentence-transformers' CrossEncoder; see verify.verify.

    fp32 keeps to its bound on differences, on the scale of the logits where they are over 1; int8 to `min_cosine` as
    a bound on the correlation.
    """
    start = time.monotonic()
    described = read_manifest(directory)
    assert described.reranking is not None  # the manifest is checked at birth
    with Reranker(directory, **first_here(directory, described)) as model:
        prepared = Prepared.of(model, _cases(model, checkpoint))
    say(f"reference: {prepared.compared} pairs with sentence-transformers' CrossEncoder on torch")
    known, scores = _reference(
        directory, checkpoint, described, prepared, described.reranking, show_progress=show_progress
    )
    alone = [known.cases[k] for k in known.alone]
    theirs = _rows([*known.expected, *(known.expected[k] for k in known.alone)])

    def figures(variant: Variant, provider: str) -> dict[str, Any]:
        file = variant.graph.file
        with Reranker(directory, **opened(variant, provider)) as model:
            found = ask(model, known.cases, activation="identity")
            single = [ask(model, [case], activation="identity")[0] for case in alone]
            activated = _rows(ask(model, known.cases))
        ours = _rows([*found, *single])
        compared = _compare(variant.precision, ours, theirs, bounds(variant.precision, min_cosine), file)
        off = float(np.abs(activated - scores).max())
        if variant.precision == "fp32" and off > SCORE_TOLERANCE * max(1.0, float(np.abs(scores).max())):
            raise ParityError(f"{file}: scores differ by {off:.2g} where logits do not: not the activation")
        return {**compared, "kinds": _by_kind([*known.cases, *alone], _scaled(ours, theirs))}

    return {
        "status": "passed",
        "reference": versions(),
        "pairs": len(known.cases),
        "calls": known.calls,
        "prompts": sorted(described.prompts),
        **of_variants(described, figures, say, refuse),
        "seconds": round(time.monotonic() - start, 1),
    }


def _compare(precision: str, ours: Vectors, theirs: Vectors, bound: Bounds, file: str) -> dict[str, Any]:
    correlation, scaled = fidelity(ours, theirs).min_cosine, _scaled(ours, theirs)
    if not correlation >= bound.min_cosine or not (bound.max_abs_diff is None or scaled.max() <= bound.max_abs_diff):
        near = "" if bound.max_abs_diff is None else f", difference <= {bound.max_abs_diff:g}"
        raise ParityError(
            f"{file}: logits of {len(theirs)} pairs against {versions()} are out of bounds: correlation "
            f"{correlation:.6f}, largest difference {scaled.max():.2e} (correlation >= {bound.min_cosine}{near})"
        )
    return {
        "precision": precision,
        "comparisons": len(theirs),
        "correlation": round(correlation, 9),
        "max_abs_diff": _short(float(scaled.max())),
        "bounds": {"min_correlation": bound.min_cosine, "max_abs_diff": bound.max_abs_diff},
    }


def _scaled(ours: Vectors, theirs: Vectors) -> npt.NDArray[np.float64]:
    """Differences of logits on their own scale where they are over 1: (n, labels)."""
    difference: npt.NDArray[np.float64] = np.abs(ours.astype(np.float64) - theirs) / np.maximum(np.abs(theirs), 1.0)
    return difference


def _by_kind(cases: Sequence[Case], scaled: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    """Differences of each kind of pair for the manifest, the kind with the largest first; logits have no cosine."""
    found: dict[str, list[float]] = {}
    for case, row in zip(cases, scaled, strict=True):
        found.setdefault(case.kind, []).append(float(row.max()))
    return [
        {"kind": kind, "n": len(own), "mean_abs_diff": _short(float(np.mean(own))), "max_abs_diff": _short(max(own))}
        for kind, own in sorted(found.items(), key=lambda item: -max(item[1]))
    ]


def _short(number: float) -> float:
    return float(f"{number:.3g}")


def _cases(model: Reranker, checkpoint: Checkpoint) -> list[Case]:
    """Pairs of the parity texts, some of which one or both texts are too long, and pairs at the limit."""
    # Far beyond the limit all is cut, and a long pair costs the reference the product of its lengths.
    texts = [replace(case, text=case.text[: LONGEST_TEXT * model.max_length]) for case in parity_texts()]
    short, limit = texts[0].text[: 4 * QUERY_WORDS], model.max_length

    def count(text: str) -> int:
        return int(model.count_tokens((short, text)))

    edges, reach = at_limit(limit, count), Reach.of(checkpoint, limit)
    far, above = edges.far_more, limit > reach.longest
    pairs = pairs_of([case.text for case in texts])
    cases = [Case(case.id, pair[0], second=pair[1], kind=case.kind) for case, pair in zip(texts, pairs, strict=True)]
    at_edges = [
        Case(EXACT, short, second=edges.exact, tokens_only=above),
        Case(ONE_MORE, short, second=edges.one_more, tokens_only=True),
        Case(f"{ONE_MORE}-first", edges.one_more, second=short, tokens_only=True),
        Case(FAR_MORE, short, second=far, tokens_only=limit > SHORT),
        Case(f"{FAR_MORE}-first", far, second=short, tokens_only=limit > SHORT),
        Case(f"{FAR_MORE}-both", far, second=far, tokens_only=limit > SHORT),
    ]
    if above:
        at_edges.append(Case(LONGEST, short, second=filled(reach.longest, count)))
    cases.append(Case("two-empty-texts", "", second="", kind="empty"))
    cases += [replace(case, text=short, second=case.text) for case in between(reach, count)]
    cases += [replace(case, kind=LENGTH) for case in at_edges]
    cases = [replace(case, call=PREDICT) for case in cases]
    named = [name for name, text in model.prompts.items() if text]
    named += [NO_PROMPT] if model.default_prompt_name else []
    once = {EXACT, LONGEST} if limit > SHORT else set()  # a long pair becomes a score once
    return cases + [
        replace(case, prompt_name=name, tokens_only=case.tokens_only or case.id in once)
        for name in named
        for case in cases
    ]


def _rows(scores: Sequence[Any]) -> Vectors:
    """Logits or scores, a number or one for each label: (n, labels)."""
    return np.asarray(scores, dtype=np.float32).reshape(len(scores), -1)


def _reference(
    directory: Path,
    checkpoint: Checkpoint,
    described: Manifest,
    prepared: Prepared,
    about: Reranking,
    *,
    show_progress: bool,
) -> tuple[Known, Vectors]:
    """CrossEncoder's logits of each pair, and the scores of all: (n, labels)."""
    made_of = getattr(checkpoint.head, "made_of", None)
    if isinstance(made_of, NextWord):
        model: Any = Reference(checkpoint, made_of)
    else:
        if about.chat is not None or about.score_tokens or is_pooled(checkpoint.root):
            _check_version()
        model = load("CrossEncoder", checkpoint)
    import torch

    set_max_length(model, checkpoint)
    if (count := int(getattr(model, "num_labels", 0) or model.config.num_labels)) != len(about.labels):
        raise ParityError(f"the export has {len(about.labels)} labels, CrossEncoder {count}")
    check_facts(described, model)
    quiet = {"show_progress_bar": False}
    own = getattr(model, "activation_fn", None)
    plain = {"activation_fn": torch.nn.Identity()}
    known = ask_reference(model, directory, described, prepared, quiet, plain, show_progress=show_progress)
    with torch.inference_mode():
        logits = torch.tensor(_rows(known.expected))
        scores = logits if own is None else own(logits)
    return known, scores.numpy()


def _check_version() -> None:
    """Raise MissingDependencyError where CrossEncoder knows neither chat templates nor modules: they came together."""
    try:
        found = importlib.util.find_spec(LOGIT_SCORE) is not None
    except ModuleNotFoundError:  # nor the package that it is in, or none of sentence-transformers
        found = False
    if not found and can_verify() is None:
        raise MissingDependencyError(
            f"{versions()}: its CrossEncoder knows no chat templates and no modules to compare with; "
            "pip install -U 'sentence-transformers>=5.4'"
        )


def _correlation(a: Vectors, b: Vectors) -> float:
    """Pearson's; 1 where both are constant and the same."""
    x, y = a.astype(np.float64) - a.mean(dtype=np.float64), b.astype(np.float64) - b.mean(dtype=np.float64)
    if np.array_equal(x, y):
        return 1.0
    power = float(np.sqrt(np.vdot(x, x) * np.vdot(y, y)))
    return float(np.vdot(x, y)) / power if power else 0.0
