"""The parity gate: vectors of a model directory beside sentence-transformers on torch, text by text, with the figures.

The texts ship with the package (data/parity.jsonl): many scripts, all lengths, odd characters.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.manifest import LATE_INTERACTION, SPARSE, Manifest, Variant
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.providers import PROVIDERS, obstacle

from .checkpoint import Checkpoint
from .errors import ParityError, explained
from .gate import ENCODE, ROLES, Known, Prepared, ask_reference, text_cases
from .long_texts import longest_compared
from .parity import INT8_MIN_COSINE, Bounds, Case, Comparison, Vectors, ask, bounds, compare
from .reference import can_verify, check_facts, own_code, sentence_transformer, versions

# What cosines are of, where they are not of texts' vectors.
OUTPUTS = {SPARSE: "word weights", LATE_INTERACTION: "token vectors"}
__all__ = ["can_verify", "describe", "details", "own_code", "verify"]


def runs_here(described: Manifest) -> tuple[list[tuple[Variant, str]], dict[str, str]]:
    """Variants that run on this machine, each with the provider it was made for; files of the others, and why not."""
    runs, others = [], {}
    for variant in described.variants:
        provider = variant.target if variant.target in PROVIDERS else "cpu"
        why, what = None if provider == "cpu" else obstacle(provider), f"provider {provider!r}"
        if variant.target == "native":
            why, what = native.why_not(), "target 'native'"
        if why is None:
            runs.append((variant, provider))
        else:
            others[variant.graph.file] = f"{what}: {why}"
    return runs, others


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


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Callable[[str], None] = lambda _: None,
    *,
    min_cosine: float = INT8_MIN_COSINE,
) -> dict[str, Any]:
    """Parity report of a model directory against its checkpoint, every variant of it, for the manifest.

    Args:
        directory: model directory.
        checkpoint: what it was exported from.
        say: called with one line at each step.
        min_cosine: bound for int8 variants; fp32 has its own.

    Raises:
        ParityError: a text is tokenized differently or out of bounds; the message has the worst and their figures.
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
    known = _reference(directory, checkpoint, encoders)
    gc.collect()
    reports = []
    for encoder, theirs in zip(encoders, known, strict=True):
        if encoder.role is not None:
            say(f"{encoder.role} texts")
        reports.append(_compare(directory, encoder, theirs, start, say, min_cosine))
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
        cases = text_cases(model, calls, longest_compared(checkpoint, model.max_length))
        return Encoder(role, described, Prepared.of(model, cases))


def _reference(directory: Path, checkpoint: Checkpoint, encoders: Sequence[Encoder]) -> list[Known]:
    with explained(f"sentence-transformers does not load {checkpoint.name}"):
        model = sentence_transformer(checkpoint)
    check_facts(encoders[0].described, model)
    # It cuts what is normalized already.
    again = model.truncate_dim is not None and checkpoint.normalize
    options = {"show_progress_bar": False, "normalize_embeddings": again}
    with explained(f"sentence-transformers does not run {checkpoint.name}"):
        return [ask_reference(model, directory, one.described, one.prepared, options) for one in encoders]


def _compare(
    directory: Path, encoder: Encoder, known: Known, start: float, say: Callable[[str], None], min_cosine: float
) -> dict[str, Any]:
    described, expected = encoder.described, np.stack(known.expected)
    if expected.shape[1] != described.dim:
        raise ParityError(f"{directory} has vectors of {described.dim} numbers, {versions()} gives {expected.shape[1]}")

    def compared(variant: Variant, provider: str) -> list[Comparison]:
        with EmbeddingModel(directory, route=encoder.role, **opened(variant, provider)) as model:
            return compare_all(known, lambda cases: np.stack(ask(model, cases)), expected)

    return report(described, compared, known, start, say, min_cosine)


def compare_all(known: Known, encode: Callable[[Sequence[Case]], Vectors], expected: Vectors) -> list[Comparison]:
    """Each case with its distance from what is expected (n, dim), all together, then some of them one by one."""
    compared = compare(known.cases, encode(known.cases), expected)
    single = np.stack([encode([known.cases[k]])[0] for k in known.alone])
    return compared + compare([known.cases[k] for k in known.alone], single, expected[known.alone])


def report(
    described: Manifest,
    compared_of: Callable[[Variant, str], list[Comparison]],
    known: Known,
    start: float,
    say: Callable[[str], None],
    min_cosine: float,
) -> dict[str, Any]:
    """The parity report from the comparisons of each variant that runs here, under its provider.

    Raises:
        ParityError: one is out of bounds; the message has the worst ones.
    """
    reports = {}
    runs, others = runs_here(described)
    for file, why in others.items():
        say(f"not compared: {file} ({why})")
    for variant, provider in runs:
        say(f"comparing {variant.graph.file}")
        compared = compared_of(variant, provider)
        bound = bounds(variant.precision, min_cosine)
        of = OUTPUTS.get(described.task)
        reports[variant.graph.file] = {**_figures(variant.precision, compared, bound), **({"of": of} if of else {})}
        failed = [entry for entry in compared if not entry.within(bound)]
        if failed:
            worst = "; ".join(map(str, sorted(failed, key=lambda e: (e.cosine, -e.max_abs_diff))[:5]))
            near = "" if bound.max_abs_diff is None else f", difference <= {bound.max_abs_diff:g}"
            raise ParityError(
                f"{variant.graph.file}: {len(failed)} of {len(compared)} comparisons with {versions()} are out of "
                f"bounds (cosine{f' of {of}' if of else ''} >= {bound.min_cosine}{near}); worst: {worst}"
            )
    return {
        "status": "passed",
        "reference": versions(),
        "texts": len(known.cases),
        "calls": known.calls,
        "prompts": sorted(described.prompts),
        "variants": reports,
        **({"not_compared": others} if others else {}),
        "seconds": round(time.monotonic() - start, 1),
    }


def _figures(precision: str, compared: Sequence[Comparison], bound: Bounds) -> dict[str, Any]:
    cosines = [entry.cosine for entry in compared]
    worst = sorted(compared, key=lambda entry: (entry.cosine, -entry.max_abs_diff))[:3]
    return {
        "precision": precision,
        "comparisons": len(compared),
        "mean_cosine": round(float(np.mean(cosines)), 9),
        "min_cosine": round(min(cosines), 9),
        "max_abs_diff": float(f"{max(entry.max_abs_diff for entry in compared):.3g}"),
        "bounds": asdict(bound),
        "worst": [entry.as_dict() for entry in worst],
    }


def describe(parity: Mapping[str, Any]) -> str:
    """One line of a parity report."""
    if parity.get("status") != "passed":
        reason = parity.get("reason")
        return f"{parity.get('status')}{f' ({reason})' if reason else ''}"
    count = f"{parity['pairs']} pairs" if "pairs" in parity else f"{parity['texts']} texts"
    return f"passed on {count} against {parity['reference']}"


def details(parity: Mapping[str, Any]) -> list[str]:
    """One line for each variant of a passed report, one for each call that was compared."""
    return [
        *(
            f"{file}: {_nearness(entry)}, largest difference {entry['max_abs_diff']:.1e}"
            for file, entry in parity.get("variants", {}).items()
        ),
        *(f"{file}: not compared ({why})" for file, why in parity.get("not_compared", {}).items()),
        *(f"{call}: {_compared(entry)}" for call, entry in parity.get("calls", {}).items()),
    ]


def _nearness(entry: Mapping[str, Any]) -> str:
    if "correlation" in entry:  # of scores
        return f"correlation of logits {entry['correlation']:.6f}"
    of = f" of {entry['of']}" if "of" in entry else ""
    return f"cosine{of} mean {entry['mean_cosine']:.6f}, min {entry['min_cosine']:.6f}"


def _compared(entry: Mapping[str, Any]) -> str:
    """How far a call was compared."""
    if "not_compared" in entry:
        return f"not compared ({entry['not_compared']})"
    prompts = f", prompts {', '.join(map(repr, entry['prompts']))}" if entry["prompts"] else ""
    said = f"{entry['compared']} compared, tokens of {entry['tokenized']}, up to {entry['longest_tokenized']} tokens"
    if entry.get("beyond_budget"):
        said += f"; beyond {entry['longest_compared']} tokens, which take the reference minutes, tokens alone"
    if "reference_cuts_at" in entry:
        at = entry["reference_cuts_at"]
        said += f"; longer texts are cut here, at the model's last position, and at {at} or later there: not compared"
    return f"{said}{prompts}"
