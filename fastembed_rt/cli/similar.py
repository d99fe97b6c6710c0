"""`fastembed-rt similar`: the score of two texts, or of each pair in a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError
from ..manifest import Manifest
from . import readers, writers
from .arguments import add_model_arguments, place, positive, text
from .filled import HelpFormatter
from .opening import limit, open_model
from .progress import Progress
from .readers import Columns, Record

if TYPE_CHECKING:
    from .scoring import Scores

EPILOG = """\
example: fastembed-rt similar my-model "a dog runs" "a puppy plays"

both texts are encoded alike, with the prompt given or the model's default one; a reranker scores the pair (of several
labels, each), with the prompt before A alone; late interaction takes A as a query and B as a document, with the prompt
given or their own; for queries and documents of other models, see rerank
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `similar` and its options."""
    parser = subparsers.add_parser(
        "similar",
        help="the score of two texts, or of each pair in a file, with a model of any task",
        description="Print the model's similarity of two texts, or a reranker's score of them.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("first", nargs="?", type=text, metavar="A", help="a text")
    parser.add_argument("second", nargs="?", type=text, metavar="B", help="another")
    parser.add_argument(
        "--file", type=place, metavar="FILE", help="pairs instead of A and B: jsonl, csv or parquet; - for stdin"
    )
    parser.add_argument("--input-format", choices=list(readers.READERS), help="format of --file")
    parser.add_argument(
        "--columns",
        nargs=2,
        type=text,
        default=("text1", "text2"),
        metavar=("A", "B"),
        help="keys or columns of --file with the texts (default: text1 text2)",
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--prompt-name", type=text, help="one of the model's prompts, put before each text (of a reranker: before A)"
    )
    prompts.add_argument(
        "--prompt", type=text, help="a prompt to put before each text (of a reranker: before A); '' for none"
    )
    parser.add_argument("--json", action="store_true", help="an object a pair instead of its score alone")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens a text, or of a reranker's pair")
    parser.add_argument("-q", "--quiet", action="store_true", help="scores alone: not what they are, no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores; returns 0, or raises."""
    from . import scoring  # only here: other commands start without it
    from .requests import prompt_used

    records = _records(args)
    writers.check_open("the scores")

    def options(described: Manifest) -> dict[str, Any]:
        return limit(described, args.max_length)

    with open_model(args, options) as model:
        labels = scoring.names(model)
        if len(labels) > 1 and not args.json:
            print("\t".join(labels))
        with Progress(quiet=args.quiet or args.file is None, unit="pairs") as progress:
            for record, scores in scoring.of_pairs(model, records, prompt_name=args.prompt_name, prompt=args.prompt):
                print(_as_json(record, labels, scores) if args.json else "\t".join(f"{x:.6f}" for x in scores))
                progress.step()
        if not args.quiet:
            sys.stdout.flush()
            used = prompt_used(model, {"prompt_name": args.prompt_name, "prompt": args.prompt})
            cut = f"{model.stats.truncated} truncated" if model.stats.truncated else ""
            print(", ".join(filter(None, (scoring.measure(model), used, cut))), file=sys.stderr)
    return 0


def _records(args: argparse.Namespace) -> Iterator[Record]:
    """The pairs, as records with a second text.

    Raises:
        InvalidInputError: neither two texts nor a file, or both.
    """
    if args.file is None:
        if args.second is None:
            raise InvalidInputError("similar compares two texts: pass both, or --file FILE with pairs")
        return iter([Record(args.first, second=args.second)])
    if args.first is not None:
        raise InvalidInputError("two texts or --file, not both; drop one")
    first, second = args.columns
    source = readers.find_source(args.file, args.input_format)
    return readers.read([source], Columns(text=first, second=second, option="--columns"))


def _as_json(record: Record, labels: Sequence[str], scores: Scores) -> str:
    from .scoring import short

    found = {label: short(score) for label, score in zip(labels, scores, strict=True)}
    texts = {"text1": record.text, "text2": record.second}
    return json.dumps({**texts, **(found if len(found) == 1 else {"scores": found})}, ensure_ascii=False)
