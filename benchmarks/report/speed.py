"""The parts on speed: against fidelity, of one text, by length, batch, threads and callers, and from cold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from .figures import Record, cold, percentile, speed
from .records import label, names, one_call, workloads
from .sections import Drawing, Part, Table, Values, grid, looks, ours, present, rate, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-8  # float32 sums differ in order: what is nearer to the reference than this is the same
STEPS = ("interpreter", "import", "load", "first")


def pareto(record: Record) -> Part:
    """Texts a second against distance from the reference, a drawing a workload."""
    drawings, tables = [], []
    for workload in workloads(record, "texts"):
        unit, values = record["unit"], {}
        for name in names(record):
            found = record["contenders"][name].get("fidelity", {}).get(workload)
            fast = speed(record, name, workload)
            if found and fast:
                values[name] = (fast, max(FLOOR, 1 - found["cosine_mean"]))
        if len(values) < 2:
            continue
        title = f"Speed against fidelity, {workload} {unit}: right and up is better"
        drawings.append(Drawing(title=title, draw=_points(record, title, values)))
        body = [
            [label(record, name), rate(x), f"{y:.1e}" if y > FLOOR else f"<= {FLOOR:.0e}"]
            for name, (x, y) in values.items()
        ]
        tables.append(
            Table(head=[f"{workload} {unit}", f"{unit}/s", "1 - mean cosine"], body=body, strong=ours(record, values))
        )
    return Part(
        title="Speed against fidelity",
        note=f"Along the dashed front are those that nobody beats in both. Distances below {FLOOR:.0e} are "
        "float32 rounding and are drawn there.",
        drawings=drawings,
        tables=tables,
        missing="" if drawings else "no workload has speed and fidelity of two contenders",
    )


def one_text(record: Record) -> Part:
    """Latency of one text a call: all samples of all rounds."""
    one, values = one_call(record), dict[str, list[float]]()
    for row in record["latencies"]:
        if row["contender"] in names(record):
            values.setdefault(row["contender"], []).extend(1e3 * second for second in row["seconds"])
    if not values:
        return Part(title=f"Latency of {one}", missing="not measured")
    title = f"Latency of {one} a call, least median on top: left is better"

    def draw() -> Figure:
        from . import charts

        return charts.boxes(title, looks(record), values, charts.Axis(label="milliseconds a call (log scale)"))

    shares = (0.01, 0.25, 0.5, 0.75, 0.95, 0.99)
    rows = {name: [percentile(row, share) for share in shares] for name, row in values.items()}
    return Part(
        title=f"Latency of {one}",
        note="Boxes: the middle half of all calls; whiskers: from the 1st to the 99th percentile; right: p50 / p95 / "
        "p99 in ms. All rounds together; the table of contenders has the median of the rounds' percentiles.",
        tables=[grid(record, f"{one}, ms", ["p1", "p25", "p50", "p75", "p95", "p99"], rows, 2)],
        drawings=[Drawing(title=title, draw=draw)],
    )


def lengths(record: Record) -> Part:
    """Tokens a second by the length of the texts."""
    found = workloads(record, "length")
    steps = [record["workloads"][name]["length"] for name in found]
    values = present(
        {
            name: [
                fast * record["workloads"][workload]["length"] if (fast := speed(record, name, workload)) else None
                for workload in found
            ]
            for name in names(record)
        }
    )
    return _curves(
        record,
        "Throughput by text length",
        "Throughput by text length, all texts equally long: up is better",
        ("tokens in a text (log scale)", "tokens/s (log scale)"),
        steps,
        values,
    )


def batches(record: Record) -> Part:
    """Texts a second by texts a call."""
    steps, values = _by(
        record, record["batches"], "batch", lambda rows: median(r["texts"] / r["seconds"] for r in rows)
    )
    part = _curves(
        record,
        "Throughput by batch size",
        "Throughput by texts a call, mixed texts: up is better",
        ("texts a call (log scale)", "texts/s (log scale)"),
        steps,
        values,
    )
    counted = [row for row in record["batches"] if row.get("tokens")]
    steps, tokens = _by(record, counted, "batch", lambda rows: median(r["tokens"] / r["seconds"] for r in rows))
    table = grid(record, "tokens/s at texts a call", [f"{step}" for step in steps], tokens)
    return replace(part, tables=[*part.tables, table]) if tokens else part


def scaling(record: Record) -> Part:
    """Texts a second, and one text, by threads; what twice the threads would give at best is dashed for ours."""
    many_title, one_title = (
        "Throughput by threads: up is better",
        "Median latency of one text by threads: down is better",
    )
    axes = "threads (log scale)"
    steps, many = _by(
        record, record["scaling"], "threads", lambda rows: median(r["texts"] / r["seconds"] for r in rows)
    )
    with_single = [row for row in record["scaling"] if row.get("single")]
    single_steps, one = _by(
        record, with_single, "threads", lambda rows: 1e3 * median(median(r["single"]) for r in rows)
    )
    left = _curves(record, "Scaling over threads", many_title, (axes, "texts/s (log scale)"), steps, many, ideal=True)
    right = _curves(record, "", one_title, (axes, "milliseconds (log scale)"), single_steps, one, digits=2)
    return _joined(left, right, "Dotted: ours, were it twice as fast on twice the threads.")


def concurrent(record: Record) -> Part:
    """Latency, and calls a second, when several callers ask for one text each at a time."""
    axes = "callers at the same time (log scale)"
    parts = []
    for title, unit, summary, digits in (
        ("Median latency under concurrent callers: down is better", "milliseconds (log scale)", 0.5, 2),
        ("p99 latency under concurrent callers: down is better", "milliseconds (log scale)", 0.99, 2),
        ("Calls answered by concurrent callers: up is better", "texts/s (log scale)", None, 0),
    ):
        steps, values = _by(
            record, record["concurrent"], "callers", _answered if summary is None else _waiting(summary)
        )
        parts.append(_curves(record, "Concurrent callers", title, (axes, unit), steps, values, digits=digits))
    first, second, third = parts
    return _joined(
        _joined(first, second, ""), third, "Each caller is a thread that asks for one text, waits, and asks again."
    )


def cold_start(record: Record) -> Part:
    """Seconds from starting Python to the first vector, by step."""
    columns = ["interpreter", "import", "load", "first vector", "all"]
    keys = [*(f"{step}_seconds" for step in STEPS), "seconds"]
    values = present({name: [cold(record, name, key) for key in keys] for name in names(record)})
    if not values:
        return Part(title="Cold start", missing="not measured")
    order = sorted(values, key=lambda name: values[name][-1] or 0)
    title = "Cold start to the first vector, milliseconds: short is better"

    def draw() -> Figure:
        from . import charts

        seen = looks(record)
        cells = [[words(value, 0, 1e3) for value in values[name]] for name in order]
        note = "medians over fresh processes; files are in the page cache; each column has a scale of its own"
        return charts.bars(
            title, [seen[name] for name in order], columns, [values[name] for name in order], cells, note
        )

    return Part(
        title="Cold start",
        tables=[grid(record, "cold start, s", columns, values, 3)],
        drawings=[Drawing(title=title, draw=draw)],
    )


def _points(record: Record, title: str, values: dict[str, tuple[float, float]]) -> Callable[[], Figure]:
    def draw() -> Figure:
        from . import charts

        low = max(y for _, y in values.values())
        ticks = {10.0**-k: f"$10^{{-{k}}}$" for k in range(1, 8) if 10.0**-k < 3 * low}
        y = charts.Axis(label="1 - mean cosine to the reference (log scale)", ticks=ticks | {FLOOR: "same"})
        return charts.points(title, looks(record), values, charts.Axis(label=f"{record['unit']}/s (log scale)"), y)

    return draw


def _by(
    record: Record, rows: Iterable[dict[str, Any]], key: str, value: Callable[[list[dict[str, Any]]], float]
) -> tuple[list[int], Values]:
    """Steps in rising order, and for each contender a value at each, or None."""
    seen: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        seen.setdefault((row["contender"], row[key]), []).append(row)
    steps = sorted({step for _, step in seen})
    return steps, present(
        {
            name: [value(found) if (found := seen.get((name, step))) else None for step in steps]
            for name in names(record)
        }
    )


def _waiting(share: float) -> Callable[[list[dict[str, Any]]], float]:
    return lambda rows: 1e3 * median(percentile(row["seconds"], share) for row in rows)


def _answered(rows: list[dict[str, Any]]) -> float:
    return float(median(len(row["seconds"]) / row["wall"] for row in rows))


def _curves(
    record: Record,
    section: str,
    title: str,
    axes: tuple[str, str],
    steps: Sequence[float],
    values: Values,
    *,
    digits: int = 0,
    ideal: bool = False,
) -> Part:
    if not values:
        return Part(title=section, missing="not measured")
    x_label, y_label = axes

    def draw() -> Figure:
        from . import charts

        seen = looks(record)
        dotted = {
            name: [row[0] * step / steps[0] for step in steps]
            for name, row in values.items()
            if ideal and seen[name].ours and row[0] is not None
        }
        x, y = charts.Axis(label=x_label), charts.Axis(label=y_label)
        return charts.lines(title, seen, steps, values, x, y, dotted)

    what = f"{y_label.removesuffix(' (log scale)')} at {x_label.removesuffix(' (log scale)')}"
    table = grid(record, what, [f"{step}" for step in steps], values, digits)
    drawings = [Drawing(title=title, draw=draw)] if len(steps) > 1 else []
    return Part(title=section, tables=[table], drawings=drawings)


def _joined(left: Part, right: Part, note: str) -> Part:
    if left.missing:
        return left
    return Part(
        title=left.title,
        note=note or left.note,
        tables=[*left.tables, *right.tables],
        drawings=[*left.drawings, *right.drawings],
    )
