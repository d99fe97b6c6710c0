"""Where an engine's time goes: every kernel that the card runs in a batch, as torch's profiler sees it.

CUDA tells a profiler of all kernels of the process, whoever launches them. What is no kernel's is the card's idle time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .candidates import failing
from .engines import Engines, with_each_batch
from .shapes import Shape

RUNS = 3  # batches that are profiled, after two that are not
MOST = 16  # kernels that a report names; what is left is summed up


def measure(shape: Shape, names: Sequence[str], directory: Path, checkpoint: Path, device: str) -> list[dict[str, Any]]:
    """Of each engine's batch: seconds, those that the card was busy for, and its kernels, the longest first."""
    rows: list[dict[str, Any]] = []

    def each(engines: Engines) -> None:
        for name, run in engines.runs.items():
            with failing(name):
                seconds, events = profiled(run, device)
            rows.append(
                {
                    **{"contender": name, "texts": engines.texts, "length": engines.length, "batch_seconds": seconds},
                    **{"busy_seconds": sum(event["seconds"] for event in events), "kernels": events},
                }
            )

    with_each_batch(shape, names, directory, checkpoint, each)
    return rows


def profiled(run: Callable[[], object], device: str) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of a batch without a profiler; and its kernels by name, seconds and calls of one batch each.

    Raises:
        RuntimeError: the profiler saw no kernel, as without the right to read the card's counters.
    """
    from torch.profiler import ProfilerActivity, profile

    for _ in range(2):
        run()
    start = time.perf_counter()
    for _ in range(RUNS):
        run()
    seconds = (time.perf_counter() - start) / RUNS
    with profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]) as seen:
        for _ in range(RUNS):
            run()
    events = by_name(seen.events(), device)
    if not events:
        raise RuntimeError("torch's profiler saw no kernel (CUPTI may be missing, or another profiler may be at work)")
    return seconds, events


def by_name(events: Iterable[Any], device: str) -> list[dict[str, Any]]:
    """Kernels of one batch from the profiler's events of RUNS; on the CPU, where --dry-run is, torch's operators."""
    found: dict[str, list[float]] = {}
    for event in events:
        if str(event.device_type).rpartition(".")[2].lower() != device:
            continue
        took = event.time_range.elapsed_us() if device == "cuda" else event.self_cpu_time_total
        found.setdefault(short(event.name), []).append(took * 1e-6)
    rows = [{"name": name, "seconds": sum(took) / RUNS, "calls": len(took) / RUNS} for name, took in found.items()]
    return sorted(rows, key=lambda row: -float(row["seconds"]))


def short(name: str) -> str:
    """A kernel's name without what its templates and arguments say."""
    plain = re.sub(r"\(anonymous namespace\)::|^void |\(.*$", "", name)
    while (cut := re.sub(r"<[^<>]*>", "", plain)) != plain:
        plain = cut
    return plain.strip()[:90] or name[:90]


def table(row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lines of a report: name, share of the batch, calls, microseconds a call."""
    whole, kernels = row["batch_seconds"], row["kernels"]

    def line(name: str, seconds: float, calls: float | None) -> tuple[str, str, str, str]:
        each = f"{seconds / calls * 1e6:,.1f}" if calls else ""
        return name, f"{seconds / whole:.1%}", f"{calls:.0f}" if calls else "", each

    lines = [line(f"`{kernel['name']}`", kernel["seconds"], kernel["calls"]) for kernel in kernels[:MOST]]
    rest = kernels[MOST:]
    if rest:
        lines.append(
            line(f"{len(rest)} others", *(sum(kernel[key] for kernel in rest) for key in ("seconds", "calls")))
        )
    return [*lines, line("no kernel", max(whole - row["busy_seconds"], 0.0), None)]
