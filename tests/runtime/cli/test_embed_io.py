"""Readers and writers of `embed`: what goes in comes out, and what cannot be read says where."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fastembed_rt.cli import layouts, readers, writers
from fastembed_rt.cli.readers import Columns, Record
from fastembed_rt.errors import FastembedRtError, InvalidInputError, MissingDependencyError, OutputExistsError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Vector = npt.NDArray[np.float32]
TEXT = Columns()
TEXT_ID = Columns(id="id")
# Everything that UTF-8 can carry: no halves of surrogate pairs.
texts = st.text(st.characters(exclude_categories=["Cs"]))
line_texts = texts.filter(lambda text: "\n" not in text and not text.endswith("\r"))
vectors = st_numpy.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.just(3)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def read(content: bytes, name: str, columns: Columns = TEXT) -> list[Record]:
    return list(readers.READERS[name](io.BytesIO(content), f"in.{name}", columns))


def read_texts(content: bytes, name: str, columns: Columns = TEXT) -> list[str]:
    return [record.text for record in read(content, name, columns)]


def refusal(content: bytes, name: str, columns: Columns = TEXT) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(content, name, columns)
    return str(caught.value)


def parquet_bytes(**columns: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


def write(name: str, records: Sequence[Record], matrix: Vector, *, with_ids: bool = False) -> bytes:
    stream = io.BytesIO()
    rows = zip(records, matrix, strict=True)
    writers.WRITERS[name](stream, rows, layouts.Dense(matrix.shape[1]), with_ids)
    return stream.getvalue()


def records_for(matrix: Vector) -> list[Record]:
    return [Record(f"text {row}", row) for row in range(len(matrix))]


def same_bits(left: Vector, right: Vector) -> None:
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32))  # -0.0 is not 0.0


# Readers: any text survives.


@given(st.lists(line_texts), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_txt_gives_back_every_line(given_texts: list[str], end: str, bom: bool) -> None:
    content = "".join(text + end for text in given_texts).encode()
    if bom or content.startswith(readers.UTF8_BOM):
        content = readers.UTF8_BOM + content
    assert read_texts(content, "txt") == given_texts


@given(st.lists(texts), st.booleans())
def test_jsonl_gives_back_every_text(given_texts: list[str], ascii_only: bool) -> None:
    strings = "\n".join(json.dumps(text, ensure_ascii=ascii_only) for text in given_texts)
    assert read_texts(strings.encode(), "jsonl") == given_texts
    objects = "\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(given_texts))
    assert read(objects.encode(), "jsonl", TEXT_ID) == [Record(t, n) for n, t in enumerate(given_texts)]


@given(st.lists(texts))
def test_csv_gives_back_every_text(given_texts: list[str]) -> None:
    sheet = io.StringIO(newline="")
    table = csv.writer(sheet)
    table.writerow(["id", "text"])
    table.writerows([f"row {n}", text] for n, text in enumerate(given_texts))
    expected = [Record(text, f"row {n}") for n, text in enumerate(given_texts)]
    assert read(sheet.getvalue().encode(), "csv", TEXT_ID) == expected


@given(st.lists(texts))
def test_parquet_gives_back_every_text(given_texts: list[str]) -> None:
    content = parquet_bytes(
        id=pyarrow.array(range(len(given_texts)), pyarrow.int64()),
        text=pyarrow.array(given_texts, pyarrow.string()),
    )
    assert read(content, "parquet", TEXT_ID) == [Record(text, n) for n, text in enumerate(given_texts)]


def test_txt_keeps_all_but_the_line_end() -> None:
    content = "\ufeff  padded \t\r\n\n\x0b\x0c\u2028 \x85one line\nlone\rreturn\nlast\r".encode()
    expected = ["  padded \t", "", "\x0b\x0c\u2028 \x85one line", "lone\rreturn", "last\r"]
    assert read_texts(content, "txt") == expected


def test_a_byte_order_mark_is_dropped_at_the_start_only() -> None:
    assert read_texts("\ufeffa\n\ufeffb".encode(), "txt") == ["a", "\ufeffb"]


def test_empty_lines_are_no_rows_of_jsonl_and_csv() -> None:
    assert read_texts(b'"a"\n\n"b"\n\n', "jsonl") == ["a", "b"]
    assert read_texts(b'text\na\n\n""\n\n', "csv") == ["a", ""]
    assert read_texts(b"\r\n\ntext\na\n", "csv") == ["a"]


def test_a_csv_field_may_be_a_whole_book() -> None:
    assert read_texts(b"text\n" + b"word " * 100_000, "csv") == ["word " * 100_000]


def test_a_damaged_page_of_parquet_is_told_by_its_checksum() -> None:
    sink = io.BytesIO()
    options: Any = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    parquet.write_table(pyarrow.table({"text": ["a dog runs", "a cat"]}), sink, write_page_checksum=True, **options)
    assert read_texts(sink.getvalue(), "parquet") == ["a dog runs", "a cat"]
    assert "checksum" in refusal(sink.getvalue().replace(b"a dog runs", b"a hog runs", 1), "parquet")


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
def test_every_kind_of_parquet_string_is_text(kind: Any) -> None:
    content = parquet_bytes(text=pyarrow.array(["a", "b", "a"], pyarrow.string()).cast(kind))
    assert read_texts(content, "parquet") == ["a", "b", "a"]


# Readers: what cannot be read names the file and the place.


@pytest.mark.parametrize(("bom", "offset"), [(b"", 9), (readers.UTF8_BOM, 12)])
def test_invalid_utf8_names_file_line_and_byte_offset(bom: bytes, offset: int) -> None:
    content = bom + "für\n".encode() + b"abcd\xff\n"
    assert content[offset] == 0xFF
    expected = f"in.txt, line 2: byte 0xff at offset {offset} is not UTF-8"
    assert refusal(content, "txt").startswith(expected)


@pytest.mark.parametrize(
    ("content", "name", "columns", "message"),
    [
        (b'"a"\n{"text": null}\n', "jsonl", TEXT, "line 2: the text is null"),
        (b'{"text": 5}', "jsonl", TEXT, "line 1: the text is of type int"),
        (b'"a"\n[1]', "jsonl", TEXT, "line 2: of type list where a string or an object"),
        (b'"a"\n{"text"', "jsonl", TEXT, "line 2: not JSON"),
        (b"[" * 100_000, "jsonl", TEXT, "line 1: not JSON"),
        (b'"\\ud800"', "jsonl", TEXT, "line 1: the text holds half a surrogate pair"),
        (b'{"body": "a", "n": 1}', "jsonl", TEXT, "no key 'text'; the object has 'body', 'n': pass --column"),
        (b'"a"', "jsonl", TEXT_ID, "line 1: a string has no 'id'"),
        (b'{"text": "a", "id": null}', "jsonl", TEXT_ID, "line 1: the id is null"),
        (b'{"text": "a", "id": true}', "jsonl", TEXT_ID, "line 1: the id is of type bool"),
        (b"a\n", "txt", TEXT_ID, "txt and has no column 'id'"),
        (b"", "csv", TEXT, "in.csv is empty"),
        (b"body,n\na,1\n", "csv", TEXT, "no column 'text'; it has 'body', 'n': pass --column"),
        (b"text,text\na,b\n", "csv", TEXT, "twice a column 'text'"),
        (b"text,n\na,1\nb,c,2\n", "csv", TEXT, "line 3: 3 fields under a header of 2"),
        (b'text\na\n"b\n', "csv", TEXT, "line 3: not CSV"),
        (b"text\n\xff\n", "csv", TEXT, "line 2: byte 0xff at offset 5"),
        (b"no parquet at all", "parquet", TEXT, "not readable as Parquet"),
        (parquet_bytes(text=["a", None]), "parquet", TEXT, "row 2: the text is null"),
        (parquet_bytes(text=[1]), "parquet", TEXT, "column 'text' holds int64, not strings"),
        (parquet_bytes(body=["a"], n=[1]), "parquet", TEXT, "no column 'text'; it has 'body', 'n'"),
        (parquet_bytes(text=["a"], id=[0.5]), "parquet", TEXT_ID, "row 1: the id is of type float"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_with_its_place(content: bytes, name: str, columns: Columns, message: str) -> None:
    said = refusal(content, name, columns)
    assert message in said
    assert said.startswith(f"in.{name}")


def test_rows_before_a_broken_one_come_first() -> None:
    rows = readers.read_jsonl(io.BytesIO(b'"a"\nbroken'), "in.jsonl", TEXT)
    assert next(rows) == Record("a")
    with pytest.raises(InvalidInputError):
        next(rows)


def test_files_open_one_after_the_other_and_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    sources = [readers.find_source(str(tmp_path / "a.txt"))]
    sources.append(readers.Source(name=str(tmp_path / "gone.txt"), format="txt"))
    rows = readers.read(sources, TEXT)
    assert next(rows) == Record("one")
    with pytest.raises(FileNotFoundError):
        next(rows)


@pytest.mark.parametrize(
    ("name", "given_format", "expected"),
    [
        ("a.txt", None, "txt"),
        ("a.JSONL", None, "jsonl"),
        ("a.ndjson", None, "jsonl"),
        ("a.parquet", None, "parquet"),
        ("a.csv", "txt", "txt"),
        ("a.log", "txt", "txt"),
        ("-", None, "txt"),
        ("-", "csv", "csv"),
    ],
)
def test_formats_come_from_the_option_else_from_the_name(
    tmp_path: Path, name: str, given_format: str | None, expected: str
) -> None:
    path = name if name == "-" else str(tmp_path / name)
    if name != "-":
        Path(path).touch()
    assert readers.find_source(path, given_format).format == expected


@pytest.mark.skipif(os.name == "nt", reason="descriptors of Unix")
def test_parquet_comes_through_a_pipe_too() -> None:
    content = parquet_bytes(text=["a", "b"])
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as writer:
        writer.write(content)
    with os.fdopen(read_end, "rb") as pipe:
        assert list(readers.read_parquet(pipe, "standard input", TEXT)) == [Record("a"), Record("b")]


def test_without_pyarrow_parquet_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"fastembed-rt\[parquet\]"):
        readers.find_source("-", "parquet")
    with pytest.raises(MissingDependencyError, match=r"fastembed-rt\[parquet\]"):
        writers.find_format("out.parquet")


# Writers: any finite vector survives, bit by bit.


@given(vectors)
def test_npy_gives_back_every_bit(matrix: Vector) -> None:
    same_bits(np.load(io.BytesIO(write("npy", records_for(matrix), matrix))), matrix)


@given(vectors, st.data())
def test_jsonl_gives_back_every_bit_and_every_text(matrix: Vector, data: st.DataObject) -> None:
    records = [Record(data.draw(texts), data.draw(texts | st.integers())) for _ in matrix]
    content = write("jsonl", records, matrix, with_ids=True)
    rows = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    assert [Record(row["text"], row["id"]) for row in rows] == records
    same_bits(np.array([row["embedding"] for row in rows], np.float32).reshape(matrix.shape), matrix)


@given(vectors, st.data())
def test_parquet_gives_back_every_bit_and_every_text(matrix: Vector, data: st.DataObject) -> None:
    records = [Record(data.draw(texts), data.draw(st.integers(-(2**63), 2**63 - 1))) for _ in matrix]
    table = parquet.read_table(io.BytesIO(write("parquet", records, matrix, with_ids=True)))
    assert [Record(row["text"], row["id"]) for row in table.to_pylist()] == records
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 3)
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    same_bits(flat.astype(np.float32).reshape(matrix.shape), matrix)


def test_jsonl_without_ids_has_no_id() -> None:
    matrix = np.ones((1, 2), np.float32)
    content = write("jsonl", [Record("a")], matrix)
    assert content == b'{"text": "a", "embedding": [1.00000000e+00, 1.00000000e+00]}\n'


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_jsonl_refuses_what_json_cannot_say(value: float) -> None:
    with pytest.raises(FastembedRtError, match="'broken' is not finite"):
        write("jsonl", [Record("broken")], np.full((1, 2), value, np.float32))


def test_parquet_takes_more_rows_than_one_group() -> None:
    matrix = np.arange(5000, dtype=np.float32).reshape(-1, 2)
    records = [Record(str(row), f"id {row}") for row in range(len(matrix))]
    table = parquet.read_table(io.BytesIO(write("parquet", records, matrix, with_ids=True)))
    assert table.column("id").to_pylist() == [record.id for record in records]
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 2), matrix)


@pytest.mark.parametrize("with_ids", [False, True])
def test_parquet_without_rows_has_its_columns_all_the_same(with_ids: bool) -> None:
    table = parquet.read_table(io.BytesIO(write("parquet", [], np.empty((0, 3), np.float32), with_ids=with_ids)))
    assert table.num_rows == 0
    assert table.column_names == (["id"] if with_ids else []) + ["text", "embedding"]


@pytest.mark.parametrize("second", ["b", 2**63])
def test_parquet_refuses_ids_that_do_not_fit_the_first(second: str | int) -> None:
    with pytest.raises(InvalidInputError, match="ids do not fit a column of int64"):
        write("parquet", [Record("a", 1), Record("b", second)], np.ones((2, 2), np.float32), with_ids=True)


@pytest.mark.parametrize(("count", "dim"), [(0, 1), (1, 384), (10**19, 10**6)])
def test_the_npy_header_has_room_for_any_shape(count: int, dim: int) -> None:
    header = layouts.npy_header(count, dim)
    assert len(header) == layouts.NPY_HEADER_BYTES
    stream = io.BytesIO(header)
    assert np.lib.format.read_magic(stream) == (1, 0)
    assert np.lib.format.read_array_header_1_0(stream) == ((count, dim), False, np.dtype("<f4"))


def test_npy_maps_into_memory(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    with writers.open_target(str(tmp_path / "out.npy"), "npy", force=False) as stream:
        writers.write_arrays(stream, zip(records_for(matrix), matrix, strict=True), layouts.Dense(3))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode="r"), matrix)


@pytest.mark.parametrize("name", ["npy", "jsonl", "parquet"])
def test_rows_are_taken_as_they_are_written(name: str) -> None:
    taken = 0
    noise = np.random.default_rng(0).random((5000, 8), np.float32)

    def rows() -> Iterator[tuple[Record, Vector]]:
        nonlocal taken
        for row in range(5000):
            taken = row
            yield Record("text"), noise[row]

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 16_000:
                raise OSError("full")
            return super().write(data)

    stream: BinaryIO = Full()
    with pytest.raises(OSError, match="full"):
        writers.WRITERS[name](stream, rows(), layouts.Dense(8), False)
    assert 0 < taken < 4999


# Files: complete under their name, or not there.


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with writers.open_target(str(target), "jsonl", force=False) as stream:
        stream.write(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_failure_leaves_the_directory_as_it_was(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "out.npy").write_bytes(b"old")
    with pytest.raises(failure), writers.open_target(str(tmp_path / "out.npy"), "npy", force=True) as stream:
        stream.write(b"half")
        raise failure
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    assert (tmp_path / "out.npy").read_bytes() == b"old"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out.npy"
    with pytest.raises(OutputExistsError), writers.open_target(str(target), "npy", force=False) as stream:
        stream.write(b"ours")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="permissions and links of Unix")
def test_a_file_has_the_usual_permissions_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.npy").write_bytes(b"old")
    (tmp_path / "link.npy").symlink_to("real.npy")
    before = os.umask(0o027)
    try:
        with writers.open_target(str(tmp_path / "link.npy"), "npy", force=True) as stream:
            stream.write(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "link.npy").is_symlink()
    assert (tmp_path / "real.npy").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real.npy").stat().st_mode) == 0o640
