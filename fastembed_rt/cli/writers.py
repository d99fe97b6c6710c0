"""Outputs of `embed`: vectors as .npy, JSON lines or Parquet, complete under their name or not there at all.

Knows files and formats, no model. Rows are written as they come; only their number waits for the end.
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
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import FastembedRtError, InvalidInputError, OutputExistsError
from ..system import leftovers
from . import compressed
from .readers import Record, require_parquet

STDOUT = "-"
NPY_HEADER_BYTES = 128  # room for any shape, and a multiple of 64: what the format asks for, so that a map is aligned
PARQUET_ROWS = 1024  # rows held back and written as one row group

ENDINGS = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

FLOAT32 = np.dtype(np.float32)
FINGERPRINT_KEY = "fastembed_rt.fingerprint"  # in a Parquet file's metadata

Vector: TypeAlias = NDArray[Any]
Rows: TypeAlias = Iterator[tuple[Record, Vector]]


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


def write_npy(
    stream: BinaryIO,
    rows: Rows,
    dim: int,
    with_ids: bool = False,
    *,
    dtype: np.dtype[Any] = FLOAT32,
    fingerprint: str = "",
) -> None:
    """(n, dim) in input order, n patched into the header at the end; texts and ids are left out.

    A stream at the end of such a file gets more rows.
    """
    little = dtype.newbyteorder("<")
    row_bytes = dim * dtype.itemsize
    count = max(stream.tell() - NPY_HEADER_BYTES, 0) // row_bytes
    if count == 0:
        stream.seek(0)
        stream.write(npy_header(0, dim, little.str))
    for _, vector in rows:
        stream.write(vector.astype(little, copy=False).tobytes())
        count += 1
    stream.seek(0)
    stream.write(npy_header(count, dim, little.str))
    stream.seek(0, os.SEEK_END)


def npy_header(count: int, dim: int, descr: str = "<f4") -> bytes:
    """Header of a version 1.0 .npy file of (count, dim), always NPY_HEADER_BYTES long."""
    fields = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count}, {dim}), }}"
    prefix = b"\x93NUMPY\x01\x00"
    room = NPY_HEADER_BYTES - len(prefix) - 2
    return prefix + room.to_bytes(2, "little") + fields.ljust(room - 1).encode("ascii") + b"\n"


def write_jsonl(
    stream: BinaryIO,
    rows: Rows,
    dim: int,
    with_ids: bool = False,
    *,
    dtype: np.dtype[Any] = FLOAT32,
    fingerprint: str = "",
) -> None:
    """An object a line: id (if asked for), text, embedding; nine digits give every float32 back exactly.

    Raises:
        FastembedRtError: a vector that is not finite, which JSON cannot say.
    """
    # One format string for the whole vector: several times faster than json.dumps, and it never writes an
    # integer, which would lose the sign of -0.0.
    template = ", ".join(["%.8e" if dtype.kind == "f" else "%d"] * dim)
    for record, vector in rows:
        if not np.isfinite(vector).all():
            raise FastembedRtError(
                f"the vector of {record.text[:40]!r} is not finite and JSON has no such number; "
                "write npy to look at it, or another precision"
            )
        given_id = f'"id": {dumps(record.id, ensure_ascii=False)}, ' if with_ids else ""
        text = dumps(record.text, ensure_ascii=False)
        line = f'{{{given_id}"text": {text}, "embedding": [{template % tuple(vector.tolist())}]}}\n'
        stream.write(line.encode("utf-8"))
        if not stream.seekable():
            stream.flush()  # whoever reads the pipe gets every vector at once; a line fills the buffer anyway


def write_parquet(
    stream: BinaryIO,
    rows: Rows,
    dim: int,
    with_ids: bool = False,
    *,
    dtype: np.dtype[Any] = FLOAT32,
    fingerprint: str = "",
) -> None:
    """Columns id (if asked for: string or int64, as the first one is), text, embedding (numbers of fixed size).

    Raises:
        InvalidInputError: ids of both kinds, or an integer beyond 64 bits.
    """
    pyarrow, parquet = require_parquet()
    chunk = list(itertools.islice(rows, PARQUET_ROWS))
    number = pyarrow.from_numpy_dtype(dtype)
    fields = [("text", pyarrow.string()), ("embedding", pyarrow.list_(number, dim))]
    if with_ids:
        integers = bool(chunk) and isinstance(chunk[0][0].id, int)
        fields.insert(0, ("id", pyarrow.int64() if integers else pyarrow.string()))
    schema = pyarrow.schema(fields, metadata={FINGERPRINT_KEY: fingerprint} if fingerprint else None)
    # Vectors have no repeated values: dictionaries are for the other columns.
    with parquet.ParquetWriter(stream, schema, use_dictionary=["id", "text"]) as writer:
        while chunk:
            flat = np.concatenate([vector for _, vector in chunk])
            columns = [
                pyarrow.array([record.text for record, _ in chunk], pyarrow.string()),
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat, number), dim),
            ]
            if with_ids:
                columns.insert(0, _id_column([record.id for record, _ in chunk], schema.field("id").type))
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            chunk = list(itertools.islice(rows, PARQUET_ROWS))


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
    """Writes rows of `dim` numbers to a stream; `fingerprint` goes where the format has room for it."""

    def __call__(
        self,
        stream: BinaryIO,
        rows: Rows,
        dim: int,
        with_ids: bool = False,
        *,
        dtype: np.dtype[Any] = FLOAT32,
        fingerprint: str = "",
    ) -> None:
        """Write all rows."""


WRITERS: Mapping[str, Writer] = {
    "npy": write_npy,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
