"""The parts on how far there is to go, and on what vectors are good for: operators, GEMM peak, tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .figures import Record
from .records import REFERENCE, label
from .sections import Drawing, Part, Table, looks, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPERATORS = 10  # rows of the drawing; the rest is summed up


def peak(record: Record) -> Part:
    """Each result as a share of the machine's GEMM peak."""
    limits = record["limits"]
    found = [
        (name, workload, share["gops"], share["share"])
        for name, by_workload in limits["shares"].items()
        for workload, share in by_workload.items()
        if name in record["contenders"]
    ]
    if not found:
        return Part(title="Distance from the machine's limit", missing=limits.get("failed", "not measured"))
    lines = [
        f"{precision} peak of one large product: "
        + ", ".join(
            f"{limits[precision][key]:,.0f} GOP/s on {threads}"
            for key, threads in (("peak_gops_one_thread", "one thread"), ("peak_gops_all_threads", "all threads"))
            if limits[precision].get(key)
        )
        for precision in ("fp32", "bf16", "int8")
        if limits.get(precision)
    ]
    title = "Share of the machine's GEMM peak that is reached"

    def draw() -> Figure:
        from dataclasses import replace

        from . import charts

        seen = looks(record)
        rows = [replace(seen[name], label=f"{label(record, name)}, {workload}") for name, workload, _, _ in found]
        # All bars on the scale of the peak: their length is the share.
        values = [[100 * share, 100.0] for _, _, _, share in found]
        cells = [
            [f"{share:.0%} ({gops:,.0f} GOP/s)", f"{gops / share:,.0f} GOP/s" if share else "-"]
            for _, _, gops, share in found
        ]
        note = "whole time of a run, all operators, against products at the peak of the same precision"
        return charts.bars(title, rows, ["reached", "peak"], values, cells, note, shared=True)

    body = [[label(record, name), workload, words(gops), f"{share:.1%}"] for name, workload, gops, share in found]
    return Part(
        title="Distance from the machine's limit",
        tables=[Table(head=["contender", "workload", "GOP/s", "share of the peak"], body=body)],
        drawings=[Drawing(title=title, draw=draw)],
        lines=lines,
    )


def operators(record: Record) -> Part:
    """Time by operator, onnxruntime's profile."""
    found = {
        (name, workload): shares
        for name, by_workload in record["limits"]["operators"].items()
        for workload, shares in by_workload.items()
        if name in record["contenders"] and shares
    }
    if not found:
        return Part(title="Time by operator", missing=record["limits"].get("failed", "not measured"))
    total: dict[str, float] = {}
    for shares in found.values():
        for operator, share in shares.items():
            total[operator] = total.get(operator, 0) + share
    ranked = sorted(total, key=lambda operator: -total[operator])
    title = "Time by operator, per cent of a run: where the time goes"
    columns = [f"{label(record, name).replace('fastembed-rt ', '')}, {workload}" for name, workload in found]

    def draw() -> Figure:
        from . import charts, theme

        kept, rest = ranked[:OPERATORS], ranked[OPERATORS:]
        values: list[list[float | None]] = [[100 * s[op] if op in s else None for s in found.values()] for op in kept]
        rows = [theme.Look(label=op, color=theme.PEERS[0], marker="o", ours=False) for op in kept]
        if rest:
            rows.append(theme.Look(label="all others", color=theme.PEERS[3], marker="o", ours=False))
            values.append([100 * sum(s.get(op, 0) for op in rest) for s in found.values()])
        cells = [[words(value, 1) for value in row] for row in values]
        note = "per cent of the time in kernels, one thread, onnxruntime's profile; all columns on one scale"
        return charts.bars(title, rows, columns, values, cells, note, shared=True)

    body = [[op, *(f"{shares[op]:.1%}" if op in shares else "-" for shares in found.values())] for op in ranked]
    return Part(
        title="Time by operator",
        tables=[Table(head=["operator", *columns], body=body)],
        drawings=[Drawing(title=title, draw=draw)],
    )


def quality(record: Record) -> Part:
    """Task scores, and how far they are from the reference's."""
    tasks, skipped = record["quality"]["tasks"], record["quality"]["skipped"]
    lines = [f"{row['name']}: left out: {row['reason']}" for row in skipped]
    known = [name for name in record["contenders"] if any(name in task["contenders"] for task in tasks)]
    if not known:
        return Part(title="Quality by task", missing="not measured", lines=lines)
    heads = [f"{task['name']}, {task['metric']}" for task in tasks]
    body = [[label(record, name), *(words(task["contenders"].get(name), 2) for task in tasks)] for name in known]
    strong = frozenset(k for k, name in enumerate(known) if record["contenders"][name]["ours"])
    others = [name for name in known if name != REFERENCE]
    title = f"Task scores: points above or below {label(record, REFERENCE)}"

    gaps = [
        scores[name] - scores[REFERENCE]
        for scores in (task["contenders"] for task in tasks)
        for name in others
        if {name, REFERENCE} <= scores.keys()
    ]
    widest = max(map(abs, gaps), default=0.0)

    def draw(chosen: slice) -> Figure:
        from . import charts

        seen = looks(record)
        part = tasks[chosen]
        values = [
            [
                scores[name] - scores[REFERENCE] if name in scores and REFERENCE in scores else None
                for scores in (task["contenders"] for task in part)
            ]
            for name in others
        ]
        cells = [
            [
                f"{task['contenders'][name]:.2f}" + (f" ({value:+.2f})" if value is not None else "")
                if name in task["contenders"]
                else "-"
                for task, value in zip(part, row, strict=True)
            ]
            for name, row in zip(others, values, strict=True)
        ]
        columns = [f"{task['name']}\n{task['metric']}" for task in part]
        note = "bars: difference in points, all on one scale; in words: the score in per cent and the difference"
        rows = [seen[name] for name in others]
        return charts.bars(title, rows, columns, values, cells, note, around_zero=True, shared=widest or True)

    wide = 3  # tasks that stand beside each other
    parts = [slice(k, k + wide) for k in range(0, len(tasks), wide)]
    drawings = [Drawing(title=title, draw=lambda part=part: draw(part)) for part in parts] if others else []  # type: ignore[misc]
    return Part(
        title="Quality by task",
        note="Per cent. What int8 costs on a task, beside what it costs in cosine.",
        tables=[Table(head=["contender", *heads], body=body, strong=strong)],
        drawings=drawings,
        lines=lines,
    )
