"""Inputs behind the first one, and rows behind the first ones: no value is changed, cut or left out without a word."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from bulk_jobs import execute, rejects, table
from pyarrow import parquet

from fastembed_rt.bulk.readers import Dialect
from fastembed_rt.errors import InvalidInputError


def sheet(path: Path, *columns: tuple[str, Any]) -> Path:
    parquet.write_table(pyarrow.table(dict(columns)), path)
    return path


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(files: Sequence[Path], out: Path, **options: Any) -> list[dict[str, Any]]:
    """What a job carries along, row by row, without the vectors."""
    execute(files, out, **options)
    found: list[dict[str, Any]] = table(out).drop_columns(["embedding"]).to_pylist()
    return found


def test_a_csv_file_with_another_header_is_refused_by_its_column(tmp_path: Path) -> None:
    first = written(tmp_path / "a.csv", "id,text\n1,a\n")
    for header, said in (
        ("ident,text", "has no column 'id', which the first input has"),
        ("id,text,lang", "has a column 'lang', which the first input lacks"),
        ("id,text,id", "has twice a column 'id'"),
    ):
        second = written(tmp_path / "b.csv", f"{header}\n" + ",".join("x" for _ in header.split(",")) + "\n")
        with pytest.raises(InvalidInputError, match=rf"b\.csv {said}"):
            execute([first, second], tmp_path / "out", force=True, resume=False)
    second = written(tmp_path / "b.csv", "text,lang,id\nb,en,2\n")
    assert rows([first, second], tmp_path / "chosen", chosen=("id",)) == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize("first", ["a.parquet", "a.csv", "a.txt", "a.jsonl"])
def test_a_row_with_a_key_that_the_first_input_lacks_is_a_bad_one(tmp_path: Path, first: str) -> None:
    path = tmp_path / first
    if first == "a.parquet":
        sheet(path, ("text", ["a"]))
    else:
        path.write_text({"a.csv": "text\na\n", "a.txt": "a\n", "a.jsonl": '{"text": "a"}\n'}[first])
    files = [path, lines(tmp_path / "b.jsonl", {"text": "b"}, {"text": "c", "id": 7})]
    assert rows(files, tmp_path / "out", on_error="skip") == [{"text": "a"}, {"text": "b"}]
    (bad,) = rejects(tmp_path / "out")
    lacks = "no row of the first 1000 has" if first == "a.jsonl" else "the first input lacks"
    assert bad["reason"] == f"it has 'id', which {lacks}; choose columns with --columns"
    execute(files, tmp_path / "chosen", chosen=())
    assert len(table(tmp_path / "chosen")) == 3


def test_lines_of_text_have_no_columns_for_ids(tmp_path: Path) -> None:
    first, second = lines(tmp_path / "a.jsonl", {"id": 1, "text": "a"}), written(tmp_path / "b.txt", "b\n")
    with pytest.raises(InvalidInputError, match=r"b\.txt has no column 'id', which the first input has"):
        execute([first, second], tmp_path / "out")
    assert rows([first, second], tmp_path / "chosen", chosen=("text",)) == [{"text": "a"}, {"text": "b"}]
    second.write_text("")  # no row loses anything
    assert rows([first, second], tmp_path / "empty") == [{"id": 1, "text": "a"}]


def test_a_query_gives_the_same_columns_of_every_database_and_each_once(tmp_path: Path) -> None:
    for name, columns in (("a", "id, text"), ("b", "ident, text")):
        connection = sqlite3.connect(tmp_path / f"{name}.db")
        connection.execute(f"CREATE TABLE notes ({columns})")
        connection.execute("INSERT INTO notes VALUES (1, 'a')")
        connection.commit()
        connection.close()
    files = [tmp_path / "a.db", tmp_path / "b.db"]
    with pytest.raises(InvalidInputError, match=r"b\.db has no column 'id', which the first input has"):
        execute(files, tmp_path / "out", dialect=Dialect(sql="SELECT * FROM notes ORDER BY 1"))
    twice = "SELECT a.id, a.text, b.id FROM notes a JOIN notes b ON b.id >= a.id ORDER BY a.id"
    with pytest.raises(InvalidInputError, match=r"a\.db: --sql gives two columns 'id'; name one with AS"):
        execute(files[:1], tmp_path / "out", dialect=Dialect(sql=twice))
    named = twice.replace("b.id FROM", "b.id AS other FROM")
    assert rows(files[:1], tmp_path / "named", dialect=Dialect(sql=named)) == [{"id": 1, "text": "a", "other": 1}]


def test_a_damaged_second_file_is_named(tmp_path: Path) -> None:
    first = sheet(tmp_path / "a.parquet", ("text", ["a"]))
    for name in ("b.parquet", "b.arrow"):
        (tmp_path / name).write_bytes(b"PAR1 nothing PAR1" if name == "b.parquet" else b"ARROW1 nothing ARROW1")
        with pytest.raises(InvalidInputError, match=rf"{name.replace('.', '[.]')} is not readable as"):
            execute([first, tmp_path / name], tmp_path / "out", force=True, resume=False)


# Types.

STRUCT = pyarrow.struct([("a", pyarrow.int64())])
WIDER = pyarrow.struct([("a", pyarrow.int64()), ("lang", pyarrow.string())])
NOON = datetime.datetime(2020, 1, 1, 12)
CHANGED: list[tuple[Any, Any, Any]] = [  # the first input's type, and a value of another
    (pyarrow.int64(), pyarrow.string(), "007"),
    (pyarrow.string(), pyarrow.int64(), 7),
    (pyarrow.float32(), pyarrow.float64(), 0.1),
    (pyarrow.int64(), pyarrow.float64(), 7.5),
    (pyarrow.float64(), pyarrow.int64(), 2**53 + 1),
    (pyarrow.int8(), pyarrow.int64(), 300),
    (pyarrow.int64(), pyarrow.bool_(), True),
    (pyarrow.bool_(), pyarrow.int64(), 5),
    (STRUCT, WIDER, {"a": 1, "lang": "en"}),
    (WIDER, STRUCT, {"a": 1}),
    (pyarrow.list_(STRUCT), pyarrow.list_(WIDER), [{"a": 1, "lang": "en"}]),
    (pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.float64()), [0.1]),
    (pyarrow.timestamp("us", "UTC"), pyarrow.timestamp("us"), NOON),
    (pyarrow.timestamp("s"), pyarrow.timestamp("us"), NOON.replace(microsecond=5)),
    (pyarrow.date32(), pyarrow.timestamp("us"), NOON),
]


@pytest.mark.parametrize(("wanted", "kind", "value"), CHANGED, ids=lambda given: str(given)[:24])
def test_a_column_whose_values_another_type_would_change_is_refused(
    tmp_path: Path, wanted: Any, kind: Any, value: Any
) -> None:
    first = sheet(tmp_path / "a.parquet", ("text", ["a"]), ("x", pyarrow.nulls(1, wanted)))
    second = sheet(tmp_path / "b.parquet", ("text", ["b"]), ("x", pyarrow.array([value], kind)))
    with pytest.raises(InvalidInputError, match=r"b\.parquet: its columns are not of the first input's types"):
        execute([first, second], tmp_path / "out")


SAME: list[tuple[Any, Any, Any]] = [
    (pyarrow.int64(), pyarrow.int8(), 7),
    (pyarrow.int8(), pyarrow.int64(), 7),
    (pyarrow.int64(), pyarrow.float64(), 7.0),
    (pyarrow.float64(), pyarrow.int64(), 7),
    (pyarrow.float64(), pyarrow.float32(), 0.5),
    (pyarrow.large_string(), pyarrow.string(), "a"),
    (pyarrow.string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), "a"),
    (STRUCT, pyarrow.struct([("a", pyarrow.int8())]), {"a": 1}),
    (STRUCT, pyarrow.null(), None),
    (pyarrow.large_list(pyarrow.int64()), pyarrow.list_(pyarrow.int32()), [1]),
    (pyarrow.timestamp("ns"), pyarrow.timestamp("s"), NOON),
]


@pytest.mark.parametrize(("wanted", "kind", "value"), SAME, ids=lambda given: str(given)[:24])
def test_a_column_of_another_type_with_the_same_values_is_taken(
    tmp_path: Path, wanted: Any, kind: Any, value: Any
) -> None:
    first = sheet(tmp_path / "a.parquet", ("text", ["a"]), ("x", pyarrow.nulls(1, wanted)))
    second = sheet(tmp_path / "b.parquet", ("text", ["b"]), ("x", pyarrow.array([value], kind)))
    assert [row["x"] for row in rows([first, second], tmp_path / "out")] == [None, value]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "reason"),
    [
        (pyarrow.float64(), 1, True, "'x' is bool, and double in the rows before"),
        (pyarrow.float32(), 0.1, 0.123456789, "'x' is 0.123456789, which float in the rows before does not hold"),
        (pyarrow.float32(), 2.5, 1e300, "'x' is 1e+300, which float in the rows before does not hold"),
        (pyarrow.bool_(), True, 5, "'x' is int, and bool in the rows before"),
        (pyarrow.int64(), 5, True, "'x' is bool, and int64 in the rows before"),
        (pyarrow.timestamp("ms"), None, 5, "'x' is int, and timestamp[ms] in the rows before"),
        (pyarrow.list_(pyarrow.string()), ["ab"], "ab", "'x' is str, and list<element: string> in the rows before"),
        (pyarrow.list_(pyarrow.float64()), [1, None], [1, True], "'x' is bool, and double in the rows before"),
        (STRUCT, {"a": 1}, {"a": 1, "b": 2}, "'x' has 'b', which the first input lacks"),
        (pyarrow.list_(STRUCT), [{"a": 1}, {}], [{"b": 2}], "'x' has 'b', which the first input lacks"),
        (pyarrow.struct([("a", STRUCT)]), {"a": None}, {"a": {"b": 2}}, "'x.a' has 'b', which the first input lacks"),
    ],
    ids=str,
)
def test_a_value_that_a_type_would_change_is_a_bad_row(
    tmp_path: Path, kind: Any, good: Any, bad: Any, reason: str
) -> None:
    first = sheet(tmp_path / "a.parquet", ("text", ["a"]), ("x", pyarrow.nulls(1, kind)))
    second = lines(tmp_path / "b.jsonl", {"text": "b", "x": good}, {"text": "c", "x": bad}, {"text": "d", "x": None})
    execute([first, second], tmp_path / "out", on_error="skip")
    found = table(tmp_path / "out")
    assert found.column("text").to_pylist() == ["a", "b", "d"]
    assert found.column("x").to_pylist() == pyarrow.array([None, good, None], kind).to_pylist()
    (said,) = rejects(tmp_path / "out")
    assert said["reason"].removesuffix("; choose columns with --columns") == reason


def test_a_nested_key_that_comes_late_is_a_bad_row_as_a_column_is(tmp_path: Path) -> None:
    early = [{"text": f"text {k}", "about": {"by": "me"}} for k in range(1000)]
    path = lines(tmp_path / "in.jsonl", *early, {"text": "late", "about": {"by": "me", "lang": "en"}})
    with pytest.raises(InvalidInputError, match=r"row 1001: 'about' has 'lang', which no row of the first 1000 has"):
        execute([path], tmp_path / "out", part_rows=2000)


def test_a_good_record_of_csv_behind_a_bad_one_is_kept(tmp_path: Path) -> None:
    """The line that is no UTF-8 is within a record that is no CSV."""
    path = tmp_path / "in.csv"
    path.write_bytes(b'text\n"x\n\xff\ny"z\ngood\nbetter\n')
    assert rows([path], tmp_path / "out", on_error="skip") == [{"text": "good"}, {"text": "better"}]
    assert [entry["reason"] for entry in rejects(tmp_path / "out")] == [
        "line 3: byte 0xff is not utf-8 (invalid start byte)"
    ]
