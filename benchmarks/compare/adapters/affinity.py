"""Threads that may run where their process may not. Standard library only: it runs in every contender's environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PROC = Path("/proc")


class StrayThreadsError(Exception):
    """A library has set its threads on CPUs that the contender was not given."""


def check(cpus: Sequence[int], pids: Sequence[int | str] = ("self",)) -> None:
    """Look at every thread of these processes; without CPUs, or where the kernel does not say, nothing is wrong.

    Raises:
        StrayThreadsError: one may run on another CPU than these.
    """
    given = set(cpus)
    found = [allowed(status) for pid in pids for status in PROC.glob(f"{pid}/task/*/status")] if given else []
    strays = [seen for seen in found if not seen <= given]
    if strays:
        others = ", ".join(map(str, sorted(set().union(*strays) - given)))
        raise StrayThreadsError(
            f"{len(strays)} of {len(found)} threads may run on CPU {others}, which this contender was not given"
        )


def allowed(status: Path) -> set[int]:
    """CPUs that a thread may run on; none of one that has ended."""
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    ranges = next((line.split(":")[1] for line in lines if line.startswith("Cpus_allowed_list:")), "")
    found: set[int] = set()
    for piece in filter(None, ranges.strip().split(",")):
        first, _, last = piece.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
