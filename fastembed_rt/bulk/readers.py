"""Rows of files, block by block; a bad row is a fault of its own, and leaves the others as they are.

Parquet and Arrow are pyarrow's to read. Lines of JSON and CSV are read here one by one, since pyarrow's readers give up
a whole file for one bad line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import InvalidInputError
from . import json_array, queries
from .columns import SAMPLE, Plan, Template, infer, table_of
from .databases import DATABASES
from .extras import arrow, required
from .inputs import COLUMNAR, Piece, Source
from .plain import not_utf8, without
from .rows import BLOCK_ROWS, Block, Fault, Skip
from .streams import UTF8_BOM, Meter, contents, lines, raw

CSV_FIELD_LIMIT = 2**31 - 1  # the largest that every platform takes; csv's own 128 KB is less than a long document
WIDE_PIECE = 1 << 20  # bytes
MARK = "\ufeff"
USUAL = {"csv": ",", "tsv": "\t"}  # what ends a field, where nothing else is said
SHEETS = tuple(USUAL)
Row = Mapping[str, Any] | Fault


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How texts are written in the files."""

    encoding: str = "utf-8"
    decode_errors: str = "strict"  # or "replace"
    delimiter: str | None = None  # of csv and tsv; None: comma and tab
    quote: str = '"'  # "" for none
    sql: str | None = None


def plan(sources: Sequence[Source], template: Template, chosen: Sequence[str] | None, dialect: Dialect) -> Plan:
    """The columns of a job, which its first input decides; the same for every rank and every resumed run.

    Raises:
        InvalidInputError: see `Plan.of`, or an input that cannot be read.
    """
    check_encoding(dialect)
    _check_of_use(sources, dialect)
    if sources[0].format == "txt" and chosen is not None and set(chosen) - set(template.names):
        raise InvalidInputError("txt has one text a line and no columns for --columns; use jsonl, csv or parquet")
    beside_csv = len({source.format in SHEETS for source in sources}) > 1
    for source in sources:
        schema, sampled = _schema(source, template, dialect)
        if schema.names:
            return Plan.of(schema, template, chosen, sampled=sampled, label=source.name, beside_csv=beside_csv)
    wanted = dict.fromkeys([*template.names, *(chosen or ())])
    nothing = arrow().schema([(name, arrow().string()) for name in wanted])  # no file has a row
    return Plan.of(nothing, template, chosen, sampled=False, label=sources[0].name)


def _check_of_use(sources: Sequence[Source], dialect: Dialect) -> None:
    """Raise InvalidInputError where the dialect says of files what none of them is."""
    formats = {source.format for source in sources}
    known = ", ".join(sorted(formats))
    if dialect.sql is not None and not formats & set(DATABASES):
        raise InvalidInputError(f"--sql is for databases ({', '.join(DATABASES)}), and the input is {known}; drop it")
    changed = {"--delimiter": dialect.delimiter is not None, "--quote": dialect.quote != Dialect.quote}
    for option, given in changed.items():
        if given and not formats & set(SHEETS):
            raise InvalidInputError(f"{option} is for {' and '.join(SHEETS)}, and the input is {known}; drop it")
    delimiter = dialect.delimiter
    if delimiter is not None and delimiter in (dialect.quote, "\n", "\r"):
        raise InvalidInputError(f"--delimiter {delimiter!r} cannot end a field: it is the quote, or ends a line")
    for kind, usual in USUAL.items():
        if kind in formats and dialect.quote in (delimiter or usual, "\n", "\r"):
            raise InvalidInputError(f"--quote {dialect.quote!r} cannot quote a field: it ends one, or a line")


def _schema(source: Source, template: Template, dialect: Dialect) -> tuple[Any, bool]:
    """Columns of a file, and whether its first rows decided them; none where there is no row to tell."""
    pyarrow = arrow()
    text = template.pattern if template.plain else ""
    if source.format in DATABASES:
        return queries.schema(source, dialect.sql, SAMPLE, text)
    if source.format in COLUMNAR:
        return _columnar_schema(source), False
    piece = Piece(source=source, start=0, stop=source.size)
    with contents(piece, Meter()) as stream:
        if source.format in SHEETS:
            names = _header(csv_rows(stream, piece, dialect), source.name)
            return pyarrow.schema([(name, pyarrow.string()) for name in names]), False
        if source.format == "txt":
            return pyarrow.schema([(template.names[0], pyarrow.string())]), False
        rows = OBJECTS[source.format](stream, piece, dialect, template.names[0], Skip(0))
        sample = (row for row in itertools.islice(rows, SAMPLE) if not isinstance(row, Fault))
        return infer(sample, source.name, text), True


def read(pieces: Sequence[Piece], wanted: Plan, dialect: Dialect, skip: Skip, meter: Meter) -> Iterator[Block]:
    """All rows of the pieces but the first `skip`, in order.

    Raises:
        InvalidInputError: a file that cannot be read at all, with the place.
    """
    for piece in pieces:
        if piece.source.format in DATABASES:
            yield from queries.blocks(piece.source, dialect.sql, wanted, skip)
            meter.end(piece.stop - piece.start)
        elif piece.source.format in COLUMNAR:
            yield from _columnar(piece, wanted, skip, meter)
        else:
            yield from _from_rows(piece, wanted, dialect, skip, meter)


def label(piece: Piece) -> str:
    """A piece in messages: rows are counted from its beginning."""
    name = piece.source.name
    return name if not piece.start or piece.source.format in COLUMNAR else f"{name} from byte {piece.start}"


def total_rows(pieces: Sequence[Piece]) -> int | None:
    """Rows of all pieces, None where only reading them would tell."""
    if any(piece.source.format not in COLUMNAR for piece in pieces):
        return None
    return sum(stop - start for start, stop in map(_row_range, pieces))


def check_encoding(dialect: Dialect) -> None:
    """Raise InvalidInputError for an encoding that is not known, or is none of texts."""
    try:
        "".encode(dialect.encoding)
    except (LookupError, ValueError) as error:  # such as base64, which turns bytes into bytes
        raise InvalidInputError(f"--encoding {dialect.encoding!r} is not known as an encoding of texts") from error


# Formats whose rows are made one by one.


def _from_rows(piece: Piece, wanted: Plan, dialect: Dialect, skip: Skip, meter: Meter) -> Iterator[Block]:
    kind, text = piece.source.format, wanted.template.names[0]
    with contents(piece, meter) as stream:
        before = skip.left
        if kind in SHEETS:
            found = csv_objects(stream, piece, dialect, wanted)
        else:
            found = OBJECTS[kind](stream, piece, dialect, text, skip)
        rows = skip.over(found)
        number = 1
        for k in itertools.count():
            block = list(itertools.islice(rows, BLOCK_ROWS))
            if k == 0:
                number += before - skip.left
            meter.look()
            if not block:
                return
            if kind == "txt" and k == 0:
                wanted.check_names([text], piece.source.name)
            table, faults = table_of(block, wanted)
            yield Block(table, label(piece), number, faults)
            number += len(block)


def txt_rows(stream: BinaryIO, piece: Piece, dialect: Dialect, name: str, skip: Skip) -> Iterator[Row]:
    """One text a line, without its \\n or \\r\\n; an empty line is an empty text."""
    for _, line in _decoded(stream, piece, dialect, skip, lambda line: True):
        if isinstance(line, Fault):
            yield line
        else:
            yield {name: line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")}


def jsonl_rows(stream: BinaryIO, piece: Piece, dialect: Dialect, name: str, skip: Skip) -> Iterator[Row]:
    """A JSON string or object a line; empty lines are no rows."""
    for number, line in _decoded(stream, piece, dialect, skip, lambda line: line.startswith((b"{", b'"'))):
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            try:
                yield _object(json.loads(line), name)
            except (ValueError, RecursionError) as error:
                yield Fault(f"line {number} is not JSON ({error})")


def json_rows(stream: BinaryIO, piece: Piece, dialect: Dialect, name: str, skip: Skip) -> Iterator[Row]:
    """Strings or objects of one array."""
    for value in json_array.elements(stream, piece.source.name, dialect.encoding, dialect.decode_errors):
        yield _object(value, name)


def csv_rows(stream: BinaryIO, piece: Piece, dialect: Dialect) -> Iterator[tuple[int, list[str] | Fault]]:
    """Fields of each record and the line where it ends, the header first; empty lines are no rows."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    delimiter = dialect.delimiter or USUAL[piece.source.format]
    bad: list[Fault] = []

    def good() -> Iterator[str]:
        for _, line in _decoded(stream, piece, dialect):
            if isinstance(line, Fault):
                bad.append(line)
                yield "\n"  # which is no row; the fault takes its place
            else:
                yield line

    quoting = {"quotechar": dialect.quote} if dialect.quote else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader(good(), strict=True, delimiter=delimiter, **quoting)
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if not bad:
                yield rows.line_num, Fault(f"line {rows.line_num} is not CSV ({error})")
                continue
            # Else a line of it is missing, which says why it is none.
            fields = []
        if bad:
            yield from ((rows.line_num, fault) for fault in bad)
            bad.clear()
            continue
        if fields:
            yield rows.line_num, fields


def csv_objects(stream: BinaryIO, piece: Piece, dialect: Dialect, wanted: Plan) -> Iterator[Row]:
    """Records under their header, which names the job's columns; all fields are strings."""
    rows = csv_rows(stream, piece, dialect)
    header = _header(rows, piece.source.name)
    wanted.check_names(header, piece.source.name)
    for number, fields in rows:
        if isinstance(fields, Fault):
            yield fields
        elif len(fields) != len(header):
            yield Fault(f"line {number} has {len(fields)} fields under a header of {len(header)}")
        else:
            yield dict(zip(header, fields, strict=True))


def _header(rows: Iterator[tuple[int, list[str] | Fault]], name: str) -> list[str]:
    found = next(rows, (0, None))[1]
    if found is None:
        raise InvalidInputError(f"{name} is empty; csv starts with a header that names its columns")
    if isinstance(found, Fault):
        raise InvalidInputError(f"{name}: {found.reason}")
    return found


# What reads rows of formats whose columns nobody names. Those of the last argument may be passed over where that is
# cheap, but for the last.
OBJECTS: Mapping[str, Callable[[BinaryIO, Piece, Dialect, str, Skip], Iterator[Row]]] = {
    "txt": txt_rows,
    "jsonl": jsonl_rows,
    "json": json_rows,
}


def _object(value: Any, name: str) -> Row:
    if isinstance(value, str):
        return {name: value}
    if isinstance(value, dict):
        return value
    return Fault(f"a {type(value).__name__} where a string or an object was expected")


def _decoded(
    stream: BinaryIO,
    piece: Piece,
    dialect: Dialect,
    skip: Skip | None = None,
    is_row: Callable[[bytes], bool] = lambda line: False,
) -> Iterator[tuple[int, str | Fault]]:
    """Lines as text with their numbers, ends kept; one that cannot be decoded is a fault.

    Lines of which `is_row` is sure are passed over as they lie there, all that `skip` has left but the last, which
    `skip.over` takes: to decode and parse them would take a resumed run seconds for each million.
    """
    encoding = codecs.lookup(dialect.encoding).name
    if "\n".encode(encoding) != b"\n":  # UTF-16 and the like: a line's end is not a byte
        if not piece.whole:
            raise InvalidInputError(
                f"{piece.source.name} is {encoding} and cannot be shared; compress it, or use utf-8"
            )
        yield from enumerate(_wide(stream, piece, dialect), start=1)
        return
    for number, raw_line in enumerate(lines(stream, piece), start=1):
        line = raw_line
        if skip is not None and skip.left > 1 and number > 1 and is_row(line):
            skip.take(1)
            continue
        if number == 1 and not piece.start and encoding == "utf-8" and line.startswith(UTF8_BOM):
            line = line[len(UTF8_BOM) :]
            if not line:  # a mark and nothing else: no line at all
                return
        try:
            yield number, line.decode(encoding, dialect.decode_errors)
        except UnicodeDecodeError as error:
            yield number, Fault(f"line {number}: byte 0x{line[error.start]:02x} is not {encoding} ({error.reason})")


def _wide(stream: BinaryIO, piece: Piece, dialect: Dialect) -> Iterator[str]:
    """Lines of an encoding whose letters are several bytes."""
    decode = codecs.getincrementaldecoder(dialect.encoding)(dialect.decode_errors).decode
    rest, ended, begun = "", False, False
    try:
        while not ended:
            found = stream.read(WIDE_PIECE)
            ended = not found
            made = decode(found, ended)
            if made and not begun:  # the mark of a byte order, which a codec without one in its name leaves there
                made, begun = made.removeprefix(MARK), True
            *whole, rest = (rest + made).split("\n")
            yield from (line + "\n" for line in whole)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{piece.source.name} is not {dialect.encoding} ({error.reason})") from error
    if rest:
        yield rest


# Formats with columns.


def _columnar_schema(source: Source) -> Any:
    with raw(source) as stream, _readable(source):
        found = _parquet(stream).schema_arrow if source.format == "parquet" else _ipc(stream)[0]
        assert isinstance(found.names, list)  # here, where names that are no UTF-8 are the file's damage
        return found


@contextlib.contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Raise InvalidInputError with the file's name where it is damaged."""
    try:
        yield
    except (arrow().ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{source.name} is not readable as {source.format} ({error})") from error


def _row_range(piece: Piece) -> tuple[int, int]:
    """Rows [start, stop) of a file that a piece has."""
    source = piece.source
    with raw(source) as stream, _readable(source):
        rows = _count(stream, source)
    size = max(source.size, 1)
    return rows * piece.start // size, rows * piece.stop // size


def _count(stream: BinaryIO, source: Source) -> int:
    if source.format == "parquet":
        return int(_parquet(stream).metadata.num_rows)
    return sum(batch.num_rows for batch in _ipc(stream)[1])


def _columnar(piece: Piece, wanted: Plan, skip: Skip, meter: Meter) -> Iterator[Block]:
    pyarrow = arrow()
    source = piece.source
    start, stop = _row_range(piece)
    start += skip.take(stop - start)
    with raw(source) as stream, _readable(source):
        batches = _parquet_batches if source.format == "parquet" else _arrow_batches
        done = start
        for batch in batches(stream, start, stop, wanted):
            table = pyarrow.Table.from_batches([batch])
            bad = not_utf8(table, wanted.schema.names)
            faults = {k: f"{name!r} is not UTF-8" for name, places in bad.items() for k in places}
            yield Block(without(wanted.fit(table, source.name), bad), source.name, done + 1, faults)
            done += batch.num_rows
    meter.end(piece.stop - piece.start)


def _parquet(stream: BinaryIO) -> Any:
    """A file, whose pages are compared with their checksums where it has them, as Spark writes them."""
    return required("pyarrow.parquet", "Parquet").ParquetFile(stream, page_checksum_verification=True)


def _parquet_batches(stream: BinaryIO, start: int, stop: int, wanted: Plan) -> Iterator[Any]:
    file = _parquet(stream)
    names = None if wanted.every else [name for name in file.schema_arrow.names if name in wanted.schema.names]
    groups: list[int] = []
    first = at = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if at + rows > start and at < stop:
            if not groups:
                first = at
            groups.append(group)
        at += rows
    if groups:
        yield from _cut(file.iter_batches(BLOCK_ROWS, row_groups=groups, columns=names), start - first, stop - first)


def _arrow_batches(stream: BinaryIO, start: int, stop: int, wanted: Plan) -> Iterator[Any]:
    small = (batch.slice(at, BLOCK_ROWS) for batch in _ipc(stream)[1] for at in range(0, batch.num_rows, BLOCK_ROWS))
    yield from _cut(small, start, stop)


def _cut(batches: Iterator[Any], start: int, stop: int) -> Iterator[Any]:
    """Rows [start, stop) of all batches together."""
    at = 0
    for batch in batches:
        low, high = max(start - at, 0), min(stop - at, batch.num_rows)
        at += batch.num_rows
        if low < high:
            yield batch.slice(low, high - low)
        if at >= stop:
            return


def _ipc(stream: BinaryIO) -> tuple[Any, Iterator[Any]]:
    """Schema and batches of an Arrow file, or of an Arrow stream, as `datasets` saves them."""
    pyarrow = arrow()
    magic = stream.read(6)
    stream.seek(0)
    if magic == b"ARROW1":
        file = pyarrow.ipc.open_file(stream)
        return file.schema, (file.get_batch(k) for k in range(file.num_record_batches))
    reader = pyarrow.ipc.open_stream(stream)
    return reader.schema, iter(reader)
