"""`fastembed-rt embed`: texts from files or a pipe to vectors in a file or a pipe, in bounded memory.

Composes readers, model and writers; everything that can be refused is refused before the model loads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError
from ..manifest import ROLES
from ..vectors.quantized import FLOAT32, KINDS, Array, Form, form
from . import opening, provenance, readers, writers
from .arguments import add_model_arguments, device_ids, positive, text
from .readers import Columns, Record

if TYPE_CHECKING:
    from ..models.embedding import EmbeddingModel

EPILOG = """\
formats by file name ending; standard input is txt, standard output jsonl, unless an option says otherwise
  txt      one text a line; an empty line is an empty text
  jsonl    in: a string or an object a line; out: {"id"?, "text", "embedding"}
  csv      in only: a header, then rows
  parquet  in: a string column; out: columns id?, text, embedding; needs fastembed-rt[parquet]
  npy      out only: (n, dim), in input order
txt, jsonl and csv files may end in .gz, .bz2 or .xz, and are compressed so

what made the vectors (model, variant, prompt, dim, precision) is kept as a fingerprint: inside parquet, in OUTPUT.json
beside npy and jsonl; --append adds rows where it is the same

--output-precision int8 and uint8 need ranges: --ranges holds the least and the greatest number of each dimension,
--calibration-embeddings the float vectors of typical texts; binary and ubinary pack 8 numbers into a byte
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `embed` and its options."""
    parser = subparsers.add_parser(
        "embed",
        help="texts to vectors: txt, jsonl, csv, parquet in; npy, jsonl, parquet out",
        description="Turn texts into vectors, as a stream; an output file appears when it is complete.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument(
        "inputs", nargs="*", default=None, metavar="INPUT", help="files in order; - or none: standard input"
    )
    parser.add_argument("-o", "--output", default=writers.STDOUT, help="file to write; default: standard output")
    parser.add_argument("--input-format", choices=list(readers.READERS), help="format of every input")
    parser.add_argument("--output-format", choices=list(writers.WRITERS))
    parser.add_argument("--column", type=text, help="key or column with the text (default: text)")
    parser.add_argument("--id-column", type=text, help="key or column with an id to carry into the output")
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
    ranges.add_argument("--ranges", metavar="FILE.npy", help="(2, dim), for int8 and uint8 vectors")
    ranges.add_argument("--calibration-embeddings", metavar="FILE.npy", help="(n, dim), to take the ranges from")
    parser.add_argument(
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
    parser.set_defaults(run=run)


def open_model(args: argparse.Namespace) -> EmbeddingModel:
    """The model that the arguments name; onnxruntime loads here and not before."""
    from .. import EmbeddingModel

    return opening.open_model(
        args,
        EmbeddingModel,
        threads=args.threads,
        device_ids=args.device_ids,
        max_length=args.max_length,
        truncate_dim=args.truncate_dim,
        truncation=args.truncation,
        route=args.route,
    )


def run(args: argparse.Namespace) -> int:
    """Embed the inputs; returns 0, or raises."""
    names = args.inputs or [readers.STDIN]
    sources = [readers.find_source(name, args.input_format) for name in names]
    output_format = writers.find_format(args.output, args.output_format)
    _check_columns(args, {source.format for source in sources}, output_format)
    options = _vector_options(args)
    before = provenance.check_append(args.output, output_format) if args.append else None
    writers.check_target(args.output, force=args.force or args.append)
    provenance.check_beside(args.output, output_format, force=args.force)

    columns = Columns(text=args.column or "text", id=args.id_column)
    with open_model(args) as model:
        start = time.perf_counter()
        rows = _Rows(model, readers.read(sources, columns), args, options)
        made = model.fingerprint(**rows.asked)
        width, dtype = rows.form.width, rows.form.kind.dtype
        if before is not None:
            provenance.check_same(args.output, before, made)
            provenance.check_end(args.output, output_format, width, dtype)
        with writers.open_target(args.output, output_format, force=args.force, append=args.append) as stream:
            with_ids = args.id_column is not None
            writers.WRITERS[output_format](stream, iter(rows), width, with_ids, dtype=dtype, fingerprint=made)
            if before is None:
                provenance.forget(args.output, output_format)
        provenance.remember(args.output, output_format, made)
        if not args.quiet:
            print(_summary(rows, time.perf_counter() - start, args), file=sys.stderr)
    return 0


def _vector_options(args: argparse.Namespace) -> dict[str, Any]:
    """Precision and ranges of the vectors, as `EmbeddingModel.embed` takes them."""
    options: dict[str, Any] = {}
    if args.output_precision != FLOAT32:
        options["precision"] = args.output_precision
    given = {name: getattr(args, name) for name in ("ranges", "calibration_embeddings")}
    files = {name: file for name, file in given.items() if file is not None}
    if KINDS[args.output_precision].ranged and not files:
        raise InvalidInputError(
            f"--output-precision {args.output_precision} needs --ranges FILE.npy or --calibration-embeddings FILE.npy"
        )
    if files and not KINDS[args.output_precision].ranged:
        name = next(iter(files)).replace("_", "-")
        raise InvalidInputError(f"--{name} is for --output-precision int8 and uint8; drop it")
    return {**options, **{name: _load(file) for name, file in files.items()}}


def _load(file: str) -> Array:
    try:
        found = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{file} does not exist") from error
    except (ValueError, EOFError) as error:
        raise InvalidInputError(f"{file} is not a .npy file ({error})") from error
    if not isinstance(found, np.ndarray):
        raise InvalidInputError(f"{file} is an archive of arrays; pass a .npy file")
    return found


class _Rows:
    """Records and their vectors, paired again after the model took the texts ahead; counts what passes."""

    def __init__(
        self, model: EmbeddingModel, records: Iterator[Record], args: argparse.Namespace, options: dict[str, Any]
    ) -> None:
        self.model = model
        self.dim = model.dim
        self.asked = {"prompt_name": args.prompt_name, "prompt": args.prompt, "normalize": args.normalize, **options}
        self.form: Form = form(
            args.output_precision, model.dim, *map(options.get, ("ranges", "calibration_embeddings"))
        )
        self.count = 0
        self._records = records
        self._ahead: deque[Record] = deque()  # as many as the model reads ahead, which is bounded
        self._args = args

    def __iter__(self) -> Iterator[tuple[Record, writers.Vector]]:
        vectors = self.model.embed(self._texts(), **self.asked)
        width = self.form.width
        with _Progress(quiet=self._args.quiet) as progress:
            for vector in vectors:
                if vector.shape != (width,):
                    raise RuntimeError(f"the model gave a vector of shape {vector.shape}, not ({width},)")
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


def prompt_used(args: argparse.Namespace, model: EmbeddingModel) -> str:
    """Which prompt of the model's stood before each text, "" where none did or the caller wrote it."""
    name = args.prompt_name or (model.default_prompt_name if args.prompt is None else None)
    if name is None or not model.prompts.get(name):
        return ""
    return f"prompt {name!r} {model.prompts[name]!r}" + ("" if args.prompt_name else ", the model's default")


def _summary(rows: _Rows, seconds: float, args: argparse.Namespace) -> str:
    parts = [
        f"{rows.count} text{'' if rows.count == 1 else 's'}",
        f"dim {rows.dim}",
        f"{seconds:.1f} s",
        f"{rows.count / max(seconds, 1e-9):.0f} texts/s",
    ]
    prompt = prompt_used(args, rows.model)
    if prompt:
        parts.append(prompt)
    truncated = rows.model.stats.truncated
    if truncated:
        parts.append(f"{truncated} truncated to max_length {rows.model.max_length}")
    if args.output != writers.STDOUT:
        parts.append(args.output)
    return ", ".join(parts)
