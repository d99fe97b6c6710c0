"""The parity gate: vectors of a model directory beside sentence-transformers on torch, text by text, with the figures.

The texts ship with the package (data/parity.jsonl): many scripts, all lengths, odd characters.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt import EmbeddingModel
from fastembed_rt.manifest import Manifest

from .checkpoint import Checkpoint
from .errors import MissingDependencyError, ParityError

Vectors = npt.NDArray[np.float32]
# fp32: what reordering sums in another library costs, and nothing more.
MIN_COSINE, MAX_ABS_DIFF = 0.99999, 1e-5
PROMPT_TEXTS = 24  # every prompt is checked on these many texts of all kinds
ALONE_TEXTS = 16  # these are also encoded one by one: neighbours must not matter
REFERENCE_BATCH = 8


@dataclass(frozen=True)
class Case:
    """One text under one prompt."""

    id: str
    text: str
    prompt_name: str | None = None


@dataclass(frozen=True)
class Comparison:
    """One case with its distance from the reference."""

    case: Case
    cosine: float
    max_abs_diff: float

    @property
    def passed(self) -> bool:
        """Within both bounds; NaN is not."""
        return self.cosine >= MIN_COSINE and self.max_abs_diff <= MAX_ABS_DIFF

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "id": self.case.id,
            "prompt": self.case.prompt_name,
            "cosine": round(self.cosine, 9),
            "max_abs_diff": float(f"{self.max_abs_diff:.3g}"),
        }


def can_verify() -> str | None:
    """None when the reference is installed, else what is missing."""
    missing = [name for name in ("torch", "sentence_transformers") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing).replace('_', '-')} not installed" if missing else None


def parity_texts() -> list[Case]:
    """The texts that ship with the package."""
    lines = (resources.files(__package__) / "data" / "parity.jsonl").read_text(encoding="utf-8").splitlines()
    return [Case(entry["id"], entry["text"]) for entry in map(json.loads, lines)]


def cases(model: EmbeddingModel) -> list[Case]:
    """All texts without a prompt, one that is surely longer than max_length, and a selection under every prompt."""
    texts = parity_texts()
    longest = max(texts, key=lambda case: len(case.text)).text
    times = model.max_length // max(model.count_tokens(longest), 1) + 2
    texts.append(Case("longer-than-max-length", " ".join([longest] * times)))
    every = max(len(texts) // PROMPT_TEXTS, 1)
    under = [Case(case.id, case.text, name) for name in model.prompts for case in texts[::every]]
    return texts + under


def reference(checkpoint: Checkpoint, wanted: Sequence[Case]) -> tuple[Vectors, str]:
    """Vectors of sentence-transformers on torch in float32, and the versions that made them.

    The checkpoint's modules were checked before: nothing of its own code is loaded.

    Raises:
        MissingDependencyError: torch or sentence-transformers is not installed.
    """
    missing = can_verify()
    if missing is not None:
        raise MissingDependencyError(f"{missing}; pip install 'fastembed-rt[verify]' to compare with the reference")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # the export says its own steps
    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    except ImportError:  # before sentence-transformers 6
        from sentence_transformers.models import Normalize, Pooling

    model = SentenceTransformer(str(checkpoint.root), device="cpu", trust_remote_code=False, local_files_only=True)
    model = model.float().eval()
    model.max_seq_length = checkpoint.max_length
    said = checkpoint.overrides
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
    out: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(wanted)
    with torch.inference_mode():
        for name in dict.fromkeys(case.prompt_name for case in wanted):
            rows = [k for k, case in enumerate(wanted) if case.prompt_name == name]
            # An empty prompt, not None: the default prompt must not step in where none was asked for.
            prompt = checkpoint.prompts[name] if name is not None else ""
            vectors = model.encode(
                [wanted[k].text for k in rows],
                prompt=prompt,
                batch_size=REFERENCE_BATCH,
                show_progress_bar=False,
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


def compare(wanted: Sequence[Case], vectors: Vectors, expected: Vectors) -> list[Comparison]:
    """Cosine and largest absolute difference of each pair of rows, in float64.

    Vectors that are not normalized are compared on the scale of the reference: the difference is divided by its length
    where that is over 1, because float32 rounds relative to the magnitude.
    """
    a, b = vectors.astype(np.float64), expected.astype(np.float64)
    lengths_a, lengths_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both_zero = (lengths_a == 0) & (lengths_b == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.where(both_zero, 1.0, (a * b).sum(axis=1) / (lengths_a * lengths_b))
    difference = np.abs(a - b).max(axis=1) / np.maximum(lengths_b, 1.0)
    return [Comparison(case, float(c), float(d)) for case, c, d in zip(wanted, cosine, difference, strict=True)]


def verify(directory: Path, checkpoint: Checkpoint, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Parity report of a model directory against its checkpoint, for the manifest.

    Raises:
        ParityError: a text is out of bounds; the message has the worst texts and their figures.
        MissingDependencyError: the reference is not installed.
    """
    start = time.monotonic()
    with EmbeddingModel(directory) as model:
        wanted = cases(model)
        described, precision = model.manifest, model.variant.precision
    say(f"reference: {len(wanted)} texts with sentence-transformers on torch")
    # One model in memory at a time: the reference first, then the session.
    expected, versions = reference(checkpoint, wanted)
    gc.collect()
    say("comparing")
    with EmbeddingModel(directory) as model:
        compared = compare(wanted, exported(model, wanted), expected)
        alone = list(range(0, len(wanted), max(len(wanted) // ALONE_TEXTS, 1)))
        single = np.stack([exported(model, [wanted[k]])[0] for k in alone])
        compared += compare([wanted[k] for k in alone], single, expected[alone])
    report = _report(described, precision, compared, versions, len(wanted), time.monotonic() - start)
    failed = [entry for entry in compared if not entry.passed]
    if failed:
        worst = "; ".join(_line(entry) for entry in sorted(failed, key=lambda e: (e.cosine, -e.max_abs_diff))[:5])
        raise ParityError(
            f"{len(failed)} of {len(compared)} comparisons with {versions} are out of bounds "
            f"(cosine >= {MIN_COSINE}, difference <= {MAX_ABS_DIFF:g}); worst: {worst}"
        )
    return report


def _line(entry: Comparison) -> str:
    prompt = f" under prompt {entry.case.prompt_name!r}" if entry.case.prompt_name else ""
    return f"{entry.case.id}{prompt}: cosine {entry.cosine:.6f}, difference {entry.max_abs_diff:.2e}"


def _report(
    described: Manifest,
    precision: str,
    compared: Sequence[Comparison],
    versions: str,
    texts: int,
    seconds: float,
) -> dict[str, Any]:
    worst = sorted(compared, key=lambda entry: -entry.max_abs_diff)[:3]
    return {
        "status": "passed",
        "reference": versions,
        "precision": precision,
        "texts": texts,
        "comparisons": len(compared),
        "prompts": sorted(described.prompts),
        "min_cosine": round(min(entry.cosine for entry in compared), 9),
        "max_abs_diff": float(f"{max(entry.max_abs_diff for entry in compared):.3g}"),
        "bounds": {"min_cosine": MIN_COSINE, "max_abs_diff": MAX_ABS_DIFF},
        "worst": [entry.as_dict() for entry in worst],
        "seconds": round(seconds, 1),
    }


def describe(parity: Mapping[str, Any]) -> str:
    """One line of a parity report."""
    if parity.get("status") != "passed":
        reason = parity.get("reason")
        return f"{parity.get('status')}{f' ({reason})' if reason else ''}"
    return (
        f"passed on {parity['texts']} texts: cosine >= {parity['min_cosine']:.7f}, "
        f"largest difference {parity['max_abs_diff']:.1e} ({parity['reference']})"
    )
