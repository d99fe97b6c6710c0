"""`embed` in parts: the options of long jobs, and what they become; `embed merge`.

The work is done by fastembed_rt.bulk; a model's side of it is made here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidInputError
from ..manifest import EMBEDDING, Manifest
from .arguments import place, positive
from .opening import open_model

if TYPE_CHECKING:
    from ..bulk.encoder import Encoder
    from ..models.embedding import EmbeddingModel
    from .opening import Model
    from .requests import Request

MERGE = "merge"
ALL, NONE = "all", "none"  # of --columns
INVARIANT = ("native", "cpu")  # targets on CPUs whose vectors depend on nothing but their text
MAPPED, FLOAT_BYTES = 3072, 4  # vectors of so many texts are mapped: three quarters of what is tokenized at a time
# Options of jobs in parts, with what they are when nobody gives them; one_file.py says what it has no use for.
OF_JOBS: dict[str, Any] = {
    "to": None,
    "shard_format": "parquet",
    "part_rows": None,
    "resume": False,
    "rank": None,
    "world": None,
    "template": None,
    "columns": None,
    "encoding": "utf-8",
    "decode_errors": "strict",
    "delimiter": None,
    "quote": '"',
    "sql": None,
    "on_error": "fail",
    "on_null": "error",
    "dedupe": True,
    "cache": None,
    "log_every": None,
    "metrics_file": None,
}

EPILOG = """\
more inputs (needs fastembed-rt[bulk]): directories, patterns such as 'corpus/**/*.jsonl', URLs (s3://...), .zst; JSON
arrays, tsv, arrow, datasets saved to disk, SQLite and DuckDB with --sql
  -o FILE holds id? and text beside the vectors, --columns says which others
  --shards DIR writes parts that appear whole, with all columns, and --resume goes on after any end
  fastembed-rt embed merge DIR... [-o DIR] joins the ranks of --rank and --world
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of tables, and those of jobs in parts."""
    group = parser.add_argument_group("rows and columns of files, for -o and --shards")
    group.add_argument("--template", metavar="TEXT", help="text of several columns, such as '{title}\\n{body}'")
    group.add_argument(
        "--columns", metavar="A,B", help="columns to carry along, all or none (default: all; with -o: id and text)"
    )
    group.add_argument("--encoding", default=OF_JOBS["encoding"], help="of text files (default: utf-8)")
    group.add_argument(
        "--decode-errors",
        choices=["strict", "replace"],
        default=OF_JOBS["decode_errors"],
        help="bytes that are not of the encoding: a bad row, or \ufffd in the text (default: strict)",
    )
    group.add_argument("--delimiter", type=_delimiter, help=r"of csv and tsv, '\t' too (default: comma, tab)")
    group.add_argument("--quote", default=OF_JOBS["quote"], help="of csv and tsv; '' for none (default: \")")
    group.add_argument("--sql", metavar="QUERY", help="what to read of a database, with ORDER BY")
    group.add_argument(
        "--on-error",
        choices=["fail", "skip", "null"],
        default=OF_JOBS["on_error"],
        help="rows that cannot be read or encoded: end the run, leave them out, or write null; the last two note them "
        "in OUTPUT.rejects.jsonl, or DIR/_rejects.jsonl (default: fail)",
    )
    group.add_argument(
        "--on-null",
        choices=["error", "empty", "zero", "null", "skip"],
        default=OF_JOBS["on_null"],
        help="rows without a text: as --on-error says, the empty text's vector, zeros, null, or leave them out "
        "(default: error)",
    )
    group.add_argument("--no-dedupe", dest="dedupe", action="store_false", help="encode equal texts again")
    group.add_argument(
        "--cache", type=place, metavar="DIR", help="keep vectors of texts there for later runs, by fingerprint"
    )
    group.add_argument(
        "--log-every",
        type=positive,
        metavar="SECONDS",
        help="lines of progress where there is no terminal (default: 30)",
    )
    group.add_argument(
        "--metrics-file", type=place, metavar="FILE", help="figures of the run as JSON, or for Prometheus as .prom"
    )
    group = parser.add_argument_group("long jobs")
    group.add_argument(
        "--shards", type=place, metavar="DIR", help="directory or URL for parts that appear whole, instead of -o"
    )
    group.add_argument(
        "--to",
        metavar="URL",
        help="rows into a database instead of parts: lancedb://DIR/TABLE, qdrant://HOST/COLLECTION, "
        "duckdb://FILE/TABLE, pgvector://HOST/DATABASE/TABLE; --shards DIR then holds what is done",
    )
    group.add_argument(
        "--shard-format",
        choices=["parquet", "arrow", "npy"],
        default=OF_JOBS["shard_format"],
        help="of the parts; npy holds vectors alone (default: parquet)",
    )
    group.add_argument("--part-rows", type=positive, metavar="N", help="rows of a part (default: 16384)")
    group.add_argument("--resume", action="store_true", help="go on with what is in DIR; the first run takes it too")
    group.add_argument("--rank", type=_whole, metavar="I", help="do the I-th share of the inputs, from 0")
    group.add_argument("--world", type=positive, metavar="N", help="how many shares there are")


def run(args: argparse.Namespace) -> int:
    """Run one rank of a job; returns 0, or raises."""
    from ..bulk import formats, inputs, progress, run, sinks, store
    from ..bulk.extras import arrow
    from ..run import memory
    from . import requests

    memory.share_heaps()
    pyarrow = arrow()  # told before a model loads
    # Arrow's other allocators keep what was freed, and how much differs from part to part.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    _check(args)
    _check_apart(args)
    wanted = options(args, () if args.shard_format == "npy" else chosen(args, None), args.shard_format)
    prepared = run.prepare(inputs.find(args.inputs or [], args.input_format), wanted)
    _check_id(args, prepared.plan.carried)
    if args.to is None:
        formats.check_types(prepared.plan.carried_schema, args.shard_format)
    target = store.open_store(args.shards)
    stored = requests.stored_as(args)

    def of_model(described: Manifest) -> dict[str, Any]:
        made = requests.options(args, described)
        if args.shard_format == "npy" and requests.layout_of(args, described).arrays_in != "npy":
            raise InvalidInputError("npy holds vectors of one length; take --shard-format parquet")
        return made

    with open_model(args, of_model) as model:
        request = requests.request(model, args, stored)
        made_by = encoder(model, args, request)
        memory.keep_free(MAPPED * made_by.width * FLOAT_BYTES)
        if args.to is not None and not made_by.width:
            raise InvalidInputError(
                f"--to takes vectors of one length, and these are {request.layout.plural}: write parts, without --to, "
                "and bring those into the database with its own client"
            )
        more = {"truncation": args.truncation, "provider": model.provider}
        if args.to is not None:
            more |= {"to": sinks.without_secrets(args.to), "id_column": args.id_column}
        watch = progress.Watch(live=lambda: (model._texts_now(), model.stats.tokens))
        file = None if args.metrics_file is None else Path(args.metrics_file)
        every = float(args.log_every or progress.EVERY)
        kept = cache(args, made_by)
        with progress.Telling(watch, quiet=args.quiet, every=every, file=file):
            made = run.execute(
                target,
                prepared,
                made_by,
                more,
                resume=args.resume,
                force=args.force,
                dedupe=args.dedupe,
                cache=kept,
                watch=watch,
                sink=None if args.to is None else _sink(args, _bits(model, args)),
            )
        if not args.quiet:
            print(_summary(watch.figures(), sum(record.rows for record in made.values()), args), file=sys.stderr)
    return 0


def merge(args: argparse.Namespace) -> int:
    """Join the ranks of a job; returns 0, or raises."""
    from ..bulk import merge, store

    if not args.inputs:
        raise InvalidInputError("embed merge needs the directories of a job; for a model of that name, write ./merge")
    target = None if args.output == "-" else store.open_store(args.output)
    _, parts = merge.merge([store.open_store(name) for name in args.inputs], target)
    records = [record for rank in parts for record in rank]
    if not args.quiet:
        rejected = sum(record.rejected for record in records)
        more = f", {rejected} rejected" if rejected else ""
        where = args.inputs[0] if target is None else args.output
        print(f"{sum(record.rows for record in records)} rows in {len(records)} parts{more}, {where}", file=sys.stderr)
    return 0


def _delimiter(value: str) -> str:
    r"""A tab as shells hand it over from '\t'."""
    return "\t" if value == r"\t" else value


def _check(args: argparse.Namespace) -> None:
    if args.output != "-" or args.output_format is not None:
        raise InvalidInputError("--shards is instead of -o and --output-format; pass --shard-format")
    if args.to is not None and args.shard_format != "parquet":
        raise InvalidInputError("--shard-format is for parts; with --to the rows go into a database")
    check_columns(args, args.shard_format)
    if args.append:
        raise InvalidInputError("--append is for one file; a job in parts goes on with --resume")
    if args.resume and args.force:
        raise InvalidInputError("--resume goes on and --force begins again; pass one of them")
    if (args.rank is None) != (args.world is None):
        raise InvalidInputError("--rank and --world belong together")
    check_texts(args)


def _check_id(args: argparse.Namespace, carried: Sequence[str]) -> None:
    """Raise InvalidInputError where a database would be told of a column with ids that the inputs do not have."""
    if args.to is not None and args.id_column is not None and args.id_column not in carried:
        known = ", ".join(carried) or "none"
        raise InvalidInputError(f"--id-column {args.id_column}: there is no such column; there are {known}")


def check_columns(args: argparse.Namespace, output_format: str) -> None:
    """Raise InvalidInputError where columns are asked for and the format holds vectors alone."""
    if output_format in ("npy", "npz") and args.columns not in (None, NONE):
        raise InvalidInputError(f"{output_format} holds vectors alone; drop --columns, or write parquet")


def check_texts(args: argparse.Namespace) -> None:
    """Raise InvalidInputError where options say of the inputs what cannot be."""
    if args.template is not None and args.column is not None:
        raise InvalidInputError("--template and --column both say what the text is; pass one of them")
    if args.delimiter is not None and len(args.delimiter) != 1:
        raise InvalidInputError(f"--delimiter {args.delimiter!r} is not one character, such as ';' or '\\t'")
    if len(args.quote) > 1:
        raise InvalidInputError(f"--quote {args.quote!r} is not one character")


def _check_apart(args: argparse.Namespace) -> None:
    """Raise InvalidInputError where parts would be among the inputs of the next run."""
    target = Path(args.shards).resolve()
    for name in args.inputs or []:
        if Path(name).is_dir() and target.is_relative_to(Path(name).resolve()):
            raise InvalidInputError(f"--shards {args.shards} is inside the input {name}; name another directory")


def chosen(args: argparse.Namespace, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The columns to carry along, None for all: what --columns says, else `default`, and the one with ids."""
    if args.columns is None:
        names = default
    elif args.columns == ALL:
        names = None
    else:
        names = () if args.columns == NONE else tuple(name for name in args.columns.split(",") if name)
    if names is not None and args.id_column is not None and args.id_column not in names:
        names = (args.id_column, *names)
    return names


def options(args: argparse.Namespace, carried: tuple[str, ...] | None, output_format: str) -> Any:
    """What a job is asked for."""
    from ..bulk.columns import Template
    from ..bulk.parts import ROWS
    from ..bulk.readers import Dialect
    from ..bulk.run import Options

    plain = args.template is None
    return Options(
        template=Template(args.column or "text" if plain else args.template, plain),
        chosen=carried,
        dialect=Dialect(
            encoding=args.encoding,
            decode_errors=args.decode_errors,
            delimiter=args.delimiter,
            quote=args.quote,
            sql=args.sql,
        ),
        format=output_format,
        part_rows=args.part_rows or ROWS,
        on_error=args.on_error,
        on_null=args.on_null,
        rank=args.rank or 0,
        world=args.world or 1,
    )


def encoder(model: Model, args: argparse.Namespace, request: Request) -> Encoder:
    """The model's side of the job."""
    from ..bulk.encoder import Encoder

    if model.task != EMBEDDING or args.tokens:

        def several(texts: list[str], out: Any) -> tuple[Any, Sequence[int]]:
            return list(request.embed(texts)), [0] * len(texts)

        return Encoder(encode=several, layout=request.layout, fingerprint=request.fingerprint)
    dense = cast("EmbeddingModel", model)

    def encode(texts: list[str], out: Any) -> tuple[Any, Sequence[int]]:
        found = request.encode(texts, out)
        return found.vectors, found.tokens.tolist()

    width, dtype = request.layout.shape  # type: ignore[attr-defined]
    return Encoder(
        encode=encode,
        layout=request.layout,
        fingerprint=request.fingerprint,
        width=width,
        dtype=dtype,
        zero=request.zero,
        invariant=dense.provider == "cpu" and dense.variant.target in INVARIANT and len(dense.device_ids) == 1,
        padded=_padded(dense),
    )


def _padded(model: EmbeddingModel) -> Any:
    """Tokens that run for texts of such lengths: `encode` makes its batches of so many texts at a time."""
    import numpy as np

    from ..text.windows import TEXTS

    limits = model._running().limits
    if not limits.padded:
        return None

    def padded(lengths: Sequence[int]) -> int:
        windows = (np.array(lengths[at : at + TEXTS], np.int64) for at in range(0, len(lengths), TEXTS))
        return sum(len(batch) * int(window[batch].max()) for window in windows for batch in limits.plan(window))

    return padded


def cache(args: argparse.Namespace, encoder: Encoder) -> Any:
    """The vectors of earlier runs, None without --cache."""
    if args.cache is None:
        return None
    from ..bulk.cache import Cache

    if not encoder.width:
        raise InvalidInputError("--cache keeps vectors of one length; drop it for sparse vectors and token vectors")
    return Cache(Path(args.cache), encoder.fingerprint, encoder.width, encoder.dtype)


def _bits(model: Any, args: argparse.Namespace) -> int:
    """Of a vector that is stored as its signs; 0: these are numbers."""
    from ..vectors.quantized import KINDS

    return int(model.dim) if KINDS[args.output_precision].packed else 0


def _sink(args: argparse.Namespace, bits: int) -> Any:
    """What opens the database of --to, given the job and the schema of its rows."""
    from ..bulk import sinks

    def opened(job: Any, schema: Any) -> sinks.Sink:
        about = {"job": job.name, "rank": job.rank, "fingerprint": job.fingerprint, "schema": schema}
        about |= {"on_error": args.on_error, "on_null": args.on_null, "bits": bits}
        nulls = "null" in (args.on_error, args.on_null)
        return sinks.open_sink(
            args.to,
            lambda scheme: sinks.About(
                scheme=scheme, vectors=schema.names[-1], id_column=args.id_column, nulls=nulls, **about
            ),
        )

    return opened


def _summary(figures: dict[str, float], rows: int, args: argparse.Namespace) -> str:
    from ..bulk import sinks
    from ..bulk.progress import line

    where = args.shards if args.to is None else sinks.without_secrets(args.to)
    if not figures["rows"]:
        return f"{rows} rows in {where}; nothing was left to do"
    return f"{rows} rows in {where}; this run: {line({**figures, 'seconds_left': 0})}".removesuffix(", 00:00 left")


def _whole(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number")
    return int(value)
