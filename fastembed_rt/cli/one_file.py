"""`embed -o FILE` of all that jobs in parts read: the same rows and policies, one file that appears when complete.

Plain txt, jsonl, csv and parquet files, and standard input, are read by readers.py, without pyarrow where they can be.
"""

from __future__ import annotations

import argparse
import glob
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from ..errors import InvalidInputError, OutputExistsError
from . import bulk, compressed, readers, writers
from .opening import open_model

if TYPE_CHECKING:
    from ..bulk.outcome import Outcome
    from ..bulk.parts import Part
    from ..bulk.progress import Telling
    from ..bulk.run import Prepared
    from .layouts import Layout
    from .opening import Model
    from .requests import Request

# Options that make no sense for one file, with why.
OF_PARTS = {
    "to": "--shards DIR holds what is done",
    "shard_format": "for one file it is --output-format",
    "part_rows": "one file has no parts",
    "resume": "one file appears when it is complete",
    "rank": "each rank writes parts",
    "world": "each rank writes parts",
}
ROWS, ROWS_OF_SEVERAL = 4096, 256  # that are encoded together: with one vector, and with a vector a token
REJECTS = ".rejects.jsonl"  # behind the output's name
HELD = 1 << 20  # bytes of rejects in memory; more are in a temporary file


def asked(args: argparse.Namespace) -> bool:
    """Whether the arguments want what jobs in parts can do, without --shards.

    Raises:
        InvalidInputError: an option that is for --shards alone, or standard input beside those that are for files.
    """
    changed = [name for name, default in bulk.OF_JOBS.items() if getattr(args, name) != default]
    for name in changed:
        if name in OF_PARTS:
            raise InvalidInputError(f"{_option(name)} is for jobs in parts; pass --shards DIR ({OF_PARTS[name]})")
    names = args.inputs or [readers.STDIN]
    wants = [_option(name) for name in changed] + [name for name in names if not _is_plain(name, args.input_format)]
    if wants and readers.STDIN in names:
        raise InvalidInputError(f"{wants[0]} is for files, which are looked at before they are read; save the input")
    if args.input_format is not None and args.input_format not in readers.READERS and readers.STDIN in names:
        raise InvalidInputError(f"standard input is not read as {args.input_format}; save it to a file")
    return bool(wants)


def _option(name: str) -> str:
    return "--no-dedupe" if name == "dedupe" else f"--{name.replace('_', '-')}"


def _is_plain(name: str, given_format: str | None) -> bool:
    """Whether readers.py reads it; what is not there is its to refuse."""
    if name == readers.STDIN:
        return True
    path = Path(name)
    if not path.exists():
        return "://" not in name and not glob.has_magic(name)
    ending = path.suffix.lower()
    if path.is_dir() or ending in (".zst", ".zstd"):
        return False
    if given_format is not None:
        return given_format in readers.READERS
    with suppress(InvalidInputError):
        return readers.ENDINGS.get(compressed.split(name)[0].suffix.lower()) is not None
    return False


def run(args: argparse.Namespace) -> int:
    """Embed the inputs into one file; returns 0, or raises."""
    from ..bulk import formats, inputs
    from ..bulk import run as jobs
    from ..bulk.extras import arrow
    from .output import Output

    arrow()  # told before a model loads
    bulk.check_texts(args)
    output_format = writers.find_format(args.output, args.output_format)
    bulk.check_columns(args, output_format)
    arrays = output_format in writers.ARRAYS
    if args.id_column is not None and arrays:
        raise InvalidInputError(f"{output_format} holds vectors only; write jsonl or parquet, or drop --id-column")
    carried = () if arrays else bulk.chosen(args, ())
    wanted = bulk.options(args, carried, output_format)
    prepared = jobs.prepare(inputs.find(args.inputs, args.input_format), wanted)
    formats.check_types(prepared.plan.carried_schema, output_format)
    output = Output(args, output_format)
    _check_rejects(args)
    with open_model(args, output.options) as model:
        start = time.perf_counter()
        request = output.asked(model)
        rows = _Rows(args, prepared, model, request)
        with rows.rejects, rows.telling(), output.opened(request.fingerprint) as stream:
            if arrays:
                vectors = (vector for made in rows for vector in made.all_vectors(rows.encoding))
                request.layout.write_arrays(stream, vectors, request.fingerprint)
            else:
                write = _write_parquet if output_format == "parquet" else _write_jsonl
                write(stream, rows)
            _write_rejects(rows.rejects, args)
        if not args.quiet:
            print(rows.summary(time.perf_counter() - start), file=sys.stderr)
    return 0


class _Rows:
    """The inputs' rows with their vectors, some thousands at a time; counts what passes."""

    def __init__(self, args: argparse.Namespace, prepared: Prepared, model: Model, request: Request) -> None:
        from ..bulk.encoder import Encoding
        from ..bulk.progress import Watch

        self.kept = 0
        self.rejects: IO[bytes] = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115  lines; who runs this closes it
        self._args, self._prepared, self._model, self._request = args, prepared, model, request
        self._watch = Watch(live=lambda: (model._texts_now(), model.stats.tokens))
        self._watch.total_bytes = sum(piece.stop - piece.start for piece in prepared.pieces)
        made_by = bulk.encoder(model, args, request)
        self.encoding = Encoding(made_by, args.dedupe, bulk.cache(args, made_by), self._watch.counts)

    def telling(self) -> Telling:
        """What tells of the rows until its block ends."""
        from ..bulk.progress import EVERY, Telling

        args = self._args
        file = None if args.metrics_file is None else Path(args.metrics_file)
        return Telling(self._watch, quiet=args.quiet, every=float(args.log_every or EVERY), file=file)

    @property
    def schema(self) -> Any:
        """Of what stands before the vectors: id and text, or the columns that were chosen."""
        from ..bulk.extras import arrow

        carried = self._prepared.plan.carried_schema
        if self._args.columns is not None:
            return carried
        pyarrow = arrow()
        name = self._args.id_column
        return pyarrow.schema(
            [*([] if name is None else [carried.field(name).with_name("id")]), ("text", pyarrow.string())]
        )

    def __iter__(self) -> Iterator[Outcome]:
        from ..bulk import job, outcome

        args = self._args
        for part in self._parts():
            self._watch.rows_read = part.stop
            found = outcome.room(self.encoding, len(part.texts))
            made = outcome.outcome(part, self.encoding, found, on_error=args.on_error, on_null=args.on_null)
            self.rejects.write(job.reject_lines(made.rejects))
            self.kept += len(made.kept)
            yield made if args.columns is not None else self._with_text(made, part)
        self._prepared.check_unchanged("embed it again")

    def _parts(self) -> Iterator[Part]:
        """All rows, read ahead in a thread."""
        from ..bulk import readers as tables
        from ..bulk.ahead import Ahead
        from ..bulk.parts import parts
        from ..bulk.rows import Skip

        prepared, meter = self._prepared, self._watch.meter
        rows = ROWS if self.encoding.encoder.width else ROWS_OF_SEVERAL
        blocks = partial(tables.read, prepared.pieces, prepared.plan, prepared.options.dialect, Skip(0), meter)
        reader = Ahead(lambda: parts(blocks(), prepared.plan, rows))
        try:
            yield from reader
        finally:
            reader.stop()

    def _with_text(self, made: Outcome, part: Part) -> Outcome:
        from ..bulk.extras import arrow

        pyarrow = arrow()
        name = self._args.id_column
        ids = {} if name is None else {"id": made.table.column(name)}
        texts = pyarrow.array([part.texts[k] for k in made.kept], pyarrow.string())
        return replace(made, table=pyarrow.table({**ids, "text": texts}))

    def summary(self, seconds: float) -> str:
        """What was done, for a person."""
        from .requests import prompt_used

        counts, to_stdout = self._watch.counts, self._args.output == writers.STDOUT
        said = [f"{self.kept} text{'' if self.kept == 1 else 's'}", f"{seconds:.1f} s"]
        said.append(f"{self.kept / max(seconds, 1e-9):.0f} texts/s")
        prompt = prompt_used(self._model, self._request.prompts)
        counted = {
            "duplicates": counts.duplicates,
            "from the cache": counts.cached,
            "rejected" if to_stdout else f"rejected (see {self._args.output}{REJECTS})": counts.rejected,
            f"truncated to {self._request.limit}": self._model.stats.truncated,
        }
        said += [*([prompt] if prompt else []), *(f"{count} {what}" for what, count in counted.items() if count)]
        return ", ".join(said if to_stdout else [*said, self._args.output])


def _write_parquet(stream: BinaryIO, rows: _Rows) -> None:
    from ..bulk import formats
    from ..bulk.extras import required

    carried, encoder = rows.schema, rows.encoding.encoder
    formats.check_names(carried.names, encoder.layout)
    schema = formats.schema(carried, encoder.layout).with_metadata({formats.FINGERPRINT_KEY: encoder.fingerprint})
    parquet = required("pyarrow.parquet", "Parquet")
    with parquet.ParquetWriter(stream, schema, use_dictionary=list(carried.names)) as writer:
        for made in rows:
            table = made.with_vectors(rows.encoding)
            formats.check_nulls(table, encoder.layout)
            writer.write_table(table, row_group_size=formats.ROW_GROUP)


def _write_jsonl(stream: BinaryIO, rows: _Rows) -> None:
    from ..bulk import formats
    from ..bulk.extras import arrow

    names = rows.schema.names
    layout: Layout = rows.encoding.encoder.layout  # type: ignore[assignment]
    formats.check_names(names, layout)
    nothing = ", ".join(f'"{name}": null' for name, _ in layout.fields(arrow()))
    for made in rows:
        columns = [column.to_pylist() for column in made.table.columns]
        values = zip(*columns, strict=True) if columns else repeat((), len(made.kept))
        for row, vector, absent in zip(values, made.all_vectors(rows.encoding), made.absent, strict=True):
            members = [f"{json.dumps(name)}: {_json(value, name)}" for name, value in zip(names, row, strict=True)]
            members.append(nothing if absent else layout.json(vector))
            stream.write(f"{{{', '.join(members)}}}\n".encode())


def _json(value: Any, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"column {name!r} has {value!r:.60}, for which JSON has no word; write parquet"
        ) from error


def _plain(value: Any) -> str:
    """Times and decimal numbers as strings, as JSON has them; TypeError for bytes and the like."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _check_rejects(args: argparse.Namespace) -> None:
    """Raise OutputExistsError where rows that were left out would take the place of a file that may be anyone's."""
    beside = Path(args.output + REJECTS)
    if args.output != writers.STDOUT and not (args.force or args.append) and beside.exists():
        raise OutputExistsError(f"{beside} exists already, where rejected rows go; pass --force to replace it")


def _write_rejects(rejects: IO[bytes], args: argparse.Namespace) -> None:
    """Beside the output; on standard error where that is standard output."""
    found = rejects.tell()
    rejects.seek(0)
    if args.output == writers.STDOUT:
        if sys.stderr is not None:
            for line in rejects:
                sys.stderr.write(line.decode("utf-8", "backslashreplace"))
        return
    beside = args.output + REJECTS
    if found:
        with writers.open_target(beside, "jsonl", force=True, append=args.append) as stream:
            shutil.copyfileobj(rejects, stream)
    elif not args.append:
        Path(beside).unlink(missing_ok=True)  # of the output that this one replaces
