"""The measurements: load and check each contender, then interleaved rounds. Knows processes, not arguments or tables.

`Result` is filled as measurements come in, so that whatever ends a run leaves what was measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import conditions, fidelity
from .errors import ContenderError
from .processes import Process

WARM_TEXTS = 16  # before each timed pass: caches hold what the contender before left there


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds after which a step is given up."""

    load: float = 300.0
    encode: float = 900.0
    single: float = 300.0
    tokens: float = 120.0
    cold: float = 120.0
    prepare: float = 900.0

    def scaled(self, factor: float) -> Limits:
        """More patience, or less."""
        return Limits(**{name: seconds * factor for name, seconds in vars(self).items()})


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


@dataclass
class Result:
    """Everything that a run measures, as it goes to JSON."""

    about: dict[str, Any]
    rows: dict[str, Row]
    samples: list[dict[str, Any]] = field(default_factory=list)  # throughput
    latencies: list[dict[str, Any]] = field(default_factory=list)
    cold: list[dict[str, Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        rows = {
            name: {"title": row.title, "status": row.status, "reason": row.reason, **row.facts}
            for name, row in self.rows.items()
        }
        return {
            **self.about,
            "contenders": rows,
            "samples": self.samples,
            "latencies": self.latencies,
            "cold": self.cold,
        }

    def write(self, path: Path | None) -> None:
        """Replace the file in one step: never half of a result."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.record(), indent=1) + "\n", encoding="utf-8")
        part.replace(path)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Text files by name of workload, and where vectors may be written for a moment."""

    files: Mapping[str, Path]
    single: Path
    scratch: Path


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names, another one first each time: nobody is always last on a warm machine."""
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


@contextmanager
def working(process: Process) -> Iterator[None]:
    """Only this process runs inside; it is stopped afterwards, and killed on the way out of an interrupt."""
    process.resume()
    try:
        yield
    finally:
        process.stop()


def cold_rounds(
    result: Result, names: Sequence[str], start: Callable[[str], Process], rounds: int, limits: Limits
) -> None:
    """Fresh processes: seconds until the interpreter runs, has imported, has loaded, has the first vector.

    The first pass brings the files into memory and is not counted.
    """
    for number in range(-1, rounds):
        for name in rotated(names, number):
            row = result.rows[name]
            if row.status != "ok":
                continue
            process = start(name)
            try:
                seen = process.answer("cold start", timeout=limits.cold)
            except ContenderError as error:
                row.fail(str(error))
                continue
            finally:
                process.kill()
            steps = [process.started, *(seen[key] for key in ("began", "imported", "loaded", "first"))]
            named = ("interpreter_seconds", "import_seconds", "load_seconds", "first_seconds")
            if number >= 0:
                taken = {key: steps[k + 1] - steps[k] for k, key in enumerate(named)}
                whole = steps[-1] - steps[0]
                result.cold.append(
                    {"contender": name, "round": number, **taken, "seconds": whole, "peak_rss": seen["peak_rss"]}
                )


def check(row: Row, process: Process, work: Work, reference: Reference, limits: Limits) -> None:
    """Load a contender, compare its tokens and vectors with the reference's, and so warm it up."""
    try:
        row.facts["load"] = loaded = process.ask("load", timeout=limits.load)
        row.facts["model_bytes"] = loaded.pop("bytes")
        row.facts["after_load"] = process.ask("usage", timeout=limits.tokens)
        row.facts["fidelity"] = {}
        for workload, file in work.files.items():
            counts = process.ask("tokens", timeout=limits.tokens, texts=str(file))["counts"]
            saved = work.scratch / f"{row.name}-{workload}.npy"
            process.ask("encode", timeout=limits.encode, texts=str(file), save=str(saved))
            objection = reference.objection(row, workload, counts, np.load(saved, allow_pickle=False))
            saved.unlink()
            if objection is not None:
                raise ContenderError(objection)
        row.facts["after_check"] = process.ask("usage", timeout=limits.tokens)
    except (ContenderError, ValueError, OSError) as error:
        row.fail(str(error))
        process.kill()
    else:
        process.stop()


class Reference:
    """Tokens and vectors of the first contender checked; the others are held against them."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}

    def objection(self, row: Row, workload: str, counts: list[int], vectors: npt.NDArray[np.float32]) -> str | None:
        """Record how far a contender is from the reference; says why it may not be compared."""
        known = self.counts.setdefault(workload, counts)
        found = fidelity.summary(vectors, self._vectors.setdefault(workload, vectors))
        row.facts["fidelity"][workload] = found
        return fidelity.token_objection(counts, known) or fidelity.objection(found)


def rounds(
    result: Result, processes: Mapping[str, Process], work: Work, count: int, limits: Limits, save: Callable[[], None]
) -> None:
    """Interleaved: in each round every workload, in each workload every contender, then one text a call."""
    names = [name for name in processes if result.rows[name].status == "ok"]
    for number in range(count):
        before = conditions.load()
        for workload, file in work.files.items():
            for position, name in enumerate(rotated(names, number)):
                where = {"contender": name, "workload": workload, "round": number, "position": position}
                if (seen := _timed(result.rows[name], processes[name], "encode", file, limits.encode)) is not None:
                    result.samples.append({**where, **seen})
        for position, name in enumerate(rotated(names, number)):
            where = {"contender": name, "round": number, "position": position}
            if (
                seen := _timed(result.rows[name], processes[name], "latencies", work.single, limits.single)
            ) is not None:
                result.latencies.append({**where, **seen})
        result.about["loads"].append({"round": number, "before": before, "after": conditions.load()})
        save()
        print(f"round {number + 1} of {count} done", file=sys.stderr, flush=True)
    for name in names:
        if result.rows[name].status == "ok":
            with working(processes[name]):
                result.rows[name].facts["after_rounds"] = processes[name].ask("usage", timeout=limits.tokens)


def _timed(row: Row, process: Process, what: str, file: Path, timeout: float) -> dict[str, Any] | None:
    """One measurement, with the CPU time that it and everybody else took meanwhile."""
    if row.status != "ok":
        return None
    own, all_busy, start = process.cpu_seconds(), conditions.busy_seconds(), time.perf_counter()
    try:
        with working(process):
            seen = process.ask(what, timeout=timeout, texts=str(file), warm=WARM_TEXTS)
    except ContenderError as error:
        row.fail(str(error))
        return None
    wall, own = time.perf_counter() - start, process.cpu_seconds() - own
    other = max(0.0, conditions.busy_seconds() - all_busy - own)
    return {**seen, "wall": round(wall, 3), "own_cpu": round(own, 2), "other_cpu": round(other, 2)}
