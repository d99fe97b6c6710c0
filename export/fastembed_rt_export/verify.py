"""The parity gate: vectors of a model directory beside sentence-transformers on torch, text by text, with the figures.

The texts ship with the package (data/parity.jsonl): many scripts, all lengths, odd characters.
"""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.manifest import Manifest, Variant
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.providers import PROVIDERS, obstacle

from .architectures import row_name
from .checkpoint import Checkpoint
from .errors import MissingDependencyError, ParityError, UnsupportedCheckpointError, explained
from .parity import INT8_MIN_COSINE, Bounds, Case, Comparison, Vectors, bounds, compare, parity_texts
from .static import UNLIMITED

PROMPT_TEXTS = 24  # every prompt is checked on these many texts of all kinds
ALONE_TEXTS = 16  # these are also encoded one by one: neighbours must not matter
REFERENCE_BATCH = 8
LONGER = "longer-than-max-length"


class OfTexts(Protocol):
    """What the cases depend on."""

    max_length: int

    @property
    def prompts(self) -> dict[str, Any]:
        """Texts to put in front, by name."""

    def count_tokens(self, inputs: str) -> Any:
        """Tokens of a text before any cut."""


def can_verify() -> str | None:
    """None when the reference is installed, else what is missing."""
    missing = [name for name in ("torch", "sentence_transformers") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing).replace('_', '-')} not installed" if missing else None


def own_code(checkpoint: Checkpoint) -> str | None:
    """None when the reference is transformers' or may be run, else why it may not."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = row_name(checkpoint.config) == checkpoint.model_type and checkpoint.model_type in CONFIG_MAPPING
    if known or checkpoint.trusted or checkpoint.is_static:
        return None
    return "the reference is code of the checkpoint's own, which only --trust-remote-code runs"


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


def cases(model: OfTexts) -> list[Case]:
    """All texts without a prompt, one that is surely longer than max_length, and a selection under every prompt."""
    texts = parity_texts()
    longest = max(texts, key=lambda case: len(case.text)).text
    times = model.max_length // max(model.count_tokens(longest), 1) + 2
    texts.append(Case(LONGER, " ".join([longest] * times)))
    every = max(len(texts) // PROMPT_TEXTS, 1)
    under = [Case(case.id, case.text, name) for name in model.prompts for case in texts[::every]]
    return texts + under


def _set_limits(model: Any, checkpoint: Checkpoint) -> None:
    """The checkpoint's limits on both sides, also where the user has set others."""
    if not checkpoint.routes and not checkpoint.is_static:
        model.max_seq_length = checkpoint.max_length
    routes = getattr(model[0], "sub_modules", {})  # a Router that begins with transformers of its own
    for encoder in (checkpoint, *checkpoint.routes.values()):
        if encoder.route in routes and not encoder.is_static:
            routes[encoder.route][0].max_seq_length = encoder.max_length


def reference(
    checkpoint: Checkpoint, wanted: Sequence[Case], role: str | None = None, *, padding: bool = True
) -> tuple[Vectors, str]:
    """Vectors of sentence-transformers on torch in float32, and the versions that made them.

    The checkpoint's modules were checked before: code of its own is only its transformer's, and run only where trusted.

    Raises:
        MissingDependencyError: torch or sentence-transformers is not installed.
        UnsupportedCheckpointError: the reference is code of the checkpoint's own, and not trusted.
    """
    missing = can_verify()
    if missing is not None:
        raise MissingDependencyError(f"{missing}; pip install 'fastembed-rt[verify]' to compare with the reference")
    if (untrusted := own_code(checkpoint)) is not None:
        raise UnsupportedCheckpointError(f"{checkpoint.name}: {untrusted}")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # the export says its own steps
    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    except ImportError:  # before sentence-transformers 6
        from sentence_transformers.models import Normalize, Pooling

    model = SentenceTransformer(
        str(checkpoint.root), device="cpu", trust_remote_code=checkpoint.trusted, local_files_only=True
    )
    model = model.float().eval()
    _set_limits(model, checkpoint)
    if getattr(model.tokenizer, "padding_side", "right") == "left":
        # Padding on the left shifts absolute positions, so that vectors depend on the batch: a text alone has none.
        model.tokenizer.padding_side = "right"
    said = checkpoint.overrides
    dim = said.get("truncate_dim", model.truncate_dim)
    modules = list(model)
    if "pooling" in said:
        width = int(checkpoint.config.get("hidden_size", checkpoint.config.get("dim", 0)))
        modules[1] = Pooling(width, pooling_mode=checkpoint.pooling, include_prompt=checkpoint.include_prompt)
    if "normalize" in said:
        while modules and isinstance(modules[-1], Normalize):
            modules.pop()
        modules += [Normalize()] if said["normalize"] else []
    if len(modules) != len(model) or modules != list(model):
        model = SentenceTransformer(modules=modules, device="cpu").eval()
    model.truncate_dim = dim
    out: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(wanted)
    with torch.inference_mode():
        for name in dict.fromkeys(case.prompt_name for case in wanted):
            rows = [k for k, case in enumerate(wanted) if case.prompt_name == name]
            # An empty prompt, not None: the default prompt must not step in where none was asked for.
            prompt = checkpoint.prompts.get(name, "") if name is not None else ""
            vectors = model.encode(
                [wanted[k].text for k in rows],
                prompt=prompt,
                batch_size=REFERENCE_BATCH if padding else 1,  # where padding changes vectors, those of texts alone
                show_progress_bar=False,
                task=role,
                normalize_embeddings=dim is not None and checkpoint.normalize,  # it cuts what is normalized already
            )
            for k, vector in zip(rows, vectors, strict=True):
                out[k] = vector
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("sentence-transformers", "transformers", "torch")
    )
    return np.stack(out), f"{versions}, float32 on CPU"


def exported(model: EmbeddingModel, wanted: Sequence[Case]) -> Vectors:
    """Vectors of the model directory for the same cases, in batches of unequal lengths."""
    out = np.empty((len(wanted), model.dim), np.float32)
    for name in dict.fromkeys(case.prompt_name for case in wanted):
        rows = [k for k, case in enumerate(wanted) if case.prompt_name == name]
        prompt = model.prompts[name] if name is not None else ""
        out[rows] = model.encode([wanted[k].text for k in rows], prompt=prompt)
    return out


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
        ParityError: a text is out of bounds; the message has the worst texts and their figures.
        MissingDependencyError: the reference is not installed.
    """
    start = time.monotonic()
    described = read_manifest(directory)
    _check_facts(described, checkpoint)
    reports = [_verify(directory, described, checkpoint, None, say, min_cosine)]
    for role, route in described.routes.items():
        say(f"{role} texts")
        reports.append(_verify(directory, route, checkpoint.routes[role], role, say, min_cosine, checkpoint))
    whole = reports[0]
    for other in reports[1:]:
        whole["variants"] = {**whole["variants"], **other["variants"]}
        whole["texts"] += other["texts"]
        if "not_compared" in other:
            whole["not_compared"] = {**whole.get("not_compared", {}), **other["not_compared"]}
    return {**whole, "seconds": round(time.monotonic() - start, 1)}


def _verify(
    directory: Path,
    described: Manifest,
    encoder: Checkpoint,
    role: str | None,
    say: Callable[[str], None],
    min_cosine: float,
    whole: Checkpoint | None = None,
) -> dict[str, Any]:
    """Report on one encoder; `whole` is the checkpoint that has it as a route."""
    start = time.monotonic()
    with EmbeddingModel(directory, route=role, **first_here(directory, described)) as model:
        wanted = cases(model)
    if encoder.is_static and encoder.max_length >= UNLIMITED:
        wanted = [case for case in wanted if case.id != LONGER]  # nothing is
    say(f"reference: {len(wanted)} texts with sentence-transformers on torch")
    # One model in memory at a time: the reference first, then the sessions.
    with explained(f"sentence-transformers does not run {(whole or encoder).name}"):
        expected, versions = reference(whole or encoder, wanted, role, padding=described.padding)
    gc.collect()
    if expected.shape[1] != described.dim:
        raise ParityError(f"{directory} has vectors of {described.dim} numbers, {versions} gives {expected.shape[1]}")

    def compared(variant: Variant, provider: str) -> list[Comparison]:
        with EmbeddingModel(directory, route=role, **opened(variant, provider)) as model:
            return compare_all(wanted, lambda cases: exported(model, cases), expected)

    return report(described, compared, versions, start, len(wanted), say, min_cosine)


def compare_all(
    wanted: Sequence[Case], encode: Callable[[Sequence[Case]], Vectors], expected: Vectors
) -> list[Comparison]:
    """Each case with its distance from what is expected (n, dim), all together, then some of them one by one."""
    compared = compare(wanted, encode(wanted), expected)
    alone = some(wanted)
    single = np.stack([encode([wanted[k]])[0] for k in alone])
    return compared + compare([wanted[k] for k in alone], single, expected[alone])


def some(wanted: Sequence[Case]) -> list[int]:
    """Numbers of the cases that are encoded one by one as well."""
    return list(range(0, len(wanted), max(len(wanted) // ALONE_TEXTS, 1)))


def report(
    described: Manifest,
    compared_of: Callable[[Variant, str], list[Comparison]],
    versions: str,
    start: float,
    texts: int,
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
        reports[variant.graph.file] = _figures(variant.precision, compared, bound)
        failed = [entry for entry in compared if not entry.within(bound)]
        if failed:
            worst = "; ".join(map(str, sorted(failed, key=lambda e: (e.cosine, -e.max_abs_diff))[:5]))
            near = "" if bound.max_abs_diff is None else f", difference <= {bound.max_abs_diff:g}"
            raise ParityError(
                f"{variant.graph.file}: {len(failed)} of {len(compared)} comparisons with {versions} are out of bounds "
                f"(cosine >= {bound.min_cosine}{near}); worst: {worst}"
            )
    return {
        "status": "passed",
        "reference": versions,
        "texts": texts,
        "prompts": sorted(described.prompts),
        "variants": reports,
        **({"not_compared": others} if others else {}),
        "seconds": round(time.monotonic() - start, 1),
    }


def _check_facts(described: Manifest, checkpoint: Checkpoint) -> None:
    """Raise ParityError where the manifest says what vectors without a prompt do not show, and says it wrong."""
    facts = {
        "default_prompt_name": (described.default_prompt_name, checkpoint.default_prompt_name),
        "similarity": (described.similarity, checkpoint.similarity),
        # Prompts without text change nothing; sentence-transformers adds such ones itself.
        "prompts": tuple(
            sorted(name for name, text in prompts.items() if text)
            for prompts in (described.prompts, checkpoint.prompts)
        ),
    }
    for name, (ours, theirs) in facts.items():
        if ours != theirs:
            raise ParityError(f"the manifest has {name} {ours!r}, the checkpoint {theirs!r}; export it again")


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
    return f"passed on {parity['texts']} texts against {parity['reference']}"


def details(parity: Mapping[str, Any]) -> list[str]:
    """One line for each variant of a passed report."""
    return [
        f"{file}: {_nearness(entry)}, largest difference {entry['max_abs_diff']:.1e}"
        for file, entry in parity.get("variants", {}).items()
    ] + [f"{file}: not compared ({why})" for file, why in parity.get("not_compared", {}).items()]


def _nearness(entry: Mapping[str, Any]) -> str:
    if "correlation" in entry:  # of scores
        return f"correlation {entry['correlation']:.6f}"
    return f"cosine mean {entry['mean_cosine']:.6f}, min {entry['min_cosine']:.6f}"
