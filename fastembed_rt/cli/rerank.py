"""`fastembed-rt rerank`: the texts of a file in the order in which they fit a query."""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..manifest import Manifest
from ..system.terminal import columns
from . import readers, writers
from .arguments import add_input_arguments, add_model_arguments, place, positive, text
from .filled import HelpFormatter
from .opening import limit, open_model
from .pairing import paired
from .progress import Progress
from .readers import Columns, Record

if TYPE_CHECKING:
    from .opening import Model

EPILOG = """\
example: fastembed-rt rerank my-reranker "where does the dog run?" documents.txt --top-k 5

the score is a reranker's own, or the similarity of the query's vector and the text's (dense, sparse, or MaxSim of late
interaction), which the last line names; index counts the texts of all inputs from 0; inputs are read as embed does

  jsonl    {"id"?, "text", "index", "score"} a line
  parquet  columns id?, text, index, score; needs fastembed-rt[parquet]
"""
FORMATS = ("jsonl", "parquet")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `rerank` and its options."""
    parser = subparsers.add_parser(
        "rerank",
        help="texts of a file by their score to a query, with a model of any task",
        description="Put texts in the order in which they fit a query: the best first, equal ones as they came.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("query", type=text, metavar="QUERY", help="one text")
    add_input_arguments(parser)
    parser.add_argument("-k", "--top-k", type=positive, metavar="N", help="only the best N (default: all)")
    parser.add_argument(
        "-o", "--output", type=place, default=writers.STDOUT, help="file to write; default: a table on the screen"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_const", const="jsonl", dest="output_format", help="JSON lines")
    forms.add_argument("--output-format", choices=FORMATS, help="default: as the output's name says")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    parser.add_argument(
        "--query-prompt", type=text, metavar="TEXT", help="in front of the query (default: the model's)"
    )
    parser.add_argument(
        "--document-prompt", type=text, metavar="TEXT", help="in front of each text (default: the model's)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens a text, or of a reranker's pair")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Rank the texts; returns 0, or raises."""
    from . import scoring  # only here, as in _summary: other commands start without them
    from .layouts import Ranking

    sources = readers.sources(args)
    readers.check_columns(args, {source.format for source in sources})
    table = args.output == writers.STDOUT and args.output_format is None
    output_format = "jsonl" if table else writers.find_format(args.output, args.output_format)
    writers.check_layout(output_format, Ranking)
    writers.check_target(args.output, force=args.force)

    def options(described: Manifest) -> dict[str, Any]:
        scoring.check(described, args.document_prompt)
        return limit(described, args.max_length)

    columns = Columns(text=args.column or "text", id=args.id_column)
    with open_model(args, options) as model:
        start = time.perf_counter()
        count = 0
        prompts = {"query_prompt": args.query_prompt, "document_prompt": args.document_prompt}

        def scored() -> Iterator[tuple[float, int, Record]]:
            nonlocal count
            found = paired(
                readers.read(sources, columns), lambda texts: scoring.against(model, args.query, texts, **prompts)
            )
            with Progress(quiet=args.quiet) as progress:
                for record, score in found:
                    yield score, -count, record
                    count += 1
                    progress.step()

        best = _best(scored(), args.top_k)
        if table:
            for line in as_table(best, with_ids=args.id_column is not None):
                print(line)
        else:
            rows = ((record, (-place, score)) for score, place, record in best)
            with writers.open_target(args.output, output_format, force=args.force) as stream:
                writers.WRITERS[output_format](stream, rows, Ranking(), args.id_column is not None)
        if not args.quiet:
            sys.stdout.flush()
            print(_summary(model, args, count, time.perf_counter() - start), file=sys.stderr)
    return 0


def _best(found: Iterator[tuple[float, int, Record]], most: int | None) -> list[tuple[float, int, Record]]:
    """By falling score, then as they came; no more is held than is wanted."""
    if most is None:
        return sorted(found, key=lambda row: row[:2], reverse=True)
    return heapq.nlargest(most, found, key=lambda row: row[:2])


def as_table(best: Sequence[tuple[float, int, Record]], *, with_ids: bool) -> Iterator[str]:
    """Score, index, id and text, a line each; on a terminal no longer than its lines."""
    width = columns(sys.stdout)
    rows = [("score", "index", *(["id"] if with_ids else []))]
    rows += [
        (f"{score:.4f}", str(-place), *([on_one_line(str(record.id))] if with_ids else []))
        for score, place, record in best
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = ["text", *(on_one_line(record.text) for _, _, record in best)]
    for row, shown in zip(rows, texts, strict=True):
        cells = (cell.rjust(length) for cell, length in zip(row, widths, strict=True))
        line = "  ".join([*cells, shown]).rstrip()
        yield line if width is None or len(line) <= width else f"{line[: width - 3]}..."


def on_one_line(text: str) -> str:
    """Without line ends, tabs and what could move a terminal's cursor."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _summary(model: Model, args: argparse.Namespace, count: int, seconds: float) -> str:
    from . import scoring

    parts = [
        f"{count} text{'' if count == 1 else 's'} ranked by {scoring.measure(model)}",
        *scoring.prompts_used(model, args.query_prompt, args.document_prompt),
        f"{seconds:.1f} s",
    ]
    if model.stats.truncated:
        parts.append(f"{model.stats.truncated} truncated")
    if args.output != writers.STDOUT:
        parts.append(args.output)
    return ", ".join(parts)
