"""Inputs of `embed`: text, JSON lines, CSV and Parquet files as one lazy stream of records.

Knows files and formats, no model. Nothing is guessed: what cannot be read names its file and line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..bulk.rows import delimiter_meant
from ..errors import InvalidInputError, MissingDependencyError
from . import compressed

STDIN = "-"
STDIN_LABEL = "standard input"
UTF8_BOM = b"\xef\xbb\xbf"
CSV_FIELD_LIMIT = 2**31 - 1  # the largest that every platform takes; csv's own 128 KB is less than a long document
PARQUET_BATCH_ROWS = 1024

ENDINGS = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class Record(NamedTuple):
    """One text, with the id that its row carries, and the other text of a pair, when these were asked for."""

    text: str
    id: str | int | None = None
    second: str | None = None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a row keeps its text and, if asked for, its id, and the other text of a pair."""

    text: str = "text"
    id: str | None = None
    second: str | None = None
    option: str = "--column"  # which names the texts, for messages
    dialect: bool = False  # whether the command has --encoding, --delimiter and --on-null, for messages too


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input: a file name or "-", and its format (a key of READERS)."""

    name: str
    format: str


def find_source(name: str, given_format: str | None = None) -> Source:
    """The input of that name, in the format given or told by the ending; standard input is txt.

    Raises:
        InvalidInputError: no such file, a directory, or an ending that names no format or no known compression.
        MissingDependencyError: Parquet without pyarrow.
    """
    path = Path(name)
    if name != STDIN and not path.exists():
        raise InvalidInputError(f"input {name} does not exist; pass a file, or - for standard input")
    if name != STDIN and path.is_dir():
        raise InvalidInputError(f"input {name} is a directory; pass the files in it, such as {path / '*.txt'}")
    told = "txt" if name == STDIN else ENDINGS.get(compressed.split(name)[0].suffix.lower())
    input_format = given_format or told
    if input_format is None:
        raise InvalidInputError(
            f"the name {name} does not tell its format ({', '.join(ENDINGS)}); pass --input-format {'|'.join(READERS)}"
        )
    if name != STDIN:
        compressed.check_format(name, input_format)
    if input_format == "parquet":
        require_parquet()
    return Source(name=name, format=input_format)


def sources(args: argparse.Namespace) -> list[Source]:
    """What `arguments.add_input_arguments` took, in order."""
    return [find_source(name, args.input_format) for name in args.inputs or [STDIN]]


def check_columns(args: argparse.Namespace, formats: set[str]) -> None:
    """Raise InvalidInputError where an option asks for a column of files that have none."""
    if args.column is not None and formats == {"txt"}:
        raise InvalidInputError("--column is for jsonl, csv and parquet, the input is txt; pass --input-format")
    if args.id_column is not None and "txt" in formats:
        raise InvalidInputError("txt has no ids for --id-column; use jsonl, csv or parquet, or pass --input-format")


def read(sources: Sequence[Source], columns: Columns) -> Iterator[Record]:
    """Records of all inputs, in order; a file is opened when its turn comes and read as far as asked.

    Raises:
        InvalidInputError: anything in a file that is no text, with the file and the line, row or byte.
    """
    for source in sources:
        with _open(source.name) as stream:
            label = STDIN_LABEL if source.name == STDIN else source.name
            yield from READERS[source.format](stream, label, columns)


def require_parquet() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"Parquet needs pyarrow, which does not import here ({error}); "
            "pip install 'fastembed-rt[parquet]', or use txt, jsonl, csv or npy"
        ) from error
    return pyarrow, pyarrow.parquet


@contextlib.contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    if name != STDIN:
        with Path(name).open("rb") as stream, compressed.reading(stream, name) as inner:
            yield inner
    elif sys.stdin is None:
        raise InvalidInputError(f"{STDIN_LABEL} is closed; pass a file to read texts from")
    else:
        yield sys.stdin.buffer


def _decoded_lines(stream: BinaryIO, label: str, columns: Columns) -> Iterator[str]:
    """Lines as text, ends kept. Only \\n ends a line: the other separators of str.splitlines are text."""
    offset = 0
    for number, raw in enumerate(stream, start=1):
        line = raw
        if number == 1 and raw.startswith(UTF8_BOM):
            line = raw[len(UTF8_BOM) :]
            offset = len(UTF8_BOM)
            if not line:  # a mark and nothing else: no line at all
                return
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{label}, line {number}: byte 0x{line[error.start]:02x} at offset {offset + error.start} "
                f"is not UTF-8 ({error.reason}); convert the file to UTF-8"
                + (", or pass --encoding, such as latin-1" if columns.dialect else "")
            ) from error
        offset += len(line)


def read_txt(stream: BinaryIO, label: str, columns: Columns) -> Iterator[Record]:
    """One text a line, without its \\n or \\r\\n; an empty line is an empty text."""
    if columns.id is not None:
        raise InvalidInputError(f"{label} is txt and has no column {columns.id!r}; ids need jsonl, csv or parquet")
    if columns.second is not None:
        raise InvalidInputError(f"{label} is txt and has one text a line; pairs need jsonl, csv or parquet")
    for line in _decoded_lines(stream, label, columns):
        if line.endswith("\r\n"):
            yield Record(line[:-2])
        else:
            yield Record(line.removesuffix("\n"))


def read_jsonl(stream: BinaryIO, label: str, columns: Columns) -> Iterator[Record]:
    """A JSON string a line, or an object with the text column as a key; empty lines are no rows."""
    for number, line in enumerate(_decoded_lines(stream, label, columns), start=1):
        if not line.strip():
            continue
        where = f"{label}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"{where}: not JSON ({error}); jsonl holds one JSON string or object a line, txt plain text"
            ) from error
        if isinstance(value, str):
            if columns.id is not None:
                raise InvalidInputError(f"{where}: a string has no {columns.id!r}; write objects, or drop --id-column")
            if columns.second is not None:
                raise InvalidInputError(
                    f"{where}: a string is no pair; write objects with {columns.text!r} and {columns.second!r}"
                )
            record = Record(_text(value, where, columns))
        elif isinstance(value, dict):
            text = _text(_member(value, columns.text, where, columns.option), where, columns)
            found = None if columns.id is None else _member(value, columns.id, where, "--id-column")
            other = None if columns.second is None else _member(value, columns.second, where, columns.option)
            record = Record(
                text,
                None if columns.id is None else _id(found, where),
                None if columns.second is None else _text(other, where, columns),
            )
        else:
            raise InvalidInputError(f"{where}: {_kind(value)} where a string or an object was expected")
        yield record


def read_csv(stream: BinaryIO, label: str, columns: Columns) -> Iterator[Record]:
    """Comma-separated rows under a header, quoted as in RFC 4180; empty lines are no rows."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    rows = csv.reader(_decoded_lines(stream, label, columns), strict=True)
    try:
        header = next(filter(None, rows), None)
        if header is None:
            raise InvalidInputError(f"{label} is empty; csv starts with a header that names its columns")
        text_at = _position(header, columns.text, label, columns)
        id_at = None if columns.id is None else _position(header, columns.id, label, columns, "--id-column")
        second_at = None if columns.second is None else _position(header, columns.second, label, columns)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidInputError(
                    f"{label}, line {rows.line_num}: {len(row)} fields under a header of {len(header)}; "
                    "quote the texts that hold commas"
                )
            given_id, other = (None if place is None else row[place] for place in (id_at, second_at))
            yield Record(row[text_at], given_id, other)
    except csv.Error as error:
        raise InvalidInputError(f"{label}, line {rows.line_num}: not CSV ({error})") from error


def read_parquet(stream: BinaryIO, label: str, columns: Columns) -> Iterator[Record]:
    """Rows of a string column, read in batches; a pipe is copied first, Parquet starts at its end."""
    pyarrow, parquet = require_parquet()
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stream
        if not stream.seekable():
            file = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, file)
            file.seek(0)
        try:
            opened = parquet.ParquetFile(file, page_checksum_verification=True)  # where there are such, as of Spark
            yield from _parquet_records(opened, label, columns, pyarrow.types)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{label}: not readable as Parquet ({error})") from error


def _parquet_records(file: Any, label: str, columns: Columns, types: Any) -> Iterator[Record]:
    schema = file.schema_arrow
    texts = [name for name in (columns.text, columns.second) if name is not None]
    for name in texts:
        _position(schema.names, name, label, columns)
        column_type = schema.field(name).type
        value_type = column_type.value_type if types.is_dictionary(column_type) else column_type
        if not (types.is_string(value_type) or types.is_large_string(value_type) or types.is_string_view(value_type)):
            raise InvalidInputError(f"{label}: column {name!r} holds {column_type}, not strings; pass {columns.option}")
    if columns.id is not None:
        _position(schema.names, columns.id, label, columns, "--id-column")
    wanted = list(dict.fromkeys([*texts, *([] if columns.id is None else [columns.id])]))
    row = 0
    for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=wanted):
        nothing = [None] * batch.num_rows
        named = (columns.text, columns.id, columns.second)
        lists = [nothing if name is None else _values(batch, name, row, label, columns) for name in named]
        for text, found, other in zip(*lists, strict=True):
            row += 1
            where = f"{label}, row {row}"
            yield Record(
                _text(text, where, columns),
                None if columns.id is None else _id(found, where),
                None if columns.second is None else _text(other, where, columns),
            )


def _values(batch: Any, name: str, before: int, label: str, columns: Columns) -> list[Any]:
    """A column of the rows behind so many."""
    values = []
    try:
        for value in batch.column(name):
            values.append(value.as_py())  # noqa: PERF401  whose number says where the bad one is
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{label}, row {before + len(values) + 1}: {name!r} is not UTF-8 ({error.reason})"
            + ("; pass --on-error to go on without such rows" if columns.dialect else "")
        ) from error
    return values


def _position(names: Sequence[str], name: str, label: str, columns: Columns, option: str | None = None) -> int:
    option = option or columns.option
    if names.count(name) != 1:
        fault = "twice a" if name in names else "no"
        meant = delimiter_meant(names) if columns.dialect else None
        remedy = option if meant is None else f"--delimiter {meant!r}, or {option}"
        raise InvalidInputError(
            f"{label} has {fault} column {name!r}; it has {', '.join(map(repr, names))}: pass {remedy}"
        )
    return names.index(name)


def _member(row: Mapping[str, Any], name: str, where: str, option: str) -> Any:
    if name not in row:
        has = ", ".join(map(repr, row)) or "no keys"
        raise InvalidInputError(f"{where}: no key {name!r}; the object has {has}: pass {option}")
    return row[name]


def _text(value: Any, where: str, columns: Columns) -> str:
    if not isinstance(value, str):
        policy = "--on-null" if value is None else "--on-error"
        raise InvalidInputError(
            f"{where}: the text is {_kind(value)}; every row needs a string (it may be empty)"
            + (f", or pass {policy}" if columns.dialect else "")
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # "\ud800" is good JSON and no text
        raise InvalidInputError(
            f"{where}: the text holds half a surrogate pair ({value[error.start]!r}); write the whole character"
        ) from error
    return value


def _id(value: Any, where: str) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidInputError(f"{where}: the id is {_kind(value)}; ids are strings or integers")
    return value


def _kind(value: object) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


READERS: Mapping[str, Callable[[BinaryIO, str, Columns], Iterator[Record]]] = {
    "txt": read_txt,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}
