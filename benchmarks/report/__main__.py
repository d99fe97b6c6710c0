"""Write a result's report beside its record: report.md, and report.html, one page that needs nothing else.

python -m benchmarks.report RESULT_DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import BenchmarkError
from . import depth, markdown, overview, records, speed
from .figures import Record
from .sections import Part

PARTS = (
    overview.contenders,
    overview.ratios,
    speed.pareto,
    speed.one_text,
    speed.lengths,
    speed.batches,
    speed.scaling,
    speed.concurrent,
    speed.cold_start,
    depth.peak,
    depth.operators,
    depth.quality,
    overview.conditions,
    overview.versions,
)


def main(words: Sequence[str] | None = None) -> int:
    """Read, write, say where; 2 for what cannot be read or drawn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("result", type=Path, metavar="RESULT_DIR", help="folder with record.json, or a record's file")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the record's)")
    args = parser.parse_args(words)
    try:
        for path in write(records.read(args.result), args.out or records.path_of(args.result).parent):
            print(path)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(record: Record, folder: Path) -> list[Path]:
    """Both files of a report; the record is one that `records.read` or `records.complete` returned.

    Raises:
        BenchmarkError: matplotlib is missing; report.md is there by then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text, page = folder / "report.md", folder / "report.html"
    text.write_text(in_markdown(record), encoding="utf-8")
    try:
        from . import page as pages
    except ModuleNotFoundError as error:
        raise BenchmarkError(
            f"{text} is written; report.html needs {error.name}: install fastembed-rt[bench]"
        ) from None
    page.write_text(pages.render(*heading(record), [make(record) for make in PARTS]), encoding="utf-8")
    return [text, page]


def in_markdown(record: Record) -> str:
    """What report.md holds."""
    title, lead = heading(record)
    return markdown.render(title, [Part(title="Summary", lines=[lead]), *(make(record) for make in PARTS)])


def heading(record: Record) -> tuple[str, str]:
    """Title, and a sentence on how it was measured."""
    machine, settings = record["machine"], record["settings"]
    there, absent = len(records.names(record)), len(records.failed(record))
    lead = (
        f"{there} ways to embed sentences"
        + (f" ({absent} more failed or were not available)" if absent else "")
        + f", each with {settings['threads']} threads of the same CPUs and the same texts, in {settings['rounds']} "
        f"interleaved rounds. fastembed-rt is set in bold."
    )
    return f"Sentence embedders on {machine['cpu']}, {machine['cpus']} CPUs, {record['started'][:10]}", lead


if __name__ == "__main__":
    sys.exit(main())
