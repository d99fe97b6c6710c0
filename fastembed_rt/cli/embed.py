"""`fastembed-rt embed`: texts from files or a pipe to vectors in a file or a pipe, in bounded memory.

Composes readers, model and writers; everything that can be refused is refused before the model loads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..bulk.inputs import FORMATS
from ..errors import InvalidInputError
from ..manifest import ROLES
from ..vectors.quantized import FLOAT32, KINDS
from . import bulk, one_file, readers, writers
from .arguments import add_input_arguments, add_model_arguments, device_ids, place, positive, text
from .filled import HelpFormatter
from .opening import open_model
from .pairing import paired
from .progress import Progress
from .readers import Columns, Record

if TYPE_CHECKING:
    from .opening import Model
    from .requests import Request

EPILOG = (
    """\
example: fastembed-rt embed my-model texts.txt -o vectors.npy

formats by file name ending; standard input is txt, standard output jsonl, unless an option says otherwise
  txt      one text a line; an empty line is an empty text
  jsonl    in: a string or an object a line; out: {"id"?, "text", VECTORS}
  csv      in only: a header, then rows
  parquet  in: a string column; out: columns id?, text, VECTORS; needs fastembed-rt[parquet]
  npy      out only: (n, dim), in input order
  npz      out only: sparse vectors and token vectors, in input order
txt, jsonl and csv files may end in .gz, .bz2 or .xz, and are compressed so; more inputs below

VECTORS are, and npz holds, by the model's task
  embedding         embedding
  sparse            indices, values; npz: CSR arrays that scipy.sparse.load_npz reads
  late interaction  token_embeddings, a vector a token; npz: those of all texts, and lengths, the tokens of each text
  embedding with --tokens: the same with offsets, the characters of each token
rerankers have none: fastembed-rt rerank

what made the vectors (model, variant, prompt, dim, precision) is kept as a fingerprint: inside parquet and npz, in
OUTPUT.json beside npy and jsonl; --append adds rows where it is the same

--output-precision int8 and uint8 need ranges: --ranges holds the least and the greatest number of each dimension,
--calibration-embeddings the float vectors of typical texts; binary and ubinary pack 8 numbers into a byte

"""
    + bulk.EPILOG
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `embed` and its options."""
    parser = subparsers.add_parser(
        "embed",
        help="texts to vectors: files, directories, databases in; npy, npz, jsonl, parquet or a database out",
        description="Turn texts into vectors (dense, sparse or one a token, as the model gives them), as a stream; an "
        "output file appears when it is complete.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    add_model_arguments(parser)
    add_input_arguments(parser, FORMATS)
    parser.add_argument(
        "-o", "--output", type=place, default=writers.STDOUT, help="file to write; default: standard output"
    )
    parser.add_argument("--output-format", choices=list(writers.WRITERS))
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompt-name", type=text, help="one of the model's prompts, put before every text")
    prompts.add_argument("--prompt", type=text, help="a prompt to put before every text; '' for none")
    parser.add_argument("--truncate-dim", type=positive, metavar="N", help="first N dimensions (Matryoshka models)")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="unit vectors (default: as the checkpoint says)",
    )
    parser.add_argument(
        "--output-precision",
        choices=list(KINDS),
        default=FLOAT32,
        help="of the vectors (default: float32); --precision is the graph's",
    )
    ranges = parser.add_mutually_exclusive_group()
    ranges.add_argument("--ranges", type=place, metavar="FILE.npy", help="(2, dim), for int8 and uint8 vectors")
    ranges.add_argument(
        "--calibration-embeddings", type=place, metavar="FILE.npy", help="(n, dim), to take the ranges from"
    )
    parser.add_argument("--tokens", action="store_true", help="a vector a token, of a model exported with --tokens")
    parser.add_argument(
        "--max-active-dims", type=positive, metavar="N", help="of sparse vectors, the heaviest N words alone"
    )
    sides = parser.add_mutually_exclusive_group()
    sides.add_argument(
        "--role",
        choices=ROLES,
        help="what the texts are: takes the model's prompt and encoder for them (default: as plain encode; documents "
        "where the model has no such)",
    )
    sides.add_argument(
        "--route",
        choices=ROLES,
        help="encoder to take where queries and documents have one each (default: the model's)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens a text; default: the checkpoint's")
    parser.add_argument(
        "--truncation",
        choices=["truncate", "warn", "error", "chunk"],
        default="truncate",
        help="what happens to texts longer than max_length (default: truncate, and say how many)",
    )
    parser.add_argument(
        "--device-ids", type=device_ids, metavar="N,N", help="GPUs that work, one process each (default: the first)"
    )
    exists = parser.add_mutually_exclusive_group()
    exists.add_argument("--force", action="store_true", help="replace an output that exists")
    exists.add_argument(
        "--append", action="store_true", help="add rows to a npy or jsonl output of the same fingerprint, or begin it"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    bulk.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embed the inputs; returns 0, or raises."""
    if args.model == bulk.MERGE:
        return bulk.merge(args)
    if args.shards is not None:
        return bulk.run(args)
    if one_file.asked(args):
        return one_file.run(args)
    from .output import Output  # only here, as in _summary: other commands start without it

    sources = readers.sources(args)
    output_format = writers.find_format(args.output, args.output_format)
    _check_columns(args, {source.format for source in sources}, output_format)
    output = Output(args, output_format)
    columns = Columns(text=args.column or "text", id=args.id_column, dialect=True)
    with open_model(args, output.options) as model:
        start = time.perf_counter()
        asked = output.asked(model)
        rows = _Rows(asked, readers.read(sources, columns), quiet=args.quiet)
        with output.opened(asked.fingerprint) as stream:
            with_ids = args.id_column is not None
            write = writers.WRITERS[output_format]
            write(stream, iter(rows), asked.layout, with_ids, fingerprint=asked.fingerprint)
        if not args.quiet:
            print(_summary(model, asked, rows, time.perf_counter() - start, args.output), file=sys.stderr)
    return 0


class _Rows:
    """Records with their vectors; counts what passes."""

    def __init__(self, asked: Request, records: Iterator[Record], *, quiet: bool) -> None:
        self.count = 0
        self.numbers = 0
        self._asked = asked
        self._records = records
        self._quiet = quiet

    def __iter__(self) -> Iterator[tuple[Record, Any]]:
        with Progress(quiet=self._quiet) as progress:
            for record, vectors in paired(self._records, self._asked.embed):
                self.count += 1
                self.numbers += self._asked.layout.size(vectors)
                yield record, vectors
                progress.step()


def _check_columns(args: argparse.Namespace, input_formats: set[str], output_format: str) -> None:
    """An option that no file could honour is refused: ids that vanish silently are found out too late."""
    readers.check_columns(args, input_formats)
    if args.id_column is not None and output_format in writers.ARRAYS:
        raise InvalidInputError(f"{output_format} holds vectors only; write jsonl or parquet, or drop --id-column")


def _summary(model: Model, asked: Request, rows: _Rows, seconds: float, output: str) -> str:
    from .requests import prompt_used

    parts = [
        f"{rows.count} text{'' if rows.count == 1 else 's'}",
        asked.facts(rows.count, rows.numbers),
        f"{seconds:.1f} s",
        f"{rows.count / max(seconds, 1e-9):.0f} texts/s",
    ]
    prompt = prompt_used(model, asked.prompts)
    if prompt:
        parts.append(prompt)
    truncated = model.stats.truncated
    if truncated:
        parts.append(f"{truncated} truncated to {asked.limit}")
    if output != writers.STDOUT:
        parts.append(output)
    return ", ".join(parts)
