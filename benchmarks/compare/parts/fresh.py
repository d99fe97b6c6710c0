"""Parts that start processes of their own: the way to the first vector, and other budgets of threads."""

from __future__ import annotations

import dataclasses
import os

from ...errors import ContenderError
from .. import conditions, measure
from ..measure import WARM_TEXTS
from ..processes import Process
from .run import Run

STEPS = ("interpreter_seconds", "import_seconds", "load_seconds", "first_seconds")


def cold(run: Run) -> None:
    """Seconds until the interpreter runs, has imported, has loaded, has the first vector.

    The first pass brings the files into memory and is not counted.
    """
    count = run.settings.cold_rounds
    for row in run.contenders:
        if count and row.no_cold_start is not None:
            run.result.rows[row.name].fail_in("cold", row.no_cold_start)
    for number, names in run.rounds("cold", count + 1 if count else 0):
        for name in (name for name in names if run.result.rows[name].takes("cold")):
            process = run.start("cold", name)
            try:
                seen = process.answer("cold start", timeout=run.patience.cold)
            except ContenderError as error:
                run.failed("cold", name, error)
                continue
            finally:
                process.kill()
            moments = [process.started, *(seen[key] for key in ("began", "imported", "loaded", "first"))]
            if number > 0:
                taken = {key: moments[k + 1] - moments[k] for k, key in enumerate(STEPS)}
                whole = moments[-1] - moments[0]
                run.result.cold.append(
                    {"contender": name, "round": number - 1, **taken, "seconds": whole, "peak_rss": seen["peak_rss"]}
                )


def scaling(run: Run) -> None:
    """Many texts and single texts with 1, 2, 4, ... threads, each budget in a fresh process on as many CPUs."""
    for number, names in run.rounds("scaling", run.settings.other_rounds):
        for threads in budgets():
            with_budget = dataclasses.replace(run.preparation, threads=threads, cpus=conditions.choose_cpus(threads))
            for name in (name for name in names if run.result.rows[name].takes("scaling")):
                process = run.start("serve", name, with_budget)
                try:
                    seen = _both(run, process)
                except ContenderError as error:
                    run.failed("scaling", name, error)
                    continue
                finally:
                    process.kill()
                where = {"workload": "scaling", "threads": threads, "round": number}
                run.result.scaling.append({"contender": name, **where, **seen})


def budgets() -> list[int]:
    """1, 2, 4, ... up to the CPUs that this process may use, which come last whatever their number."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    powers = [2**k for k in range(most.bit_length()) if 2**k < most]
    return [*powers, most]


def _both(run: Run, process: Process) -> dict[str, object]:
    many, single = run.work.files["scaling"], str(run.work.files["scaling-single"])
    process.ask("load", timeout=run.patience.load)
    seen = measure.timed(process, "encode", many, run.patience.encode)
    one = process.ask("latencies", timeout=run.patience.single, texts=single, warm=WARM_TEXTS)
    return {**seen, "single": one["seconds"]}
