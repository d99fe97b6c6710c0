"""Write README's benchmark section from a committed record, between two comments; `--check` says whether it is so.

python -m benchmarks.report.readme_table RESULT_DIR README.md [--check]
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BenchmarkError
from . import records
from .figures import Record, cold, disturbance, latency, least_cosines, peak_rss, speed
from .records import REFERENCE
from .table import table

BEGIN, END = "<!-- benchmark table: begin ({}) -->", "<!-- benchmark table: end -->"
SECTION = re.compile(
    r"<!-- benchmark table: begin \((?P<record>[^)]*)\) -->\n.*?<!-- benchmark table: end -->", re.DOTALL
)
FULL, INT8 = "full precision", "INT8"
Value = Callable[[str], float | None]


@dataclass(frozen=True)
class Column:
    """A column of the table, and what of it the sentences below say."""

    head: str
    value: Value  # of a contender
    more: bool  # is better
    write: Callable[[float], str]
    share: bool = True  # a difference is told in per cent too


def main(words: Sequence[str] | None = None) -> int:
    """Rewrite or check; 0 done or the same, 1 README differs from the record, 2 cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report.readme_table", description=(__doc__ or "").split("\n", 1)[0]
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
    noise = f" {found}." if (found := disturbance(record)) else ""
    return (
        f"One run on {machine['cpus']} CPUs ({machine['cpu']}) on {record['started'][:10]}: every contender in an "
        f"environment of its own, {settings['threads']} threads, texts cut at {settings['max_length']} tokens, medians "
        f"of {settings['rounds']} interleaved rounds ([report]({report})).{noise} Bold is the best of its class: "
        "full precision (floats, bf16 among them) or INT8."
    )


def _columns(record: Record) -> list[Column]:
    def cosine(key: str) -> Value:
        return lambda name: (least_cosines(record, name) or {}).get(key)

    return [
        *(
            Column(f"{workload}, texts/s", lambda name, w=workload: speed(record, name, w), True, _plain)  # type: ignore[misc]
            for workload in records.workloads(record, "texts")
        ),
        Column("one text, p50", lambda name: latency(record, name, 0.5), False, lambda value: f"{1e3 * value:.1f} ms"),
        Column("cold start", lambda name: cold(record, name), False, lambda value: f"{value:.2f} s"),
        Column("peak memory", lambda name: peak_rss(record, name), False, lambda value: f"{value / 1e6:,.0f} MB"),
        Column("cosine, mean", cosine("mean"), True, _cosine, share=False),
        Column("cosine, worst", cosine("min"), True, _cosine, share=False),
    ]


def _classes(record: Record) -> dict[str, list[str]]:
    """Contenders that are alike: who rounds to eight bits is compared with who does, and bf16 is a float."""
    found: dict[str, list[str]] = {FULL: [], INT8: []}
    for name in records.names(record):
        found[INT8 if record["contenders"][name]["precision"] == "int8" else FULL].append(name)
    return found


def _table(record: Record) -> str:
    columns, body = _columns(record), []
    for names in _classes(record).values():
        cells = {name: [_cell(column, name) for column in columns] for name in names}
        best = [_best(column, names) for column in columns]
        for name in names:
            title = records.title(record, name)
            row = [f"**{cell}**" if cell == mark else cell for cell, mark in zip(cells[name], best, strict=True)]
            body.append([f"**{title}**" if record["contenders"][name]["ours"] else title, *row])
    return table(["", *(column.head for column in columns)], body)


def _cell(column: Column, name: str) -> str:
    found = column.value(name)
    return "-" if found is None else column.write(found)


def _best(column: Column, names: Sequence[str]) -> str | None:
    """The best cell of a class, as it is written; None where it marks nobody out, since half of them have it."""
    known = [found for name in names if (found := column.value(name)) is not None]
    if not known:
        return None
    written = [column.write(value) for value in known]
    best = column.write((max if column.more else min)(known))
    return best if len(known) == 1 or 2 * written.count(best) < len(known) else None


def _behind(record: Record) -> str:
    """In each class, where others are ahead of ours and by how much: said by the figures, not left to the reader."""
    sentences = []
    for kind, names in _classes(record).items():
        ours = [name for name in names if record["contenders"][name]["ours"]]
        peers = [name for name in names if name not in ours]
        if not ours or not peers:
            continue
        found = [said for column in _columns(record) if (said := _ahead(record, column, ours, peers))]
        title = records.title(record, ours[0]) if len(ours) == 1 else "fastembed-rt"
        if found:
            lines = "".join(f"\n- {said}" for said in found)
            sentences.append(f"In {kind}, others are ahead of {title} at:\n{lines}")
        else:
            sentences.append(f"In {kind}, no contender is ahead of {title} in any of these.")
    return "\n\n".join(sentences)


def _ahead(record: Record, column: Column, ours: Sequence[str], peers: Sequence[str]) -> str:
    """Who is ahead of the best of ours in a column, as far as its cells show; "" where nobody is."""
    pick = max if column.more else min
    mine = pick((found for name in ours if (found := column.value(name)) is not None), default=None)
    if mine is None:
        return ""
    ahead = {
        name: found
        for name in peers
        if (found := column.value(name)) is not None
        and (found > mine if column.more else found < mine)
        and column.write(found) != column.write(mine)
    }
    if not ahead:
        return ""
    first = pick(ahead, key=lambda name: ahead[name])
    others = f" and {len(ahead) - 1} more" if len(ahead) > 1 else ""
    unit = " texts/s" if "texts/s" in column.head else ""
    by = f", {abs(ahead[first] / mine - 1):.0%} {'more' if column.more else 'less'}".replace("%", " %")
    figures = f"{column.write(ahead[first])} against {column.write(mine)}{unit}{by if column.share else ''}"
    return f"{column.head.replace(', texts/s', ' texts')}: {figures} ({records.title(record, first)}{others})"


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


def _cosine(value: float) -> str:
    return "1" if value > 1 - 5e-6 else f"{value:.5f}"  # five digits: bf16 arithmetic under another name shows


if __name__ == "__main__":
    sys.exit(main())
