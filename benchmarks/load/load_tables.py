"""A record of a load as tables: medians of the rounds, and ratios that are taken within a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

Record = dict[str, Any]
Sample = dict[str, Any]


def percentile(seconds: list[float], share: float) -> float:
    """Of sorted values."""
    return seconds[min(int(len(seconds) * share), len(seconds) - 1)]


def rate(sample: Sample) -> float:
    """Requests a second."""
    return float(sample["answered"] / sample["wall"])


def milliseconds(share: float) -> Callable[[Sample], float | None]:
    """A percentile of a sample's answers."""
    return lambda sample: 1e3 * percentile(sample["seconds"], share) if sample["seconds"] else None


def of(record: Record, server: str, scenario: str) -> dict[int, Sample]:
    """Samples by round."""
    return {row["round"]: row for row in record["samples"] if (row["server"], row["scenario"]) == (server, scenario)}


def middle(values: Iterable[float | None]) -> float | None:
    """The median of those that are there."""
    found = [value for value in values if value is not None]
    return median(found) if found else None


def ratio(
    record: Record, one: tuple[str, str], other: tuple[str, str], value: Callable[[Sample], float | None]
) -> float | None:
    """The median of the rounds' ratios of two servers and scenarios."""
    ours, theirs = of(record, *one), of(record, *other)
    found = []
    for number in ours.keys() & theirs.keys():
        above, below = value(ours[number]), value(theirs[number])
        if above is not None and below:
            found.append(above / below)
    return median(found) if found else None


def to_encode(record: Record, server: str, scenario: str) -> float | None:
    """A server's requests/s as a share of what `encode` does in the same round with many texts in a call."""
    precision = server.split("-")[1]
    bulk = {row["round"]: row["rate"] for row in record["encode"] if row["precision"] == precision}
    return middle(rate(row) / bulk[number] for number, row in of(record, server, scenario).items() if number in bulk)


def over_encode(record: Record, server: str) -> float | None:
    """Milliseconds by which one request takes longer than one call of `encode`, by medians of a round."""
    precision = server.split("-")[1]
    single = {
        row["round"]: percentile(row["seconds"], 0.5) for row in record["encode"] if row["precision"] == precision
    }
    found = []
    for number, row in of(record, server, "one").items():
        if row["seconds"] and number in single:
            found.append(1e3 * (percentile(row["seconds"], 0.5) - single[number]))
    return middle(found)


def render(record: Record) -> str:
    """All tables, in Markdown."""
    scenarios = list(dict.fromkeys(row["scenario"] for row in record["samples"]))
    settings = record["settings"]
    lines = [
        f"{settings['threads']} CPUs a server, the driver on {settings['driver_cpus']}, {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s, medians; questions, one a request.",
        "",
        "| requests/s (p50 / p99 in ms; not answered) | " + " | ".join(scenarios) + " |",
        "| --- |" + " ---: |" * len(scenarios),
    ]
    for name, about in record["servers"].items():
        cells = [_cell(list(of(record, name, scenario).values())) for scenario in scenarios]
        lines.append(f"| {about['title']} | " + " | ".join(cells) + " |")
        if "failed" in about:
            lines[-1] = f"| {about['title']} | {about['failed']} |" + " |" * (len(scenarios) - 1)
    busiest = max((row["driver_busy"] for row in record["samples"]), default=0.0)
    lines += ["", f"The driver was busy for {100 * busiest:.0f} % of a CPU at most.", ""]
    for name, about in record["servers"].items():
        if about["ours"] and "failed" not in about:
            lines += [f"- {about['title']}: {', '.join(_claims(record, name, scenarios))}"]
        elif about.get("floor") and (over := over_encode(record, name)) is not None:
            lines += [f"- {about['title']}: one connection {over:+.2f} ms to encode, which is what HTTP takes here"]
    return "\n".join(lines)


def _cell(rows: list[Sample]) -> str:
    if not rows:
        return ""
    failed = sum(sum(row["failed"].values()) for row in rows)
    half, late = middle(map(milliseconds(0.5), rows)), middle(map(milliseconds(0.99), rows))
    if half is None or late is None:
        return f"none ({failed} failed)"
    text = f"{median(map(rate, rows)):,.0f} ({half:.2f} / {late:.2f}"
    return text + (f"; {failed})" if failed else ")")


def _claims(record: Record, name: str, scenarios: list[str]) -> list[str]:
    """What the numbers say of one of our servers."""
    said = []
    over = over_encode(record, name)
    if over is not None:
        said.append(f"one connection {over:+.2f} ms to encode")
    for scenario in scenarios:
        share = to_encode(record, name, scenario) if scenario in ("32", "256") else None
        if share is not None:
            said.append(f"{scenario} connections {100 * share:.0f} % of encode's rate")
    slower = ratio(record, (name, "eight-long"), (name, "eight"), milliseconds(0.99))
    if slower is not None:
        said.append(f"p99 x {slower:.2f} under a long job")
    for other, about in record["servers"].items():
        faster = None if about["ours"] or about.get("floor") else ratio(record, (name, "32"), (other, "32"), rate)
        if faster is not None:
            said.append(f"{faster:.1f} x {about['title']}")
    return said
