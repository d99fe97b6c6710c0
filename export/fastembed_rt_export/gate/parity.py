"""How far outputs are from their reference: the cases to compare on, the figures, the bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt.vectors.dense import Vectors


@dataclass(frozen=True)
class Bounds:
    """What a comparison must keep to."""

    min_cosine: float
    max_abs_diff: float | None = None


# fp32: what reordering sums in another library costs, and nothing more.
FP32 = Bounds(0.99999, 1e-5)
# Half precision: 11 and 8 bits in every product and state, accumulated in float32.
HALF = {"fp16": Bounds(0.9995), "bf16": Bounds(0.995)}
FP8 = Bounds(0.99)  # four bits in every product's inputs; the mean is asked for by quantize/fp8.py
# int8: the worst text of the parity set; the mean is far above it.
INT8_MIN_COSINE = 0.98


def bounds(precision: str, int8_min_cosine: float = INT8_MIN_COSINE) -> Bounds:
    """Bounds of a precision."""
    return {"fp32": FP32, "fp8": FP8, **HALF}.get(precision, Bounds(int8_min_cosine))


NO_PROMPT = ""  # as a prompt's name: none at all, also where there is a default one


@dataclass(frozen=True)
class Case:
    """One text, or pair of texts, as a call of the user's passes it."""

    id: str
    text: str
    prompt_name: str | None = None  # None: what the call puts in front by itself
    call: str = "encode"
    second: str | None = None  # the other text of a pair
    tokens_only: bool = False  # what comes of the tokens is compared with other cases
    kind: str = ""  # what it is an example of; reports say which kinds are worst

    @property
    def inputs(self) -> str | list[str]:
        """What the call takes."""
        return self.text if self.second is None else [self.text, self.second]

    @property
    def prompt(self) -> dict[str, str]:
        """The call's argument that chooses the prompt."""
        if self.prompt_name is None:
            return {}
        return {"prompt": ""} if self.prompt_name == NO_PROMPT else {"prompt_name": self.prompt_name}

    def __str__(self) -> str:
        by = f" by {self.call}" if self.call not in ("encode", "predict") else ""
        if self.prompt_name == NO_PROMPT:
            return f"{self.id}{by} without a prompt"
        return f"{self.id}{by}" + (f" under prompt {self.prompt_name!r}" if self.prompt_name else "")


def groups(cases: Sequence[Case]) -> list[list[int]]:
    """Numbers of the cases that go through one call: the same method, the same prompt."""
    found: dict[tuple[str, str | None], list[int]] = {}
    for k, case in enumerate(cases):
        found.setdefault((case.call, case.prompt_name), []).append(k)
    return list(found.values())


def ask(model: Any, cases: Sequence[Case], **options: Any) -> list[Any]:
    """What a model, ours or the reference, gives for each case through the calls that a user makes."""
    out: list[Any] = [None] * len(cases)
    for rows in groups(cases):
        call = getattr(model, cases[rows[0]].call)
        found = call([cases[k].inputs for k in rows], **cases[rows[0]].prompt, **options)
        for k, one in zip(rows, found, strict=True):
            out[k] = one
    return out


@dataclass(frozen=True)
class Comparison:
    """One case with its distance from the reference."""

    case: Case
    cosine: float
    max_abs_diff: float

    def within(self, bound: Bounds) -> bool:
        """Whether it keeps to the bounds; NaN does not."""
        near = bound.max_abs_diff is None or self.max_abs_diff <= bound.max_abs_diff
        return self.cosine >= bound.min_cosine and near

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "id": self.case.id,
            "call": self.case.call,
            "prompt": self.case.prompt_name,
            "cosine": round(self.cosine, 9),
            "max_abs_diff": float(f"{self.max_abs_diff:.3g}"),
        }

    def __str__(self) -> str:
        return f"{self.case}: cosine {self.cosine:.6f}, difference {self.max_abs_diff:.2e}"


def by_kind(compared: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Cosines of each kind of text for the manifest, the kind with the worst text first."""
    found: dict[str, list[float]] = {}
    for entry in compared:
        found.setdefault(entry.case.kind, []).append(entry.cosine)
    return [
        {"kind": kind, "n": len(own), "mean_cosine": round(float(np.mean(own)), 6), "min_cosine": round(min(own), 6)}
        for kind, own in sorted(found.items(), key=lambda item: min(item[1]))
    ]


@dataclass(frozen=True)
class Fidelity:
    """Cosines of many texts in three numbers, or another measure that is 1 where two outputs are alike."""

    mean_cosine: float
    p1_cosine: float
    min_cosine: float
    measure: str = "cosine"

    @classmethod
    def of(cls, vectors: Vectors, expected: Vectors) -> Fidelity:
        """Figures of (n, dim) beside (n, dim)."""
        found, _ = distances(vectors, expected)
        return cls(float(found.mean()), float(np.percentile(found, 1)), float(found.min()))

    @classmethod
    def of_tokens(cls, vectors: Vectors, expected: Vectors, lengths: Sequence[int]) -> Fidelity:
        """Figures of texts whose tokens' vectors (T, dim) stand one after another, each text as one long vector."""
        ends = np.cumsum(lengths)[:-1]
        found = [
            float(distances(ours.reshape(1, -1), theirs.reshape(1, -1))[0][0])
            for ours, theirs in zip(np.split(vectors, ends), np.split(expected, ends), strict=True)
        ]
        return cls(float(np.mean(found)), float(np.percentile(found, 1)), min(found))

    def passes(self, min_cosine: float) -> bool:
        """Whether the worst text is near enough; NaN is not."""
        return self.min_cosine >= min_cosine

    def as_dict(self) -> dict[str, float]:
        """For the manifest."""
        figures = {"mean": self.mean_cosine, "p1": self.p1_cosine, "min": self.min_cosine}
        return {f"{key}_{self.measure}": round(value, 6) for key, value in figures.items()}

    def __str__(self) -> str:
        return f"{self.measure} mean {self.mean_cosine:.5f}, p1 {self.p1_cosine:.5f}, min {self.min_cosine:.5f}"


def parity_texts() -> list[Case]:
    """The texts that ship with the package."""
    return list(_shipped())


@cache
def _shipped() -> tuple[Case, ...]:
    """Read once: an export asks for them a dozen times."""
    lines = (resources.files("fastembed_rt_export") / "data" / "parity.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Case(entry["id"], entry["text"], kind=entry["kind"]) for entry in map(json.loads, lines))


def distances(vectors: Vectors, expected: Vectors) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine and largest absolute difference of each pair of rows, in float64: (n, dim), (n, dim) -> (n,), (n,).

    Vectors that are not normalized are compared on the scale of the reference: the difference is divided by its length
    where that is over 1, because float32 rounds relative to the magnitude. A sparse vector may have no word: two of
    these are alike, and one has cosine 0 to any other vector.
    """
    a, b = vectors.astype(np.float64), expected.astype(np.float64)
    lengths_a, lengths_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    none_a, none_b = lengths_a == 0, lengths_b == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (a * b).sum(axis=1) / (lengths_a * lengths_b)
    cosine[none_a ^ none_b], cosine[none_a & none_b] = 0.0, 1.0
    return cosine, np.abs(a - b).max(axis=1) / np.maximum(lengths_b, 1.0)


def compare(wanted: Sequence[Case], vectors: Vectors, expected: Vectors, step: float = 0.0) -> list[Comparison]:
    """Each of n cases with its distances, of vectors (n, dim) to those expected (n, dim).

    `step`: between numbers that were rounded. What lies between two becomes one or the other, so that a difference of
    one step is none; the cosine says that there are few.
    """
    cosine, difference = distances(vectors, expected)
    if step:
        lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
        difference = np.maximum(difference - step / np.maximum(lengths, 1.0), 0.0)
    return [Comparison(case, float(c), float(d)) for case, c, d in zip(wanted, cosine, difference, strict=True)]
