"""Write README's benchmark section from a committed record, between two comments; `--check` says whether it is so.

python -m benchmarks.readme_table RESULT_DIR README.md [--check]
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import records
from .contenders import REFERENCE
from .errors import BenchmarkError
from .figures import Record, cold, disturbed, latency, peak_rss, speed, worst_fidelity
from .markdown import table

BEGIN, END = "<!-- benchmark table: begin ({}) -->", "<!-- benchmark table: end -->"
SECTION = re.compile(
    r"<!-- benchmark table: begin \((?P<record>[^)]*)\) -->\n.*?<!-- benchmark table: end -->", re.DOTALL
)
Value = Callable[[str], float | None]


def main(words: Sequence[str] | None = None) -> int:
    """Rewrite or check; 0 done or the same, 1 README differs from the record, 2 cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme_table", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("result", type=Path, metavar="RESULT_DIR", help="folder with record.json, or a record's file")
    parser.add_argument("readme", type=Path, metavar="README.md")
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where it would change")
    args = parser.parse_args(words)
    try:
        text = args.readme.read_text(encoding="utf-8")
        wanted = rewritten(text, records.path_of(args.result), args.readme.parent)
    except (BenchmarkError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if wanted == text:
        return 0
    if args.check:
        lines = difflib.unified_diff(
            text.splitlines(), wanted.splitlines(), str(args.readme), "from the record", lineterm=""
        )
        print("\n".join(lines))
        return 1
    args.readme.write_text(wanted, encoding="utf-8")
    return 0


def named(readme: str) -> str:
    """The record that a README says its section is from, relative to the README.

    Raises:
        BenchmarkError: it has no such section, or several.
    """
    found = [match["record"] for match in SECTION.finditer(readme)]
    if len(found) != 1:
        raise BenchmarkError(f"README has {len(found)} benchmark sections: wanted are one '{BEGIN}' and one '{END}'")
    return found[0]


def rewritten(readme: str, record: Path, root: Path) -> str:
    """README with the section made anew from a record's file; both are below, or relative to, `root`.

    Raises:
        BenchmarkError: no section, or no record.
    """
    named(readme)
    path = record.resolve()
    if not path.is_relative_to(root.resolve()):
        raise BenchmarkError(f"{record} is not below {root}: README could not link to it")
    link = path.relative_to(root.resolve()).as_posix()
    section = f"{BEGIN.format(link)}\n{render(records.read(path), link)}\n{END}"
    return SECTION.sub(lambda _: section, readme)


def render(record: Record, link: str) -> str:
    """The section: how it was measured, the table, who is ahead of us, task scores, what failed."""
    # The first format's records have names of their own, and a report of the same name.
    name = "report" if link.endswith("/" + records.FILE) else Path(link).stem
    report = Path(link).with_name(f"{name}.md").as_posix()
    blocks = [_conditions(record, report), _table(record), _behind(record), _quality(record), _failed(record)]
    return "\n\n".join(block for block in blocks if block)


def _conditions(record: Record, report: str) -> str:
    machine, settings = record["machine"], record["settings"]
    noisy, samples = disturbed(record)
    noise = f" {noisy} of {samples} samples were disturbed by other work: read ratios only." if noisy else ""
    return (
        f"One run on {machine['cpus']} CPUs ({machine['cpu']}) on {record['started'][:10]}: every contender in an "
        f"environment of its own, {settings['threads']} threads, texts cut at {settings['max_length']} tokens, medians "
        f"of {settings['rounds']} interleaved rounds ([report]({report})).{noise}"
    )


def _columns(record: Record) -> list[tuple[str, Value, bool, Callable[[float], str]]]:
    """Head, value of a contender, whether more is better, how it is written."""
    columns: list[tuple[str, Value, bool, Callable[[float], str]]] = [
        (f"{workload}, texts/s", lambda name, w=workload: speed(record, name, w), True, _plain)  # type: ignore[misc]
        for workload in records.workloads(record, "texts")
    ]
    return [
        *columns,
        ("one text, p50", lambda name: latency(record, name, 0.5), False, lambda value: f"{1e3 * value:.1f} ms"),
        ("cold start", lambda name: cold(record, name), False, lambda value: f"{value:.2f} s"),
        ("peak memory", lambda name: peak_rss(record, name), False, lambda value: f"{value / 1e6:,.0f} MB"),
    ]


def _table(record: Record) -> str:
    columns = _columns(record)
    best = {}
    for head, value, more, write in columns:
        known = [found for name in records.names(record) if (found := value(name)) is not None]
        best[head] = write((max if more else min)(known)) if known else None
    body = []
    for name in records.names(record):
        title = records.title(record, name)
        row = [f"**{title}**" if record["contenders"][name]["ours"] else title]
        for head, value, _, write in columns:
            found = value(name)
            cell = "-" if found is None else write(found)
            row.append(f"**{cell}**" if cell == best[head] and cell != "-" else cell)
        fidelity = worst_fidelity(record, name)
        body.append([*row, _cosines(fidelity["cosine_mean"], fidelity["cosine_min"]) if fidelity else "-"])
    return table(["", *(head for head, *_ in columns), "cosine, mean / worst"], body)


def _behind(record: Record) -> str:
    """Where others are ahead of the best of ours: said by the figures, not left to the reader."""
    ours, peers = records.names(record, ours=True), records.names(record, ours=False)
    sentences = []
    for head, value, more, write in _columns(record):
        mine = {name: found for name in ours if (found := value(name)) is not None}
        if not mine:
            continue
        pick = max if more else min
        best = pick(mine, key=lambda name: mine[name])
        ahead = {
            name: found
            for name in peers
            if (found := value(name)) is not None and (found > mine[best] if more else found < mine[best])
        }
        if ahead:
            first = pick(ahead, key=lambda name: ahead[name])
            others = f" and {len(ahead) - 1} more" if len(ahead) > 1 else ""
            what = head.replace(", texts/s", " texts")
            figures = f"{write(ahead[first])} against {write(mine[best])}" + (" texts/s" if more else "")
            sentences.append(f"{what}, {figures} ({records.title(record, first)}{others})")
    if not sentences:
        return "No contender is ahead of fastembed-rt in any of these." if ours and peers else ""
    return f"Others are ahead of fastembed-rt at: {'; '.join(sentences)}."


def _quality(record: Record) -> str:
    tasks = record["quality"]["tasks"]
    shown = [REFERENCE, *records.names(record, ours=True)]
    names = [name for name in shown if any(name in task["contenders"] for task in tasks)]
    if len(names) < 2:
        return ""
    body = [
        [
            f"{task['name']}, {task['metric']}",
            *(f"{task['contenders'][name]:.2f}" if name in task["contenders"] else "-" for name in names),
        ]
        for task in tasks
    ]
    return "Task scores in per cent:\n\n" + table(["", *(records.title(record, name) for name in names)], body)


def _failed(record: Record) -> str:
    rows = [record["contenders"][name] for name in records.failed(record)]
    return "Not compared: " + "; ".join(f"{row['title']} ({row['status']})" for row in rows) + "." if rows else ""


def _plain(value: float) -> str:
    return f"{value:,.0f}"


def _cosines(mean: float, worst: float) -> str:
    return " / ".join("1" if value > 1 - 5e-5 else f"{value:.4f}" for value in (mean, worst))


if __name__ == "__main__":
    sys.exit(main())
