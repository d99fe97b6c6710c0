"""Under what conditions a number was taken: the machine, its load, and the CPUs that contenders may use."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from fastembed_rt import machine

TOPOLOGY = Path("/sys/devices/system/cpu")


def describe() -> dict[str, Any]:
    """Facts about the machine that decide how fast anything runs on it."""
    facts = machine.describe()
    return {
        "cpu": facts.cpu.model,
        "vendor": facts.cpu.vendor,
        "instruction_sets": sorted(facts.cpu.instruction_sets),
        "cpus": facts.cpus,
        "affinity": facts.affinity,
        "quota": facts.quota,
        "memory": facts.memory,
        "memory_limit": facts.memory_limit,
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
    }


def load() -> list[float] | None:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def busy_seconds() -> float:
    """CPU time that all processes, and the host behind our back, have taken since boot; 0 where not known."""
    try:
        words = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def choose_cpus(threads: int, topology: Path = TOPOLOGY) -> list[int]:
    """CPUs for a budget of threads: one of each core before the second of any; all contenders get the same.

    Empty where the system has no such notion: then the budget is a matter of each contender's own options.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    seen: dict[str, int] = {}
    ranked = []
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            core = (topology / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="utf-8").strip()
        except OSError:
            core = str(cpu)
        seen[core] = seen.get(core, -1) + 1
        ranked.append((seen[core], cpu))
    return sorted(cpu for _, cpu in sorted(ranked)[:threads])


def commit(project: Path) -> str | None:
    """Commit of the source tree, marked when it has changes; None outside git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
