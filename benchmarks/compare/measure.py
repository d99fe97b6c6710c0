"""One measurement of one contender, and where it is kept. Knows processes, not parts, arguments or tables.

`Result` is filled as measurements come in, so that whatever ends a run leaves what was measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import fidelity
from ..errors import ContenderError
from . import conditions
from .processes import Process

WARM_TEXTS = 16  # before each timed pass: caches hold what the contender before left there
WARM_REQUESTS = 2  # the same where a text is a request with passages


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds after which a step is given up."""

    load: float = 300.0
    encode: float = 900.0
    single: float = 300.0
    tokens: float = 120.0
    cold: float = 120.0
    prepare: float = 900.0
    limits: float = 600.0

    def scaled(self, factor: float) -> Patience:
        """More patience, or less."""
        return Patience(**{name: seconds * factor for name, seconds in vars(self).items()})


@dataclass
class Row:
    """What is known of one contender. status: ok, failed, not available."""

    name: str
    title: str
    status: str = "ok"
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def fail(self, reason: str, status: str = "failed") -> None:
        """Take it out of what follows; earlier measurements stay."""
        self.status, self.reason = status, reason
        print(f"{self.name}: {status}: {reason}", file=sys.stderr, flush=True)

    def fail_in(self, part: str, reason: str) -> None:
        """Take it out of one part only."""
        self.facts.setdefault("failed_parts", {})[part] = reason
        print(f"{self.name}: {part}: {reason}", file=sys.stderr, flush=True)

    def takes(self, part: str) -> bool:
        """Whether it is still to be measured in a part."""
        return self.status == "ok" and part not in self.facts.get("failed_parts", {})


@dataclass
class Result:
    """Everything that a run measures, as it goes to JSON."""

    about: dict[str, Any]
    rows: dict[str, Row]
    samples: list[dict[str, Any]] = field(default_factory=list)  # throughput
    latencies: list[dict[str, Any]] = field(default_factory=list)
    cold: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    scaling: list[dict[str, Any]] = field(default_factory=list)
    concurrent: list[dict[str, Any]] = field(default_factory=list)
    quality: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is anything to keep."""
        values = (value for name, value in vars(self).items() if name not in ("about", "rows"))
        return any(values) or any("fidelity" in row.facts for row in self.rows.values())

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        rows = {
            name: {"title": row.title, "status": row.status, "reason": row.reason, **row.facts}
            for name, row in self.rows.items()
        }
        measured = {name: value for name, value in vars(self).items() if name not in ("about", "rows")}
        return {**self.about, "contenders": rows, **measured}

    def write(self, path: Path) -> None:
        """Replace the file in one step: never half of a result."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.record(), indent=1) + "\n", encoding="utf-8")
        part.replace(path)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Text files by name of workload, which of them are timed and checked, and where vectors may be for a moment."""

    files: Mapping[str, Path]
    timed: Sequence[str]  # workloads of the group "texts"
    lengths: Mapping[str, int]  # workloads of the group "length": how many tokens each of their texts has
    scratch: Path
    warm: int = WARM_TEXTS


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names, another one first each time: nobody is always last on a warm machine."""
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


@contextmanager
def working(process: Process) -> Iterator[None]:
    """Only this process runs inside; it is stopped afterwards."""
    process.resume()
    try:
        yield
    finally:
        process.stop()


def check(row: Row, process: Process, work: Work, reference: Reference, patience: Patience) -> None:
    """Load a contender, compare its tokens and vectors with the reference's, and so warm it up."""
    try:
        load(row, process, patience)
        row.facts["fidelity"] = {}
        for workload in work.timed:
            file = work.files[workload]
            counts = process.ask("tokens", timeout=patience.tokens, texts=str(file))["counts"]
            found = vectors(process, file, work.scratch / f"{row.name}-{workload}.npy", patience)
            objection = reference.objection(row, workload, counts, found)
            if objection is not None:
                raise ContenderError(objection)
        together = process.ask("invariance", timeout=patience.encode, texts=str(work.files["invariance"]))
        row.facts["invariance"] = together
        row.facts["after_check"] = process.ask("usage", timeout=patience.tokens)
    except (ContenderError, ValueError, OSError) as error:
        row.fail(str(error))
        process.kill()
    else:
        process.stop()


def load(row: Row, process: Process, patience: Patience) -> None:
    """Load a contender and record what it says of itself.

    Raises:
        ContenderError: it cannot load.
    """
    row.facts["load"] = loaded = process.ask("load", timeout=patience.load)
    row.facts["model_bytes"] = loaded.pop("bytes")
    # OpenVINO chooses its arithmetic by the CPU: what it says counts, not what was expected.
    said = {"bf16": "bf16", "f32": "fp32"}.get(loaded["facts"].get("INFERENCE_PRECISION_HINT"))
    if said is not None and row.facts.get("precision") != "int8":
        row.facts["precision"] = said
    row.facts["after_load"] = process.ask("usage", timeout=patience.tokens)


def vectors(process: Process, file: Path, saved: Path, patience: Patience) -> npt.NDArray[np.float32]:
    """Vectors of a file's texts, (n, dim); where a text has a vector a token, all of them side by side, then zeros.

    Raises:
        ContenderError: it cannot encode them.
    """
    lengths = process.ask("encode", timeout=patience.encode, texts=str(file), save=str(saved))["lengths"]
    numbers = np.fromfile(saved, dtype=np.float32)
    saved.unlink()
    found = np.zeros((len(lengths), max(lengths)), dtype=np.float32)
    end = 0
    for row, length in zip(found, lengths, strict=True):
        row[:length], end = numbers[end : end + length], end + length
    return found


class Reference:
    """Tokens and vectors of the first contender checked; the others are held against them."""

    def __init__(self, *, scores: bool = False) -> None:
        self.scores = scores  # of rerankers, instead of vectors
        self.counts: dict[str, list[int]] = {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}

    def objection(self, row: Row, workload: str, counts: list[int], found: npt.NDArray[np.float32]) -> str | None:
        """Record how far a contender is from the reference; says why it may not be compared."""
        other_tokens = fidelity.token_objection(counts, self.counts.setdefault(workload, counts))
        if other_tokens is not None:  # where there is a vector for each of them, they cannot even be compared
            return other_tokens
        row.facts["fidelity"][workload] = summary = fidelity.summary(found, self._vectors.setdefault(workload, found))
        return fidelity.objection(summary, scores=self.scores)


def timed(
    process: Process, what: str, file: Path, timeout: float, *, warm: int = WARM_TEXTS, **arguments: Any
) -> dict[str, Any]:
    """One measurement, with the CPU time that the process and everybody else took meanwhile.

    Raises:
        ContenderError: it failed, hung or died.
    """
    own, all_busy, start = process.cpu_seconds(), conditions.busy_seconds(), time.perf_counter()
    with working(process):
        seen = process.ask(what, timeout=timeout, texts=str(file), warm=warm, **arguments)
    wall, own = time.perf_counter() - start, process.cpu_seconds() - own
    other = max(0.0, conditions.busy_seconds() - all_busy - own)
    # What the contender says of its own time goes first: `wall` of concurrent callers is theirs.
    return {"wall": round(wall, 3), **seen, "own_cpu": round(own, 2), "other_cpu": round(other, 2)}
