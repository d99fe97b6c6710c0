"""`fastembed-rt embed`: texts from files or a pipe to vectors in a file or a pipe, in bounded memory.

Composes readers, model and writers; everything that can be refused is refused before the model loads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import InvalidInputError
from . import readers, writers
from .export import add_hub_options
from .readers import Columns, Record

if TYPE_CHECKING:
    from ..model import EmbeddingModel

EPILOG = """\
formats by file name ending; standard input is txt, standard output jsonl, unless an option says otherwise
  txt      one text a line; an empty line is an empty text
  jsonl    in: a string or an object a line; out: {"id"?, "text", "embedding"}
  csv      in only: a header, then rows
  parquet  in: a string column; out: columns id?, text, embedding; needs fastembed-rt[parquet]
  npy      out only: float32 (n, dim), in input order
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `embed` and its options."""
    parser = subparsers.add_parser(
        "embed",
        help="texts to vectors: txt, jsonl, csv, parquet in; npy, jsonl, parquet out",
        description="Turn texts into vectors, as a stream; an output file appears when it is complete.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    parser.add_argument(
        "inputs", nargs="*", default=None, metavar="INPUT", help="files in order; - or none: standard input"
    )
    parser.add_argument("-o", "--output", default=writers.STDOUT, help="file to write; default: standard output")
    parser.add_argument("--input-format", choices=list(readers.READERS), help="format of every input")
    parser.add_argument("--output-format", choices=list(writers.WRITERS))
    parser.add_argument("--column", help="key or column with the text (default: text)")
    parser.add_argument("--id-column", help="key or column with an id to carry into the output")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompt-name", help="one of the model's prompts, put before every text")
    prompts.add_argument("--prompt", help="a prompt to put before every text; '' for none")
    parser.add_argument("--truncate-dim", type=positive, metavar="N", help="first N dimensions (Matryoshka models)")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="unit vectors (default: as the checkpoint says)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens a text; default: the checkpoint's")
    parser.add_argument(
        "--truncation",
        choices=["truncate", "warn", "error", "chunk"],
        default="truncate",
        help="what happens to texts longer than max_length (default: truncate, and say how many)",
    )
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(run=run)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare MODEL and the options that say where it comes from and which variant loads."""
    parser.add_argument("model", metavar="MODEL", help="model directory, or a hub repository that holds one")
    parser.add_argument("--provider", default="cpu", help="execution provider: cpu, cuda, tensorrt (default: cpu)")
    parser.add_argument("--precision", help="fp32, fp16 or int8 (default: as the model directory says)")
    add_hub_options(parser)


def positive(value: str) -> int:
    """An integer of at least 1, for argparse."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive integer")
    return int(value)


def open_model(args: argparse.Namespace) -> EmbeddingModel:
    """The model that the arguments name; onnxruntime loads here and not before."""
    from .. import EmbeddingModel

    return EmbeddingModel(
        args.model,
        provider=args.provider,
        precision=args.precision,
        threads=args.threads,
        max_length=args.max_length,
        truncate_dim=args.truncate_dim,
        truncation=args.truncation,
        revision=args.revision,
        token=args.token,
        cache_dir=args.cache_dir,
        local_files_only=args.local_files_only,
    )


def run(args: argparse.Namespace) -> int:
    """Embed the inputs; returns 0, or raises."""
    names = args.inputs or [readers.STDIN]
    sources = [readers.find_source(name, args.input_format) for name in names]
    output_format = writers.find_format(args.output, args.output_format)
    _check_columns(args, {source.format for source in sources}, output_format)
    writers.check_target(args.output, force=args.force)

    columns = Columns(text=args.column or "text", id=args.id_column)
    with open_model(args) as model:
        start = time.perf_counter()
        rows = _Rows(model, readers.read(sources, columns), args)
        with writers.open_target(args.output, output_format, force=args.force) as stream:
            writers.WRITERS[output_format](stream, iter(rows), rows.dim, args.id_column is not None)
        if not args.quiet:
            print(_summary(rows, time.perf_counter() - start, args.output), file=sys.stderr)
    return 0


class _Rows:
    """Records and their vectors, paired again after the model took the texts ahead; counts what passes."""

    def __init__(self, model: EmbeddingModel, records: Iterator[Record], args: argparse.Namespace) -> None:
        self.model = model
        self.dim = model.dim
        self.count = 0
        self._records = records
        self._ahead: deque[Record] = deque()  # as many as the model reads ahead, which is bounded
        self._args = args

    def __iter__(self) -> Iterator[tuple[Record, writers.Vector]]:
        vectors = self.model.embed(
            self._texts(),
            prompt_name=self._args.prompt_name,
            prompt=self._args.prompt,
            normalize=self._args.normalize,
        )
        with _Progress(quiet=self._args.quiet) as progress:
            for vector in vectors:
                if vector.shape != (self.dim,):
                    raise RuntimeError(f"the model gave a vector of shape {vector.shape}, not ({self.dim},)")
                yield self._ahead.popleft(), vector
                self.count += 1
                progress.step()
        if self._ahead:
            raise RuntimeError(f"the model gave {self.count} vectors and left {len(self._ahead)} texts without one")

    def _texts(self) -> Iterator[str]:
        for record in self._records:
            self._ahead.append(record)
            yield record.text


class _Progress:
    """A tqdm bar on standard error if people are watching, else nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(unit=" texts", file=sys.stderr, leave=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        if self._bar is not None:
            self._bar.update()


def _check_columns(args: argparse.Namespace, input_formats: set[str], output_format: str) -> None:
    """An option that no file could honour is refused: ids that vanish silently are found out too late."""
    if args.column is not None and input_formats == {"txt"}:
        raise InvalidInputError("--column is for jsonl, csv and parquet, the input is txt; pass --input-format")
    if args.id_column is not None and "txt" in input_formats:
        raise InvalidInputError("txt has no ids for --id-column; use jsonl, csv or parquet, or pass --input-format")
    if args.id_column is not None and output_format == "npy":
        raise InvalidInputError("npy holds vectors only; write jsonl or parquet, or drop --id-column")


def _summary(rows: _Rows, seconds: float, output: str) -> str:
    parts = [
        f"{rows.count} text{'' if rows.count == 1 else 's'}",
        f"dim {rows.dim}",
        f"{seconds:.1f} s",
        f"{rows.count / max(seconds, 1e-9):.0f} texts/s",
    ]
    truncated = rows.model.stats.truncated
    if truncated:
        parts.append(f"{truncated} truncated to max_length {rows.model.max_length}")
    if output != writers.STDOUT:
        parts.append(output)
    return ", ".join(parts)
