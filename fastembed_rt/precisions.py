"""The precisions that graphs come in, by target, and what to say of one that a model directory lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .manifest import Refused, Variant

# By target of an export. What --target cpu and cuda make has more names in a manifest, see MADE_WITH.
PRECISIONS = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp16", "bf16", "fp32", "fp8"), "tensorrt": ("fp16", "fp32")}
ALL = ("fp32", "fp16", "bf16", "fp8", "int8")
MADE_WITH = {"portable": "cpu", "native": "cpu", "cuda-native": "cuda"}  # a graph's target -> the export's
ONLY = {
    "portable": ("fp32",),
    "cpu": ("fp32", "int8"),
    "native": ("fp32", "bf16", "int8"),
    "cuda": ("fp16", "bf16", "fp32"),
    "cuda-native": ("fp16", "bf16", "fp8"),
}


def listed(names: Iterable[str], joint: str = "and") -> str:
    """Names as a sentence has them: "a, b and c"."""
    *front, last = names
    return f"{', '.join(front)} {joint} {last}" if front else last


def unknown(precision: str) -> str:
    """What to say of a precision that does not exist, "" of one that does."""
    return "" if precision in ALL else f"{precision!r} is not a precision; there are {listed(ALL)}"


def possible(targets: Sequence[str]) -> tuple[str, ...]:
    """The precisions that are made for some graph targets, such as those a provider runs."""
    made = {name for target in targets for name in ONLY.get(target, PRECISIONS.get(target, ()))}
    return tuple(name for name in ALL if name in made)


def targets_for(precision: str) -> tuple[str, ...]:
    """The export's targets that have a precision."""
    return tuple(target for target, precisions in PRECISIONS.items() if precision in precisions)


def made_for(variant: Variant) -> tuple[str, str]:
    """The export's target and precision that a graph is there for: several graphs may be."""
    return MADE_WITH.get(variant.target, variant.target), variant.precision


def lacking(
    precision: str,
    provider: str,
    targets: Sequence[str],
    variants: Sequence[Variant],
    refused: Sequence[Refused] = (),
) -> str:
    """Why a model directory has no graph of a precision for a provider, which runs `targets`, and what to do.

    `refused`: what the export left out.
    """
    there = f"this model directory has {_described(variants)}"
    if reason := unknown(precision):
        return f"{reason}; {there}"
    runs = possible(targets)
    makers = [MADE_WITH.get(target, target) for target in targets]
    if precision not in runs:
        export_for = f"; for provider {provider!r} export again with --target {makers[0]}"
        others = listed(targets_for(precision), "or")
        return (
            f"precision {precision!r} does not run with provider {provider!r}, for which there are {listed(runs)}; "
            f"{there}; {precision} is for provider {others}"
            + ("" if any(variant.target in targets for variant in variants) else export_for)
        )
    why = next((one.why for one in refused if one.precision == precision and one.target in makers), None)
    if why is not None:
        return (
            f"precision {precision!r} is not in this model directory for provider {provider!r}: the export refused it "
            f"({why}); {there}; take one of those"
        )
    target = next(name for name in makers if precision in PRECISIONS[name])
    return (
        f"precision {precision!r} is not in this model directory for provider {provider!r}; {there}; "
        f"take one of those, or export again with --target {target} --precision {precision}"
    )


def _described(variants: Sequence[Variant]) -> str:
    """Precisions with the export's targets that they are there for: "fp32 (cpu, cuda) and int8 (cpu)"."""
    found: dict[str, dict[str, None]] = {}
    for variant in variants:
        target, precision = made_for(variant)
        found.setdefault(precision, {})[target] = None
    return listed(f"{name} ({', '.join(targets)})" for name, targets in found.items())
