"""A record as series: for each contender and measure one value a round. What comparisons over time are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .figures import Record, latencies, percentile
from .records import names

Rounds = Mapping[int, float]


@dataclass(frozen=True, kw_only=True, order=True)
class Measure:
    """What a series is of. group: measures that share their noise; workload: the texts it depends on."""

    group: str
    what: str
    unit: str
    workload: str = field(compare=False)
    faster_is_more: bool = field(default=False, compare=False)


def of(record: Record) -> dict[str, dict[Measure, dict[int, float]]]:
    """Contender -> measure -> round -> value, for all that were compared."""
    found: dict[str, dict[Measure, dict[int, float]]] = {name: {} for name in names(record)}
    for name, number, measure, value in _values(record):
        if name in found:
            found[name].setdefault(measure, {})[number] = value
    return found


def _values(record: Record) -> Iterator[tuple[str, int, Measure, float]]:
    for row in record["samples"]:
        yield _at(row, _speed("texts/s", row["workload"], row["workload"]), row["texts"] / row["seconds"])
    for name in names(record):
        for number, seconds in latencies(record, name).items():
            for share in (0.5, 0.95, 0.99):
                measure = Measure(group=f"p{share * 100:g}", what="one text", unit="ms", workload="single")
                yield name, number, measure, 1e3 * percentile(seconds, share)
    for row in record["cold"]:
        yield _at(row, Measure(group="cold start", what="first vector", unit="ms", workload=""), 1e3 * row["seconds"])
    for row in record["batches"]:
        measure = _speed("by batch", f"{row['batch']} texts a call", row["workload"])
        yield _at(row, measure, row["texts"] / row["seconds"])
    for row in record["scaling"]:
        measure = _speed("by threads", f"{row['threads']} threads", row["workload"])
        yield _at(row, measure, row["texts"] / row["seconds"])
        if row.get("single"):
            what = f"one text, {row['threads']} threads"
            single = Measure(group="by threads p50", what=what, unit="ms", workload="scaling-single")
            yield _at(row, single, 1e3 * median(row["single"]))
    for row in record["concurrent"]:
        measure = Measure(group="by callers p50", what=f"{row['callers']} callers", unit="ms", workload="single")
        yield _at(row, measure, 1e3 * percentile(row["seconds"], 0.5))


def _speed(group: str, what: str, workload: str) -> Measure:
    return Measure(group=group, what=what, unit="texts/s", workload=workload, faster_is_more=True)


def _at(row: Mapping[str, Any], measure: Measure, value: float) -> tuple[str, int, Measure, float]:
    return row["contender"], row["round"], measure, value
