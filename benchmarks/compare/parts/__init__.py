"""What a run can measure: parts as rows of a table, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...errors import BenchmarkError
from . import peaks_and_operators, task_scores
from .fresh import cold, scaling
from .run import Run, Settings
from .served import batches, concurrent, latency, lengths, throughput

__all__ = ["PARTS", "TABLE", "Part", "Run", "Settings", "named"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of measurement. served: by the loaded and checked contenders; else by processes of its own."""

    name: str
    title: str
    measure: Callable[[Run], None]
    served: bool = True
    needs_contenders: bool = True


# Fresh processes first, before a dozen others hold memory, or last, when those are gone. Callers at once come after all
# that needs the loaded process: whoever is not made for them may not survive.
TABLE = (
    Part(name="cold", title="from nothing to the first vector", measure=cold, served=False),
    Part(name="throughput", title="many texts of a kind", measure=throughput),
    Part(name="latency", title="one text a call", measure=latency),
    Part(name="lengths", title="many texts of one length", measure=lengths),
    Part(name="batches", title="few to many texts a call", measure=batches),
    Part(name="quality", title="task scores", measure=task_scores.measure),
    Part(name="concurrent", title="many callers at once", measure=concurrent),
    Part(name="scaling", title="other budgets of threads", measure=scaling, served=False),
    Part(
        name="limits",
        title="distance from the machine's peak",
        measure=peaks_and_operators.measure,
        served=False,
        needs_contenders=False,
    ),
)
PARTS = {row.name: row for row in TABLE}


def named(names: Iterable[str]) -> list[Part]:
    """Rows by name, in the table's order.

    Raises:
        BenchmarkError: a name that is not in the table.
    """
    names = set(names)
    unknown = sorted(names - PARTS.keys())
    if unknown or not names:
        raise BenchmarkError(f"unknown part {', '.join(unknown) or '(none)'}; there are {', '.join(PARTS)}")
    return [row for row in TABLE if row.name in names]
