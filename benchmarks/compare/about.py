"""What a record says before anything is measured: machine, settings, model, workloads; and its folder's name.

`python -m benchmarks.compare.about` prints the folder that a result of today and of this machine goes to.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from fastembed_rt import machine
from fastembed_rt.manifest import Manifest

from ..data import workloads
from ..data.workloads import Workload
from . import conditions, environments, other_tasks, preparation
from .parts import Part
from .processes import CAN_STOP

FORMAT = 2
RESULTS = Path(__file__).parents[1] / "results"
# Words of a CPU's name that say nothing that a folder's name should: who makes it, what it is.
PLAIN_WORDS = {"intel", "amd", "cpu", "processor", "core", "genuine", "with", "virtual", "common", "kvm", "qemu"}


def describe(
    args: argparse.Namespace,
    model: Manifest,
    parts: Sequence[Part],
    timed: Sequence[Workload],
    texts: Mapping[str, list[Any]],
) -> dict[str, Any]:
    """The record's beginning."""
    return {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "interrupted": False,
        "command": command(args),
        "commit": conditions.commit(environments.PROJECT),
        "kind": other_tasks.kind(model),
        "unit": "pairs" if any(row.passages for row in timed) else "texts",
        "machine": conditions.describe(),
        "settings": {
            "parts": [part.name for part in parts],
            "threads": args.threads,
            "cpus": conditions.choose_cpus(args.threads),
            "rounds": args.rounds,
            "other_rounds": args.other_rounds,
            "cold_rounds": args.cold_rounds,
            "max_length": model.max_length,
            "idle_processes": "stopped" if CAN_STOP else "left running",
            "environment": preparation.variables(args.threads),  # of every contender alike
        },
        "model": {
            "source": asdict(model.source),
            "precisions": sorted({variant.precision for variant in model.variants}),
        },
        "workloads": {row.name: _workload(row, texts[row.name]) for row in timed},
        "loads": [],
    }


def command(args: argparse.Namespace) -> str:
    """The command that made a result, paths by their last name: a record may travel, whose disk it was need not."""
    words = [args.model_dir.resolve().name, "--checkpoint", args.checkpoint.resolve().name]
    for name in ("parts", "contenders", "workloads", "rounds", "other_rounds", "cold_rounds", "threads"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return shlex.join(["python", "-m", "benchmarks.compare.runner", *words])


def results_folder() -> Path:
    """benchmarks/results/<date>-<machine>, such as 2026-11-23-epyc-2-cores."""
    facts = machine.describe()
    return RESULTS / f"{date.today().isoformat()}-{short_name(facts.cpu.model or '')}-{facts.affinity}-cores"


def short_name(cpu: str, otherwise: str = "machine") -> str:
    """The word of a CPU's name that tells most: xeon, epyc, ryzen, apple."""
    named = re.sub(r"\((r|tm|c)\)", " ", cpu.lower())
    words = [word for word in re.findall(r"[a-z][a-z-]{2,}", named) if word not in PLAIN_WORDS]
    return words[0] if words else otherwise


def _workload(row: Workload, texts: list[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "title": row.title,
        "group": row.group,
        "length": row.length,
        "texts": len(texts) * (row.passages or 1),
        "sha256": workloads.fingerprint(texts),
    }
    if row.length is not None:
        facts["tokens"] = row.length * len(texts)  # checked for each contender before it is timed
    return facts


if __name__ == "__main__":
    print(results_folder())
