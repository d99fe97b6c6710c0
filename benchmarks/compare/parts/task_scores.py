"""The part `quality`: task scores of the reference, of this project's rows, and of whoever was asked for."""

from __future__ import annotations

import json
from typing import Any

from ...errors import ContenderError
from ...report.records import REFERENCE
from ..measure import vectors
from .run import Run


def measure(run: Run) -> None:
    """Encode each task's texts by the contenders' own processes, and score the vectors."""
    found = run.settings.tasks
    table: dict[tuple[str, str], dict[str, Any]] = {
        (task.name, metric): {"name": task.name, "metric": metric, "contenders": {}}
        for task in found
        for metric in task.metrics
    }
    run.result.quality |= {
        "tasks": list(table.values()),
        "skipped": [{"name": name, "reason": reason} for name, reason in run.settings.skipped],
    }
    wanted = {REFERENCE, *run.settings.quality_contenders, *(row.name for row in run.contenders if row.ours)}
    for number, task in enumerate(found):
        file = run.work.scratch / f"task-{number}.json"
        file.write_text(json.dumps(task.texts), encoding="utf-8")
        for name in (name for name in run.names("quality") if name in wanted):
            try:
                process = run.serving(name)
                scores = task.scores(vectors(process, file, run.work.scratch / f"{name}.npy", run.patience))
                process.stop()
            except ContenderError as error:
                run.failed("quality", name, error)
                continue
            for metric, score in scores.items():
                table[task.name, metric]["contenders"][name] = score
        run.save()
        run.say(f"quality: {task.name} done")
