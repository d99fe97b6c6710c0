"""Say what changed between two results beyond noise: speed by contender and measure, fidelity, task scores, memory.

python -m benchmarks.report.changes OLD NEW [--all] [--fail-slower PERCENT]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from ..errors import BenchmarkError
from . import noise, records, series
from .figures import Record, peak_rss
from .noise import Change, Pair
from .records import REFERENCE
from .series import Measure
from .table import table

SAME_COSINE = 1e-5  # differences of cosines below are the order of sums
SAME_SCORE = 0.05  # points of a task
SAME_MEMORY = 0.05  # share of peak RSS: one value a run, so no interval
MACHINE = ("cpu", "cpus", "affinity", "quota", "instruction_sets")
SETTINGS = ("threads", "max_length")
Values = dict[str, dict[Measure, dict[int, float]]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One series in both records. change is None where a round alone cannot be judged."""

    contender: str
    measure: Measure
    old: float
    new: float
    change: Change | None
    ours: bool


@dataclass
class Comparison:
    """All that is to say of two records."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # fidelity, scores, memory
    same_machine: bool = True


def main(words: Sequence[str] | None = None) -> int:
    """Print; 0 compared, 1 ours got slower than --fail-slower allows, 2 nothing to compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report.changes", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="a result's folder, or its record")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--all", action="store_true", help="also print rows without a change")
    parser.add_argument(
        "--fail-slower",
        type=float,
        metavar="PERCENT",
        help="exit with 1 when fastembed-rt got slower by more than this, and beyond noise",
    )
    args = parser.parse_args(words)
    try:
        found = compare(records.read(args.old), records.read(args.new))
        slower = too_slow(found, args.fail_slower) if args.fail_slower is not None else []
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(render(found, everything=args.all))
    if slower:
        print(f"\nslower by more than {args.fail_slower:g} %: {'; '.join(slower)}")
    return 1 if slower else 0


def compare(old: Record, new: Record) -> Comparison:
    """Hold two records against each other.

    Raises:
        BenchmarkError: they are of different models or settings, or share no series on the same texts.
    """
    _refuse(old, new)
    found = Comparison()
    _name_differences(found, old, new)
    left, right = series.of(old), series.of(new)
    stale = _other_texts(found, old, new)
    unchanged = [name for name in left if name in right and not _changed(old, new, name)]
    normalised = found.same_machine and REFERENCE in unchanged
    if normalised:
        found.notes.append(f"speeds are held against {REFERENCE} of the same round: what the whole machine did cancels")
        found.notes.append(_reference_itself(left[REFERENCE], right[REFERENCE]))
    measures = sorted(
        {m for name in left if name in right for m in left[name].keys() & right[name].keys() if m.workload not in stale}
    )
    if not measures:
        raise BenchmarkError("the two results share no measure on the same texts")
    reference = REFERENCE if normalised else None
    pairs = _pairs(left, right, measures, reference)
    # Ours may have changed without a new version; who has the same version can differ by noise alone.
    still = [name for name in unchanged if not new["contenders"][name]["ours"]]
    changes: dict[tuple[str, str, str], Change] = {}
    for group in sorted({measure.group for measure in measures}):
        judged = {(name, m.what): pair for (name, m), pair in pairs.items() if m.group == group}
        same_kind = noise.changes(judged, still, len(pairs))
        changes |= {(name, group, what): change for (name, what), change in same_kind.items()}
    for measure in measures:
        for name in left:
            # The reference is the measure of the others.
            if name != reference and name in right and measure in left[name] and measure in right[name]:
                found.rows.append(
                    Row(
                        contender=name,
                        measure=measure,
                        old=median(left[name][measure].values()),
                        new=median(right[name][measure].values()),
                        change=changes.get((name, measure.group, measure.what)),
                        ours=new["contenders"][name]["ours"],
                    )
                )
    found.others += [*_fidelity(old, new), *_quality(old, new), *_memory(old, new)]
    return found


def too_slow(found: Comparison, percent: float) -> list[str]:
    """Our series that got slower by more than so much, beyond noise.

    Raises:
        BenchmarkError: the records are of different machines, which says nothing of the code.
    """
    if not found.same_machine:
        raise BenchmarkError("--fail-slower needs two results of the same kind of machine")
    return [
        f"{row.contender} {row.measure.group} {row.measure.what} {_percent(row.change.ratio)}"
        for row in found.rows
        if row.ours and row.change and row.change.verdict == "slower" and row.change.ratio < 1 - percent / 100
    ]


def render(found: Comparison, *, everything: bool = False) -> str:
    """As text: notes, a table, what else changed, how much did not."""
    shown = [row for row in found.rows if everything or (row.change and row.change.verdict != "no change beyond noise")]
    body = [
        [
            row.contender,
            f"{row.measure.group}, {row.measure.what}",
            f"{row.old:,.4g} {row.measure.unit}",
            f"{row.new:,.4g} {row.measure.unit}",
            f"{row.change.ratio:.3f} ({row.change.low:.3f} to {row.change.high:.3f})" if row.change else "-",
            row.change.verdict if row.change else "not judged: fewer than two rounds",
        ]
        for row in shown
    ]
    parts = [f"note: {note}" for note in found.notes]
    if body:
        head = ["contender", "measure", "old", "new", "speed, new over old", "verdict"]
        parts += ["", table(head, body)]
    counts = {
        word: sum(1 for row in found.rows if row.change and row.change.verdict == word)
        for word in ("faster", "slower", "no change beyond noise")
    }
    unjudged = sum(row.change is None for row in found.rows)
    counted = ", ".join(f"{count} {word}" for word, count in counts.items())
    parts += ["", counted + (f", {unjudged} not judged" if unjudged else "")]
    parts += ["", *(found.others or ["fidelity, task scores and memory: no change"])]
    return "\n".join(parts).strip()


def _refuse(old: Record, new: Record) -> None:
    models = [record.get("model", {}).get("source", {}).get("sha256") for record in (old, new)]
    if models[0] != models[1]:
        raise BenchmarkError(
            f"different models: {str(models[0])[:16]} and {str(models[1])[:16]}; nothing is comparable"
        )
    for key in SETTINGS:
        was, now = old["settings"].get(key), new["settings"].get(key)
        if was != now:
            raise BenchmarkError(f"different settings: {key} {was} and {now}; nothing is comparable")


def _name_differences(found: Comparison, old: Record, new: Record) -> None:
    for key in MACHINE:
        was, now = old["machine"].get(key), new["machine"].get(key)
        if was != now:
            found.same_machine = False
            found.notes.append(f"different machines: {key} {was}, now {now}; figures are not held against {REFERENCE}")
    names = [name for name in old["contenders"] if name in new["contenders"]]
    for name in names:
        was, now = (_versions(record, name) for record in (old, new))
        moved = [
            f"{key} {was.get(key)} -> {now.get(key)}" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
        ]
        if moved:
            found.notes.append(f"{name} has other versions: {', '.join(moved)}")
        states = [record["contenders"][name]["status"] for record in (old, new)]
        if states[0] != states[1]:
            reason = new["contenders"][name]["reason"]
            found.notes.append(f"{name} was {states[0]}, is {states[1]}{': ' + reason if reason else ''}")
    for one, other, word in ((old, new, "only in the old result"), (new, old, "only in the new result")):
        alone = [name for name in one["contenders"] if name not in other["contenders"]]
        if alone:
            found.notes.append(f"{word}: {', '.join(alone)}")


def _other_texts(found: Comparison, old: Record, new: Record) -> set[str]:
    """Workloads of the same name whose texts differ: their series are left out."""
    stale = set()
    for name, workload in new["workloads"].items():
        before = old["workloads"].get(name)
        if before and before.get("sha256") != workload.get("sha256"):
            stale.add(name)
            found.notes.append(
                f"{name}: the texts differ ({before['sha256'][:12]}, now {workload['sha256'][:12]}): refused"
            )
    return stale


def _versions(record: Record, name: str) -> dict[str, str]:
    return dict((record["contenders"][name].get("load") or {}).get("versions") or {})


def _changed(old: Record, new: Record, name: str) -> bool:
    return _versions(old, name) != _versions(new, name)


def _reference_itself(left: dict[Measure, dict[int, float]], right: dict[Measure, dict[int, float]]) -> str:
    """What the machine did, in the reference's own figures."""
    speeds = []
    for measure in left.keys() & right.keys():
        was, now = median(left[measure].values()), median(right[measure].values())
        speeds.append(now / was if measure.faster_is_more else was / now)
    if not speeds:
        return f"{REFERENCE} shares no measure with itself"
    least, most = min(speeds), max(speeds)
    return f"{REFERENCE} itself ran at {least:.2f} to {most:.2f} times its old speed, over {len(speeds)} measures"


def _pairs(
    left: Values, right: Values, measures: Sequence[Measure], reference: str | None
) -> dict[tuple[str, Measure], Pair]:
    """Logarithms of speed in both records; less the reference's in the same round where it is to be held against."""
    pairs = {}
    for measure in measures:
        for name in left:
            if name == reference:
                continue
            old, new = (_logarithms(side, name, measure, reference) for side in (left, right))
            if min(len(old), len(new)) >= 2:
                pairs[name, measure] = Pair(old=old, new=new)
    return pairs


def _logarithms(side: Values, name: str, measure: Measure, reference: str | None) -> noise.Floats:
    rounds = side.get(name, {}).get(measure, {})
    base = side[reference].get(measure, {}) if reference else dict.fromkeys(rounds, 1.0)
    sign = 1 if measure.faster_is_more else -1
    return np.array([sign * math.log(rounds[number] / base[number]) for number in rounds if number in base])


def _fidelity(old: Record, new: Record) -> list[str]:
    lines = []
    for name in _both(old, new):
        was, now = (record["contenders"][name].get("fidelity") or {} for record in (old, new))
        for workload in now:
            if old["workloads"].get(workload, {}).get("sha256") != new["workloads"].get(workload, {}).get("sha256"):
                continue
            for key in ("cosine_mean", "cosine_p1", "cosine_min"):
                if workload in was and abs(was[workload][key] - now[workload][key]) > SAME_COSINE:
                    word = "better" if now[workload][key] > was[workload][key] else "worse"
                    pair = f"{was[workload][key]:.6f} -> {now[workload][key]:.6f}"
                    lines.append(f"fidelity {word}: {name}, {workload}, {key.replace('cosine_', 'cosine ')}: {pair}")
    return lines


def _quality(old: Record, new: Record) -> list[str]:
    scores = [
        {
            (task["name"], task["metric"], name): value
            for task in record["quality"]["tasks"]
            for name, value in task["contenders"].items()
        }
        for record in (old, new)
    ]
    return [
        f"quality {'better' if scores[1][key] > was else 'worse'}: {key[2]}, {key[0]} {key[1]}: "
        f"{was:.2f} -> {scores[1][key]:.2f} ({scores[1][key] - was:+.2f} points)"
        for key, was in scores[0].items()
        if key in scores[1] and abs(scores[1][key] - was) > SAME_SCORE
    ]


def _memory(old: Record, new: Record) -> list[str]:
    lines = []
    for name in _both(old, new):
        was, now = peak_rss(old, name), peak_rss(new, name)
        if was and now and abs(now / was - 1) > SAME_MEMORY:
            word = "less" if now < was else "more"
            lines.append(
                f"memory {word}: {name}, peak RSS: {was / 1e6:,.0f} -> {now / 1e6:,.0f} MB (one value a result)"
            )
    return lines


def _both(old: Record, new: Record) -> list[str]:
    return [name for name in records.names(new) if name in records.names(old)]


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


if __name__ == "__main__":
    sys.exit(main())
