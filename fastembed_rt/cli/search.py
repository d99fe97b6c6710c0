"""`fastembed-rt search`: the chunks of an indexed folder that answer a question, with what to look at in each."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError
from ..manifest import LATE_INTERACTION, RERANKING, Manifest
from ..system.terminal import coloured, columns
from . import writers
from .arguments import add_variant_options, place, positive, text
from .filled import INDENT, HelpFormatter, wrapped
from .index import encoder, recall
from .opening import open_model, open_second
from .rerank import on_one_line

if TYPE_CHECKING:
    from ..search import Hit

EPILOG = """\
example: fastembed-rt search "how do I renew my passport?" --folder notes --reranker my-reranker

every chunk is compared with the question, on its int8 vector; the sentence of each hit that is nearest to the question
is marked: in colour on a terminal, else with ** around it; what stands around it is shown too (--whole: all the chunk)
"""
BOLD, PLAIN = "\x1b[1;33m", "\x1b[0m"
AROUND = 160  # letters that are shown before and behind what is marked


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `search` and its options."""
    parser = subparsers.add_parser(
        "search",
        help="the places in a folder that answer a question; see index",
        description="Print the chunks of an indexed folder that are nearest to a question, the nearest first.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("question", type=text, metavar="QUESTION", help="one text")
    parser.add_argument("--folder", type=place, default=".", help="the folder of `index build` (default: this one)")
    parser.add_argument("--model", help="the index's model, where it is now (default: where it was)")
    add_variant_options(parser)
    parser.add_argument("-k", "--top-k", type=positive, default=5, metavar="N", help="hits (default: 5)")
    parser.add_argument("--reranker", metavar="MODEL", help="reranker that orders the best again (or late interaction)")
    parser.add_argument(
        "--candidates", type=positive, default=50, metavar="N", help="chunks that a reranker gets (default: 50)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument("--whole", action="store_true", help="the text of each chunk, not what is around its sentence")
    parser.add_argument("--json", action="store_true", help="an object a hit, with places in characters")
    parser.add_argument("-q", "--quiet", action="store_true", help="hits alone: no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the hits; returns 0, or raises."""
    from .. import search  # only here: other commands start without it
    from ..search.index import EMPTY, UNFINISHED

    if not args.question.strip():  # before a model is loaded for it
        raise InvalidInputError(EMPTY)
    writers.check_open("the hits")
    folder = Path(args.folder)
    recall(args, folder)
    with open_model(args, encoder) as model, search.Index(folder, model) as index:  # type: ignore[arg-type]
        if not index.complete:  # also where nothing else is said: the best place may be missing
            print(f"{UNFINISHED} {args.folder}", file=sys.stderr)
        reranker = None if args.reranker is None else open_reranker(args)
        try:
            start = time.perf_counter()
            hits = index.search(args.question, args.top_k, reranker=reranker, candidates=args.candidates)
            seconds = time.perf_counter() - start
        finally:
            if reranker is not None:
                reranker.close()
        stale = {hit.file for hit in hits if index.is_stale(hit.file)}
        for hit in hits:
            if args.json:
                print(json.dumps({**asdict(hit), "stale": hit.file in stale}, ensure_ascii=False))
            else:
                print("\n".join(_shown(hit, stale=hit.file in stale, whole=args.whole)))
        if not args.quiet:
            sys.stdout.flush()
            of = f"{len(index)} chunks of {len(index.files)} files"
            print(f"{of}, {1e3 * seconds:.0f} ms, {index.settings.checkpoint}", file=sys.stderr)
    return 0


def open_reranker(args: argparse.Namespace) -> Any:
    """What --reranker names, with the options of the command."""
    return open_second(args, args.reranker, _ranks)


def _ranks(described: Manifest) -> dict[str, Any]:
    from .scoring import check_order

    if described.task not in (RERANKING, LATE_INTERACTION):
        raise InvalidInputError(f"--reranker is a reranker or a late-interaction model, not one for {described.task}")
    check_order(described, "--reranker", "give one that gives a single score")
    return {}


def _shown(hit: Hit, *, stale: bool, whole: bool) -> Iterator[str]:
    """Score and place, then what answers with the text around it, on one line."""
    place = f"{hit.score:.3f}  {on_one_line(hit.file)}, {hit.line}"
    yield place + (" (the file has changed since)" if stale else "")
    begin, end = (place - hit.start for place in hit.highlight)
    before, marked, after = (on_one_line(part) for part in (hit.text[:begin], hit.text[begin:end], hit.text[end:]))
    if not whole:
        before, after = _end_of(before), _start_of(after)
    marks = (BOLD, PLAIN) if coloured(sys.stdout) else ("**", "**")
    line = " ".join(filter(None, (before, f"{marks[0]}{marked}{marks[1]}", after)))
    width = columns(sys.stdout)
    yield from wrapped(line, width) if width is not None else (INDENT + line,)


def _start_of(text: str) -> str:
    """The first letters of a text, up to the end of a word where words are apart."""
    if len(text) <= AROUND:
        return text
    words, blank, _ = text[: AROUND + 1].rpartition(" ")
    return (words if blank else text[:AROUND]) + " ..."


def _end_of(text: str) -> str:
    if len(text) <= AROUND:
        return text
    _, blank, words = text[-AROUND - 1 :].partition(" ")
    return "... " + (words if blank else text[-AROUND:])
