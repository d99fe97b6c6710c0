"""The tables of single parts: by length, by texts a call, by callers, by threads, task scores, limits, invariance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median
from typing import Any

from .figures import Record, percentile, speed
from .sections import rate, words
from .table import table

Cells = dict[str, dict[Any, list[float]]]  # values by contender and column


def render(record: Record) -> list[str]:
    """A table for each part that was measured, with its title above."""
    made = (
        _lengths(record),
        _table(record, "Texts/s by texts a call", record.get("batches"), "batch", _rate),
        _table(record, "Texts/s by threads", record.get("scaling"), "threads", _rate),
        _table(record, "Calls/s by callers at once", record.get("concurrent"), "callers", _calls),
        _table(record, "p99 of a call in ms by callers at once", record.get("concurrent"), "callers", _slowest, 2),
        _quality(record),
        _limits(record),
        _invariance(record),
    )
    return [text for text in made if text]


def _rate(row: dict[str, Any]) -> float:
    return float(row["texts"] / row["seconds"])


def _calls(row: dict[str, Any]) -> float:
    return float(len(row["seconds"]) / row["wall"])


def _slowest(row: dict[str, Any]) -> float:
    return 1e3 * percentile(row["seconds"], 0.99)


def _table(
    record: Record,
    title: str,
    rows: Iterable[dict[str, Any]] | None,
    column: str,
    value: Callable[[dict[str, Any]], float],
    digits: int = 0,
) -> str:
    """Medians over rounds of a value, by contender and by what `column` says."""
    cells: Cells = defaultdict(lambda: defaultdict(list))
    for row in rows or ():
        cells[row["contender"]][row[column]].append(value(row))
    columns = sorted({key for found in cells.values() for key in found})
    return _filled(
        record,
        title,
        columns,
        {name: {key: median(found[key]) for key in found} for name, found in cells.items()},
        digits,
    )


def _lengths(record: Record) -> str:
    workloads = {facts["length"]: name for name, facts in record["workloads"].items() if facts.get("group") == "length"}
    values: dict[str, dict[Any, float]] = defaultdict(dict)
    for contender in record["contenders"]:
        for length, workload in sorted(workloads.items()):
            if (found := speed(record, contender, workload)) is not None:
                values[contender][length] = found
    return _filled(record, "Texts/s by tokens of a text", sorted(workloads), values, rate)


def _quality(record: Record) -> str:
    tasks = record.get("quality", {}).get("tasks", [])
    values: dict[str, dict[Any, float]] = defaultdict(dict)
    for task in tasks:
        for name, score in task["contenders"].items():
            values[name][f"{task['name']}, {task['metric']}"] = score
    columns = [f"{task['name']}, {task['metric']}" for task in tasks]
    text = _filled(record, "Task scores in percent", columns, values, 2)
    skipped = [f"- {row['name']}: {row['reason']}" for row in record.get("quality", {}).get("skipped", [])]
    return "\n\n".join(part for part in (text, "\n".join(["Skipped:", "", *skipped]) if skipped else "") if part)


def _limits(record: Record) -> str:
    found = record.get("limits", {})
    shares = found.get("shares", {})
    columns = [name for name in record["workloads"] if any(name in row for row in shares.values())]
    values = {name: {key: 100 * row[key]["share"] for key in row} for name, row in shares.items()}
    peaks = ", ".join(
        f"{precision} {found[precision]['peak_gops_one_thread']:,.0f} on one thread and "
        f"{found[precision]['peak_gops_all_threads']:,.0f} on all"
        for precision in ("fp32", "bf16", "int8")
        if precision in found
    )
    return _filled(record, f"Linear layers in percent of the machine's peak, in GOP/s: {peaks}", columns, values, 0)


def _invariance(record: Record) -> str:
    rows = {name: row["invariance"] for name, row in record["contenders"].items() if "invariance" in row}
    body = [[_title(record, name), f"{row['alone']:.1e}", f"{row['order']:.1e}"] for name, row in rows.items()]
    title = "Largest difference of a vector's element, beside the text in its batch"
    return f"{title}:\n\n{table(['contender', 'alone', 'another order'], body)}" if body else ""


def _filled(
    record: Record,
    title: str,
    columns: Sequence[Any],
    values: dict[str, dict[Any, float]],
    digits: int | Callable[[float | None], str],
) -> str:
    """`digits` behind the point, or what writes a number."""
    if not columns or not values:
        return ""
    written = digits if callable(digits) else partial(words, digits=digits)
    body = [
        [_title(record, name), *(written(row.get(key)) for key in columns)]
        for name in record["contenders"]
        if (row := values.get(name))
    ]
    return f"{title}:\n\n{table(['contender', *map(str, columns)], body)}"


def _title(record: Record, name: str) -> str:
    return str(record["contenders"][name]["title"])
