"""The parity gate: vectors of a model directory beside sentence-transformers on torch, text by text, with the figures.

The texts ship with the package (data/parity.jsonl): many scripts, all lengths, odd characters.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt import EmbeddingModel
from fastembed_rt.manifest import Manifest, Variant
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.vectors.dense import Vectors

from ..checkpoint.modules import Truncate, WholeTanh
from ..checkpoint.read import Checkpoint
from ..errors import ParityError, explained
from .long_texts import Reach
from .order import ENCODE, ROLES, Known, Prepared, ask_reference, text_cases
from .parity import INT8_MIN_COSINE, Case, Comparison, ask, compare
from .reference import can_verify, check_facts, own_code, sentence_transformer, versions
from .report import Refuse, describe, details, raised, report, runs_here

__all__ = ["can_verify", "describe", "details", "own_code", "verify"]


def nothing_runs(described: Manifest) -> str | None:
    """Why no variant of a directory can be compared here, None if one can."""
    runs, others = runs_here(described)
    return None if runs else "; ".join(dict.fromkeys(others.values()))


def first_here(directory: Path, described: Manifest) -> dict[str, Any]:
    """Options with which the first variant that runs here is opened.

    Raises:
        ParityError: none does.
    """
    runs, _ = runs_here(described)
    if not runs:
        raise ParityError(f"no variant of {directory} runs here: {nothing_runs(described)}")
    return opened(*runs[0])


def opened(variant: Variant, provider: str) -> dict[str, Any]:
    """Options with which this variant is opened under this provider."""
    return {"provider": provider, "precision": variant.precision, "target": variant.target}


@dataclass(frozen=True)
class Encoder:
    """One of the encoders that a directory has: the default one, or that of a role."""

    role: str | None
    described: Manifest
    prepared: Prepared
    step: float  # between numbers of its vectors, where they were rounded; infinite where they have another scale now


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Callable[[str], None] = lambda _: None,
    *,
    min_cosine: float = INT8_MIN_COSINE,
    refuse: Refuse = raised,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Parity report of a model directory against its checkpoint, every variant of it, for the manifest.

    Args:
        directory: model directory.
        checkpoint: what it was exported from.
        say: called with one line at each step.
        min_cosine: bound for int8 variants; fp32 has its own.
        refuse: called with each variant that is out of bounds, which has no part in the report then.
        show_progress: a bar on stderr while the reference computes.

    Raises:
        ParityError: a text is tokenized differently; or, from `raised`, out of bounds: the message has the worst and
            their figures.
        MissingDependencyError: the reference is not installed.
    """
    start = time.monotonic()
    described = read_manifest(directory)
    encoders = [_encoder(directory, described, checkpoint, None)]
    encoders += [_encoder(directory, route, checkpoint.routes[role], role) for role, route in described.routes.items()]
    say(
        f"reference: {sum(encoder.prepared.compared for encoder in encoders)} texts with sentence-transformers on torch"
    )
    # One model in memory at a time: the reference first, then the sessions.
    known = _reference(directory, checkpoint, encoders, show_progress=show_progress)
    gc.collect()
    reports = []
    for encoder, theirs in zip(encoders, known, strict=True):
        if encoder.role is not None:
            say(f"{encoder.role} texts")
        reports.append(_compare(directory, encoder, theirs, start, say, min_cosine, refuse))
    return joined(reports, start)


def joined(reports: Sequence[dict[str, Any]], start: float) -> dict[str, Any]:
    """The reports of several encoders as one."""
    whole = reports[0]
    for other in reports[1:]:
        for key in ("variants", "calls", "not_compared"):
            if key in other:
                whole[key] = {**whole.get(key, {}), **other[key]}
        whole["texts"] += other["texts"]
    return {**whole, "seconds": round(time.monotonic() - start, 1)}


def _encoder(directory: Path, described: Manifest, checkpoint: Checkpoint, role: str | None) -> Encoder:
    """With the calls that go through it: plain ones and those of roles without an encoder of their own."""
    if role is None:
        calls = [ENCODE, *(call for name, (call, _) in ROLES.items() if name not in described.routes)]
    else:
        calls = [ROLES[role][0]]
    with EmbeddingModel(directory, route=role, **first_here(directory, described)) as model:
        cases = text_cases(model, calls, Reach.of(checkpoint, model.max_length))
        return Encoder(role, described, Prepared.of(model, cases), _step(checkpoint))


def _step(checkpoint: Checkpoint) -> float:
    kinds = [type(head) for head in checkpoint.heads if not isinstance(head, Truncate)]
    if WholeTanh not in kinds:
        return 0.0
    return 1.0 if kinds[-1] is WholeTanh else math.inf


def _reference(
    directory: Path, checkpoint: Checkpoint, encoders: Sequence[Encoder], *, show_progress: bool
) -> list[Known]:
    with explained(f"sentence-transformers does not load {checkpoint.name}"):
        model = sentence_transformer(checkpoint)
    check_facts(encoders[0].described, model)
    # It cuts what is normalized already.
    again = model.truncate_dim is not None and checkpoint.normalize
    options = {"show_progress_bar": False, "normalize_embeddings": again}
    with explained(f"sentence-transformers does not run {checkpoint.name}"):
        return [
            ask_reference(model, directory, one.described, one.prepared, options, show_progress=show_progress)
            for one in encoders
        ]


def _compare(
    directory: Path,
    encoder: Encoder,
    known: Known,
    start: float,
    say: Callable[[str], None],
    min_cosine: float,
    refuse: Refuse,
) -> dict[str, Any]:
    described, expected = encoder.described, np.stack(known.expected)
    if expected.shape[1] != described.dim:
        raise ParityError(f"{directory} has vectors of {described.dim} numbers, {versions()} gives {expected.shape[1]}")

    def compared(variant: Variant, provider: str) -> list[Comparison]:
        with EmbeddingModel(directory, route=encoder.role, **opened(variant, provider)) as model:
            return compare_all(known, lambda cases: np.stack(ask(model, cases)), expected, encoder.step)

    return report(described, compared, known, start, say, min_cosine, refuse)


def compare_all(
    known: Known, encode: Callable[[Sequence[Case]], Vectors], expected: Vectors, step: float = 0.0
) -> list[Comparison]:
    """Each case with its distance from what is expected (n, dim), all together, then some of them one by one."""
    compared = compare(known.cases, encode(known.cases), expected, step)
    single = np.stack([encode([known.cases[k]])[0] for k in known.alone])
    return compared + compare([known.cases[k] for k in known.alone], single, expected[known.alone], step)
