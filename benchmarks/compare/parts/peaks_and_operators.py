"""The part `limits`: the machine's GEMM peaks, and this project's speeds as shares of them, with time by operator."""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from ...data.lengths import open_tokenizer
from ...errors import ContenderError
from ..environments import PROJECT
from ..preparation import variables
from ..processes import Process
from .run import Run

OPTIONS: tuple[str, ...] = ()  # of benchmarks.inside.limits, whose own are those of a record


def measure(run: Run) -> None:
    """Measure peaks and operators in a process of their own, on the contenders' CPUs; then divide."""
    ours = [row for row in run.contenders if row.ours and run.result.rows[row.name].takes("limits")]
    try:
        found = _measured(run)
    except ContenderError as error:
        run.result.limits |= {"failed": str(error)}
        run.say(f"limits: {error}")
        return
    known = [row for row in ours if row.precision in found["multiply_adds"]]
    run.result.limits |= found["peaks"]
    for row in ours:
        if reason := unknown(row.precision, found):
            run.result.rows[row.name].fail_in("limits", reason)
    run.result.limits["operators"] = {row.name: found["operators"][row.precision] for row in known}
    run.result.limits["shares"] = {
        row.name: shares(
            run.result.samples,
            run.result.about["workloads"],
            row.name,
            found["multiply_adds"][row.precision],
            found["peaks"].get(row.precision, {}).get("peak_gops_all_threads"),
        )
        for row in known
    }
    run.save()


def unknown(precision: str | None, found: dict[str, Any]) -> str | None:
    """Why there are no shares of a precision; None: there are."""
    if precision not in found["multiply_adds"]:
        return f"the model directory has no graph of {precision} for this machine"
    if "peak_gops_all_threads" not in found["peaks"].get(precision, {}):
        return f"no peak of {precision} products was measured on this machine"
    return None


def shares(
    samples: list[dict[str, Any]], workloads: dict[str, Any], name: str, multiply_adds: int, peak: float | None
) -> dict[str, dict[str, float]]:
    """By workload: 1e9 operations a second in linear layers at the median speed, and their share of the peak."""
    found = {}
    for workload, facts in workloads.items():
        taken = [row["seconds"] for row in samples if (row["contender"], row["workload"]) == (name, workload)]
        if taken and facts.get("tokens") and peak:
            gops = 2 * multiply_adds * facts["tokens"] / statistics.median(taken) / 1e9
            found[workload] = {"gops": gops, "share": gops / peak}
    return found


def _measured(run: Run) -> dict[str, Any]:
    """The answer of `python -m benchmarks.inside.limits`."""
    preparation = run.preparation
    tokenizer = open_tokenizer(preparation.model_dir / "tokenizer.json")
    lengths = {
        name: [min(len(row.ids), preparation.max_length) for row in tokenizer.encode_batch(_read(run.work.files[name]))]
        for name in run.work.timed
    }
    file = run.work.scratch / "lengths.json"
    file.write_text(json.dumps(lengths), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.inside.limits", str(preparation.model_dir), "--json"]
    command += ["--threads", str(preparation.threads), "--lengths", str(file), *OPTIONS]
    # A child inherits its parent's CPUs; the runner itself has no use for the others meanwhile.
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None and preparation.cpus:
        os.sched_setaffinity(0, preparation.cpus)
    try:
        process = Process(
            command,
            log=preparation.logs / "limits.log",
            cwd=PROJECT,
            environment={**os.environ, **variables(preparation.threads)},
        )
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
    try:
        return process.answer("limits", timeout=run.patience.limits)
    finally:
        process.kill()


def _read(file: Path) -> list[str]:
    texts: list[str] = json.loads(file.read_text(encoding="utf-8"))
    return texts
