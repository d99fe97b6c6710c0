"""The parity report: each variant that runs here with its figures, as the manifest, the card and the screen have it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fastembed_rt.manifest import LATE_INTERACTION, SPARSE, Manifest, Variant
from fastembed_rt.precisions import MADE_WITH
from fastembed_rt.run.providers import obstacle
from fastembed_rt.run.session import OWN

from ..errors import ParityError
from .order import Known
from .parity import Bounds, Comparison, bounds, by_kind
from .reference import versions

# What cosines are of, where they are not of texts' vectors.
OUTPUTS = {SPARSE: "word weights", LATE_INTERACTION: "token vectors"}
WORST_KINDS = 3  # of texts, that a line of a report names
Refuse = Callable[[Variant, ParityError], None]  # what becomes of a variant that is out of bounds


def raised(_: Variant, error: ParityError) -> None:
    """The first variant that is out of bounds ends the comparison."""
    raise error


def runs_here(described: Manifest) -> tuple[list[tuple[Variant, str]], dict[str, str]]:
    """Variants that run on this machine, each with the provider it was made for; files of the others, and why not."""
    runs, others = [], {}
    for variant in described.variants:
        provider = MADE_WITH.get(variant.target, variant.target)
        why, what = None if provider == "cpu" else obstacle(provider), f"provider {provider!r}"
        if why is None and variant.target in OWN:
            why, what = OWN[variant.target](variant.precision, 0), f"target {variant.target!r}"
        if why is None:
            runs.append((variant, provider))
        else:
            others[variant.graph.file] = f"{what}: {why}"
    return runs, others


def report(
    described: Manifest,
    compared_of: Callable[[Variant, str], list[Comparison]],
    known: Known,
    start: float,
    say: Callable[[str], None],
    min_cosine: float,
    refuse: Refuse,
) -> dict[str, Any]:
    """The parity report from the comparisons of each variant that runs here, under its provider.

    Those out of bounds go to `refuse` with the worst texts.
    """
    of = OUTPUTS.get(described.task)

    def figures(variant: Variant, provider: str) -> dict[str, Any]:
        compared = compared_of(variant, provider)
        bound = bounds(variant.precision, min_cosine)
        failed = [entry for entry in compared if not entry.within(bound)]
        if failed:
            worst = "; ".join(map(str, sorted(failed, key=lambda e: (e.cosine, -e.max_abs_diff))[:5]))
            near = "" if bound.max_abs_diff is None else f", difference <= {bound.max_abs_diff:g}"
            raise ParityError(
                f"{variant.graph.file}: {len(failed)} of {len(compared)} comparisons with {versions()} are out of "
                f"bounds (cosine{f' of {of}' if of else ''} >= {bound.min_cosine}{near}); worst: {worst}"
            )
        return {**_figures(variant.precision, compared, bound), **({"of": of} if of else {})}

    return {
        "status": "passed",
        "reference": versions(),
        "texts": len(known.cases),
        "calls": known.calls,
        "prompts": sorted(described.prompts),
        **of_variants(described, figures, say, refuse),
        "seconds": round(time.monotonic() - start, 1),
    }


def of_variants(
    described: Manifest,
    figures: Callable[[Variant, str], dict[str, Any]],
    say: Callable[[str], None],
    refuse: Refuse,
) -> dict[str, Any]:
    """What a report says of each variant: the figures of those that run here, why the others do not.

    `figures` raises ParityError where one is out of bounds, which `refuse` gets.
    """
    found = {}
    runs, others = runs_here(described)
    for file, why in others.items():
        say(f"not compared: {file} ({why})")
    for variant, provider in runs:
        say(f"comparing {variant.graph.file}")
        try:
            found[variant.graph.file] = figures(variant, provider)
        except ParityError as error:
            refuse(variant, error)
    return {"variants": found, **({"not_compared": others} if others else {})}


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
        "kinds": by_kind(compared),
    }


def describe(parity: Mapping[str, Any]) -> str:
    """One line of a parity report."""
    if parity.get("status") != "passed":
        reason = parity.get("reason")
        return f"{parity.get('status')}{f' ({reason})' if reason else ''}"
    count = f"{parity['pairs']} pairs" if "pairs" in parity else f"{parity['texts']} texts"
    return f"passed on {count} against {parity['reference']}"


def details(parity: Mapping[str, Any]) -> list[str]:
    """One line for each variant of a passed report, one for each call that was compared.

    Where a precision is not exact, one more for the kinds of texts that it serves worst.
    """
    return [
        *(line for file, entry in parity.get("variants", {}).items() for line in _of_variant(file, entry)),
        *(f"{file}: not compared ({why})" for file, why in parity.get("not_compared", {}).items()),
        *(f"{call}: {_compared(entry)}" for call, entry in parity.get("calls", {}).items()),
    ]


def _of_variant(file: str, entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"{file}: {_nearness(entry)}, largest difference {entry['max_abs_diff']:.1e}"
    kinds = entry.get("kinds", ()) if entry["precision"] != "fp32" else ()
    if kinds:
        worst = ", ".join(f"{row['kind']} ({row['n']}) {_of_kind(row)}" for row in kinds[:WORST_KINDS])
        yield f"{file}, worst kinds (how many) {_KIND_FIGURES['correlation' in entry]}: {worst}"


# By whether they are of scores, which have no cosine.
_KIND_FIGURES = {False: "cosine mean / min", True: "difference mean / largest"}


def _of_kind(row: Mapping[str, Any]) -> str:
    if "min_cosine" in row:
        return f"{row['mean_cosine']:.4f} / {row['min_cosine']:.4f}"
    return f"{row['mean_abs_diff']:.1e} / {row['max_abs_diff']:.1e}"


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
