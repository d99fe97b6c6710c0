"""Outputs of the commands: .npy, .npz, JSON lines or Parquet, complete under their name or not there at all.

Knows files and formats, no model; what of a vector goes into them, layouts.py says. Rows are written as they come;
only their number waits for the end.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

from ..errors import FastembedRtError, InvalidInputError, OutputExistsError
from ..precisions import listed
from ..system import leftovers
from . import compressed
from .readers import Record, require_parquet

if TYPE_CHECKING:
    from .layouts import Layout

STDOUT = "-"
PARQUET_ROWS = 1024  # rows held back and written as one row group, or fewer where they are large:
PARQUET_NUMBERS = 4_000_000

ENDINGS = {".npy": "npy", ".npz": "npz", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

ARRAYS = {"npy": "vectors of one length", "npz": "sparse vectors and token vectors"}  # formats of numpy
FINGERPRINT_KEY = "fastembed_rt.fingerprint"  # in a Parquet file's metadata


class NotFiniteError(FastembedRtError):
    """Infinity or NaN, for which JSON has no number."""


Rows: TypeAlias = Iterator[tuple[Record, Any]]  # a text, and what the layout takes for it


def find_format(target: str, given_format: str | None = None) -> str:
    """The format given or told by the ending; standard output is jsonl.

    Raises:
        InvalidInputError: the ending names no format, or a compression that the format is not written in.
        MissingDependencyError: Parquet without pyarrow.
    """
    told = "jsonl" if target == STDOUT else ENDINGS.get(compressed.split(target)[0].suffix.lower())
    output_format = given_format or told
    if output_format is None:
        raise InvalidInputError(
            f"the name {target} does not tell its format ({', '.join(ENDINGS)}); "
            f"pass --output-format {'|'.join(WRITERS)}"
        )
    if target != STDOUT:
        compressed.check_format(target, output_format)
    if output_format == "parquet":
        require_parquet()
    return output_format


def check_layout(output_format: str, layout: type[Layout] | Layout) -> None:
    """Raise InvalidInputError where a format cannot hold what is to be written."""
    if output_format in ARRAYS and output_format != layout.arrays_in:
        fitting = [name for name in WRITERS if name not in ARRAYS or name == layout.arrays_in]
        raise InvalidInputError(
            f"{output_format} holds {ARRAYS[output_format]}; {layout.plural} go into {listed(fitting, 'or')}"
        )


def check_target(target: str, *, force: bool) -> None:
    """Raise unless a file of that name can be made; costs nothing, so it comes before a model is loaded.

    Raises:
        OutputExistsError: it is there and `force` is off.
        InvalidInputError: its directory is missing, it is no regular file, or standard output is closed.
    """
    path = Path(target)
    if target == STDOUT:
        if sys.stdout is None:
            raise InvalidInputError("standard output is closed; name a file with -o")
        return
    if path.exists() and not path.is_file():
        raise InvalidInputError(f"output {target} is not a regular file; name a file, or - for standard output")
    if path.exists() and not force:
        raise OutputExistsError(f"output {target} exists already; pass --force to replace it, or another name")
    if not path.resolve().parent.is_dir():
        raise InvalidInputError(f"output {target}: the directory {path.resolve().parent} does not exist; create it")


def check_open(what: str) -> None:
    """Raise InvalidInputError where standard output, the only place for something, is closed."""
    if sys.stdout is None:
        raise InvalidInputError(f"standard output is closed, and {what} would go there; open it")


@contextlib.contextmanager
def open_target(target: str, output_format: str, *, force: bool, append: bool = False) -> Iterator[BinaryIO]:
    """A stream for a writer; what it holds appears under `target` when the block ends without an error.

    To append, the stream begins as a copy of the target, at its end. Only jsonl goes to standard output as it comes:
    the others know their first bytes at the end.
    """
    if target != STDOUT:
        with (
            _replacing(Path(target).resolve(), target, force=force, append=append) as stream,
            compressed.writing(stream, target) as inner,
        ):
            yield inner
    elif output_format == "jsonl":
        with _stdout() as stream:
            yield stream
    else:
        with _stdout() as stdout, tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            shutil.copyfileobj(stream, stdout)


@contextlib.contextmanager
def _stdout() -> Iterator[BinaryIO]:
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        # PYTHONUNBUFFERED, usual in containers: a raw file's write may take a part only and say so in its result.
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as stream:
            yield stream
    else:
        yield sys.stdout.buffer


@contextlib.contextmanager
def _replacing(path: Path, target: str, *, force: bool, append: bool) -> Iterator[BinaryIO]:
    leftovers.remove_left_behind(path.parent, re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part"))

    def fresh() -> Path:
        # Beside the target, because a rename is atomic within one file system only.
        return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")

    with leftovers.unfinished(fresh, lambda part: part.open("xb").close()) as part:
        before = _state(path) if append else None
        if before is not None:
            shutil.copyfile(path, part)
        with part.open("r+b") as stream:
            stream.seek(0, os.SEEK_END)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # the name must not outlive the contents when the machine stops
        if append and _state(path) != before:
            raise InvalidInputError(f"output {target} changed while vectors were computed for it; append again")
        check_target(target, force=force or append)  # someone else may have made it meanwhile
        part.replace(path)


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, which tell whether it is still the same; None without one."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    return None


def write_arrays(
    stream: BinaryIO, rows: Rows, layout: Layout, with_ids: bool = False, *, fingerprint: str = ""
) -> None:
    """Numbers in input order, as numpy reads them; texts and ids are left out."""
    layout.write_arrays(stream, (value for _, value in rows), fingerprint)


def write_jsonl(stream: BinaryIO, rows: Rows, layout: Layout, with_ids: bool = False, *, fingerprint: str = "") -> None:
    """An object a line: id (if asked for), text, and what the layout says.

    Raises:
        FastembedRtError: a number that is not finite, which JSON cannot say.
    """
    for record, value in rows:
        try:
            members = layout.json(value)
        except NotFiniteError:
            raise FastembedRtError(
                f"the result for {record.text[:40]!r} is not finite and JSON has no such number; "
                f"write {layout.arrays_in or 'parquet'} to look at it, or take another precision"
            ) from None
        given_id = f'"id": {dumps(record.id, ensure_ascii=False)}, ' if with_ids else ""
        text = dumps(record.text, ensure_ascii=False)
        stream.write(f'{{{given_id}"text": {text}, {members}}}\n'.encode())
        if not stream.seekable():
            stream.flush()  # whoever reads the pipe gets every vector at once; a line fills the buffer anyway


def write_parquet(
    stream: BinaryIO, rows: Rows, layout: Layout, with_ids: bool = False, *, fingerprint: str = ""
) -> None:
    """Columns id (if asked for: string or int64, as the first one is), text, and those of the layout.

    Raises:
        InvalidInputError: ids of both kinds, or an integer beyond 64 bits.
    """
    pyarrow, parquet = require_parquet()
    chunk = _chunk(rows, layout)
    fields = [("text", pyarrow.string()), *layout.fields(pyarrow)]
    if with_ids:
        integers = bool(chunk) and isinstance(chunk[0][0].id, int)
        fields.insert(0, ("id", pyarrow.int64() if integers else pyarrow.string()))
    schema = pyarrow.schema(fields, metadata={FINGERPRINT_KEY: fingerprint} if fingerprint else None)
    # Vectors have no repeated values: dictionaries are for the other columns.
    with parquet.ParquetWriter(stream, schema, use_dictionary=["id", "text"]) as writer:
        while chunk:
            columns = [
                pyarrow.array([record.text for record, _ in chunk], pyarrow.string()),
                *layout.columns(pyarrow, [value for _, value in chunk]),
            ]
            if with_ids:
                columns.insert(0, _id_column([record.id for record, _ in chunk], schema.field("id").type))
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            chunk = _chunk(rows, layout)


def _chunk(rows: Rows, layout: Layout) -> list[tuple[Record, Any]]:
    """The next rows for one row group, none at the end; bounded in number and in what they hold."""
    chunk: list[tuple[Record, Any]] = []
    numbers = 0
    for record, value in itertools.islice(rows, PARQUET_ROWS):
        chunk.append((record, value))
        numbers += layout.size(value)
        if numbers >= PARQUET_NUMBERS:
            break
    return chunk


def _id_column(ids: Sequence[str | int | None], id_type: Any) -> Any:
    pyarrow, _ = require_parquet()
    try:
        return pyarrow.array(ids, id_type)
    except (pyarrow.ArrowException, TypeError, OverflowError) as error:
        raise InvalidInputError(
            f"the ids do not fit a column of {id_type}, which the first one asks for ({error}); "
            "make them all strings, or write jsonl"
        ) from error


class Writer(Protocol):
    """Writes rows to a stream; `fingerprint` goes where the format has room for it."""

    def __call__(
        self, stream: BinaryIO, rows: Rows, layout: Layout, with_ids: bool = False, *, fingerprint: str = ""
    ) -> None:
        """Write all rows."""


WRITERS: Mapping[str, Writer] = {
    "npy": write_arrays,
    "npz": write_arrays,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
