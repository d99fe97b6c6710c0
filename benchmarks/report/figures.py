"""Raw samples to figures: medians, percentiles, ratios of pairs taken in the same round. Pure functions of a record."""

from __future__ import annotations

from statistics import median
from typing import Any

Record = dict[str, Any]
FEW = 0.02  # of all samples, with which figures stand as they are
DISTURBED = 0.1  # CPUs that everything else may take, on average over a sample, before it counts as disturbed

CLOCK = 0.05  # seconds: the kernel counts CPU time in steps of a hundredth


def speeds(record: Record, contender: str, workload: str) -> dict[int, float]:
    """Texts a second by round."""
    return {
        sample["round"]: sample["texts"] / sample["seconds"]
        for sample in record["samples"]
        if sample["contender"] == contender and sample["workload"] == workload
    }


def speed(record: Record, contender: str, workload: str) -> float | None:
    """Median texts a second; None when it was not measured."""
    found = speeds(record, contender, workload)
    return median(found.values()) if found else None


def ratio(record: Record, over: str, under: str, workload: str) -> tuple[float, float, float] | None:
    """Median, least and largest of the speeds' ratio, each of two passes of the same round."""
    left, right = speeds(record, over, workload), speeds(record, under, workload)
    pairs = [left[number] / right[number] for number in left.keys() & right.keys()]
    return (median(pairs), min(pairs), max(pairs)) if pairs else None


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: a value that was really seen."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def latencies(record: Record, contender: str) -> dict[int, list[float]]:
    """Seconds of each call of one text by round, all turns together."""
    found: dict[int, list[float]] = {}
    for row in record["latencies"]:
        if row["contender"] == contender:
            found.setdefault(row["round"], []).extend(row["seconds"])
    return found


def latency(record: Record, contender: str, share: float) -> float | None:
    """Seconds of one text: the percentile in each round, and the median of these."""
    found = [percentile(seconds, share) for seconds in latencies(record, contender).values()]
    return median(found) if found else None


def latency_ratio(record: Record, over: str, under: str, share: float) -> tuple[float, float, float] | None:
    """Median, least and largest of the percentiles' ratio, each of two of the same round."""
    left, right = latencies(record, over), latencies(record, under)
    pairs = [percentile(left[number], share) / percentile(right[number], share) for number in left.keys() & right]
    return (median(pairs), min(pairs), max(pairs)) if pairs else None


def cold(record: Record, contender: str, key: str = "seconds") -> float | None:
    """Median over fresh processes of one step, or of the whole way to the first vector."""
    found = [row[key] for row in record["cold"] if row["contender"] == contender]
    return median(found) if found else None


def peak_rss(record: Record, contender: str) -> int | None:
    """Peak memory of the serving process after all that it did, in bytes."""
    row = record["contenders"].get(contender, {})
    for moment in ("after_rounds", "after_check"):
        if moment in row:
            return int(row[moment]["peak_rss"])
    return None


def least_cosines(record: Record, contender: str) -> dict[str, float] | None:
    """Least `mean`, first percentile `p1` and worst text `min` of the workloads, each by itself."""
    found = (record["contenders"].get(contender, {}).get("fidelity") or {}).values()
    return {key: min(row[f"cosine_{key}"] for row in found) for key in ("mean", "p1", "min")} if found else None


def disturbed(record: Record) -> tuple[int, int]:
    """Samples during which something else took more than DISTURBED CPUs, and all samples."""
    rows = [*record["samples"], *record["latencies"]]
    return sum(row["other_cpu"] > max(CLOCK, DISTURBED * row["wall"]) for row in rows), len(rows)


def disturbance(record: Record) -> str:
    """What other work did to the samples, "" if nothing; a few of them do not move a median."""
    few, samples = disturbed(record)
    if not few:
        return ""
    were = "was" if few == 1 else "were"
    found = f"{few} of {samples} samples {were} disturbed by other work"
    return f"{found}: read ratios only" if few > FEW * samples else found
