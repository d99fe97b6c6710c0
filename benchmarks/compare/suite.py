"""One run from beginning to end: environments, converted models, processes, then part after part."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.workloads import Workload
from ..errors import BenchmarkError, ContenderError
from ..report.records import REFERENCE
from . import environments
from .contenders import ENVIRONMENTS, Contender
from .measure import WARM_REQUESTS, WARM_TEXTS, Patience, Reference, Result, Row, Work
from .parts import Part, Run, Settings
from .preparation import Preparation
from .processes import kill_all

Texts = Mapping[str, list[Any]]


def run(
    result: Result,
    parts: Sequence[Part],
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    texts: Texts,
    *,
    checkpoint: Path,
    model_dir: Path,
    settings: Settings,
    patience: Patience,
    save: Callable[[], None],
) -> None:
    """Measure the parts; what was measured is in `result` and saved, however this ends.

    Raises:
        BenchmarkError: the reference failed, so that nothing can be held against it.
        KeyboardInterrupt: as it came; all processes are ended.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        scratch = Path(folder)
        files = {name: scratch / f"{name}.json" for name in texts}
        for name, file in files.items():
            file.write_text(json.dumps(texts[name]), encoding="utf-8")
        facts = result.about["settings"]
        preparation = Preparation(
            checkpoint=checkpoint.resolve(),
            model_dir=model_dir.resolve(),
            calibration=files["calibration"],
            max_length=facts["max_length"],
            threads=facts["threads"],
            cpus=facts["cpus"],
            logs=scratch,
            timeout=patience.prepare,
        )
        work = Work(
            files=files,
            timed=[row.name for row in workloads if row.length is None],
            lengths={row.name: row.length for row in workloads if row.length is not None},
            scratch=scratch,
            warm=WARM_REQUESTS if any(row.passages for row in workloads) else WARM_TEXTS,
        )
        started = Run(
            result=result,
            contenders=contenders,
            work=work,
            preparation=preparation,
            patience=patience,
            settings=settings,
            save=save,
            reference=Reference(scores=any(row.passages for row in workloads)),
        )
        try:
            if any(part.needs_contenders for part in parts):
                for row in contenders:
                    _make_ready(result.rows[row.name], row, preparation)
                _stop_without(result)
            _measure(started, parts)
        finally:
            kill_all()


def _measure(run: Run, parts: Sequence[Part]) -> None:
    for part in parts:
        if part.served and not run.processes:
            run.load_all()
            _stop_without(run.result)
            run.save()
        if not part.served:
            run.end_processes()
        part.measure(run)
        run.save()
    _stop_without(run.result)


def _make_ready(row: Row, contender: Contender, preparation: Preparation) -> None:
    """Make a contender's environment and its model, unless they are there."""
    if row.status != "ok":
        return
    environment = ENVIRONMENTS[contender.environment]
    try:
        row.facts["environment"] = {"name": environment.name, "steps": environment.steps}
        row.facts["environment"]["freeze"] = environments.ensure(environment)
        row.facts["package_bytes"] = environments.size(environment)
        preparation.prepare(contender)
    except ContenderError as error:
        row.fail(str(error))


def _stop_without(result: Result) -> None:
    row = result.rows[REFERENCE]
    if row.status != "ok":
        raise BenchmarkError(f"the reference failed, nothing can be held against it: {row.reason}")
