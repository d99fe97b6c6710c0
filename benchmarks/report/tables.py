"""A result as Markdown: one row a contender, the ratios that the project sets itself, then a table for each part.

What a terminal shows after a run; benchmarks/report makes the page with plots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import part_tables
from .figures import Record, cold, disturbance, latency, latency_ratio, least_cosines, peak_rss, ratio, speed
from .records import one_call
from .sections import rate
from .table import table

__all__ = ["contender_table", "ratio_table", "render", "single_table", "table"]

OPENVINO, TORCH, FASTEMBED = "st-openvino-int8", "st-torch", "fastembed"
INT8, FP32 = "rt-int8", "rt-fp32"

# Speed of the first over the second, and what is wanted of it by workload.
RATIOS = (
    (INT8, OPENVINO, {"short": 1.8, "mixed": 1.5, "long": 1.1}),
    (INT8, TORCH, {"short": 8.0, "mixed": 7.5, "long": 5.5}),
    (FP32, TORCH, {"short": 3.1, "mixed": 3.2, "long": 2.3}),
)


def render(record: Record) -> str:
    """All tables of a result."""
    parts = [_conditions(record), contender_table(record)]
    if record.get("kind") in (None, "embedding"):
        parts += ["Ratios, each the median over rounds (least to largest):", ratio_table(record)]
    parts += [single_table(record), *part_tables.render(record)]
    failed = [
        f"- {row['title']}: {row['status']}: {row['reason']}"
        for row in record["contenders"].values()
        if row["status"] != "ok"
    ]
    failed += [
        f"- {row['title']}, {part}: {reason}"
        for row in record["contenders"].values()
        for part, reason in row.get("failed_parts", {}).items()
    ]
    if failed:
        parts.append("Not compared:\n\n" + "\n".join(failed))
    return "\n\n".join(part for part in parts if part) + "\n"


def contender_table(record: Record) -> str:
    """Speed, latency, cold start, memory, disk and fidelity of each contender."""
    workloads = [name for name, facts in record["workloads"].items() if facts.get("group") != "length"]
    head = [
        "contender",
        *(f"{name}, {record.get('unit', 'texts')}/s" for name in workloads),
        "p50, ms",
        "p95",
        "p99",
        "cold start, s",
    ]
    head += ["peak RSS, MB", "packages + model, MB", "cosine mean / p1 / worst"]
    body = []
    for name, row in record["contenders"].items():
        body.append(
            [
                row["title"],
                *(rate(speed(record, name, workload)) for workload in workloads),
                *(_number(latency(record, name, share), 2, 1e3) for share in (0.5, 0.95, 0.99)),
                _number(cold(record, name), 2),
                _number(peak_rss(record, name), 0, 1e-6),
                _disk(row),
                _fidelity(record, name) if row["status"] == "ok" else row["status"],
            ]
        )
    return table(head, body)


def ratio_table(record: Record) -> str:
    """What the project wants of its speed, and what it is."""
    workloads = [name for name in record["workloads"] if any(name in wanted for _, _, wanted in RATIOS)]
    workloads = workloads or [name for name, facts in record["workloads"].items() if facts.get("group") != "length"]
    body = []
    for over, under, wanted in RATIOS:
        cells = []
        for workload in workloads:
            found = ratio(record, over, under, workload)
            goal = f", wanted {wanted[workload]:g}x" if workload in wanted else ""
            cells.append(f"{found[0]:.2f}x ({found[1]:.2f} to {found[2]:.2f}){goal}" if found else "not measured")
        body.append([f"{_title(record, over)} over {_title(record, under)}", *cells])
    return table(["texts/s", *workloads], body)


def single_table(record: Record) -> str:
    """One text, cold start and memory against the best of the others."""
    one = one_call(record)
    mine = [name for name, row in record["contenders"].items() if row["ours"]]
    others = [name for name in record["contenders"] if name not in mine]
    fastest = _least(others, lambda name: latency(record, name, 0.5))
    body = []
    for name in (name for name in mine if record["contenders"][name]["status"] == "ok"):
        p50, p99 = latency(record, name, 0.5), latency(record, name, 0.99)
        title = _title(record, name)
        start, memory = cold(record, name), peak_rss(record, name)
        if p50 is not None:
            pair = latency_ratio(record, name, fastest, 0.5) if fastest else None
            against = f", {pair[0]:.2f}x of {_title(record, fastest or '')}'s, the fastest other" if pair else ""
            body.append([f"{title}, {one}, p50", f"{_number(p50, 2, 1e3)} ms{against}"])
            body.append([f"{title}, {one}, p99", f"{_number(p99, 2, 1e3)} ms{_share(p99, p50, ' its p50')}"])
        if start is not None:
            against = _share(start, cold(record, FASTEMBED), " fastembed's")
            body.append([f"{title}, cold start to the first vector", f"{_number(start, 3)} s{against}"])
        if memory is not None:
            against = _share(memory, peak_rss(record, FASTEMBED), " fastembed's")
            body.append([f"{title}, peak RSS", f"{_number(memory, 0, 1e-6)} MB{against}"])
    return table([f"{one}, cold start, memory", "measured"], body) if body else ""


def _conditions(record: Record) -> str:
    machine, settings = record["machine"], record["settings"]
    cut = " (interrupted)" if record.get("interrupted") else ""
    lines = [
        f"{machine['cpu']}, {machine['cpus']} CPUs, {settings['threads']} threads for each contender, "
        f"{settings['rounds']} interleaved rounds{cut}, texts cut at {settings['max_length']} tokens, "
        f"{record['started']}",
    ]
    for name, workload in record["workloads"].items():
        if workload.get("group") == "length":
            continue
        tokens = f", {workload['tokens'] / workload['texts']:.0f} tokens on average" if workload.get("tokens") else ""
        lines.append(f"- {name}: {workload['title']}{tokens}")
    if found := disturbance(record):
        lines.append(f"- {found}")
    return "\n".join(lines)


def _title(record: Record, name: str) -> str:
    return str(record["contenders"].get(name, {}).get("title", name))


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:,.{digits}f}"


def _share(value: float | None, of: float | None, whose: str) -> str:
    return f", {value / of:.2f}x{whose}" if value is not None and of else ""


def _disk(row: Record) -> str:
    if "model_bytes" not in row or "package_bytes" not in row:
        return "-"
    return f"{row['package_bytes'] / 1e6:,.0f} + {row['model_bytes'] / 1e6:,.0f}"


def _fidelity(record: Record, name: str) -> str:
    found = least_cosines(record, name)
    return f"{found['mean']:.4f} / {found['p1']:.4f} / {found['min']:.4f}" if found else "-"


def _least(names: Sequence[str], key: Callable[[str], float | None]) -> str | None:
    known = [(value, name) for name in names if (value := key(name)) is not None]
    return min(known)[1] if known else None
