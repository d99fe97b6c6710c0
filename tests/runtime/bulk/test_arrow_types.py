"""Columns as other tools write them: views of strings, strings that are no UTF-8, types that no file of parts holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from bulk_jobs import execute, expected, rejects, table, vectors
from pyarrow import parquet

from fastembed_rt.bulk import formats
from fastembed_rt.bulk.plain import plain, plain_type
from fastembed_rt.errors import InvalidInputError

VIEW = pyarrow.string_view()
META = pyarrow.struct({"a": pyarrow.struct({"b": VIEW})})
TEXTS = ["a", "b", "über 猫 🐈, longer than twelve bytes"]
BAD = b"caf\xe9"
UNWRITABLE = [
    pyarrow.struct([]),
    pyarrow.month_day_nano_interval(),
    pyarrow.run_end_encoded(pyarrow.int32(), pyarrow.string()),
    pyarrow.dense_union([pyarrow.field("a", pyarrow.int8())]),
]


def dictionary_of_views(values: list[str]) -> Any:
    """As polars writes a Categorical."""
    found = pyarrow.array(values).dictionary_encode()
    return pyarrow.DictionaryArray.from_arrays(found.indices, pyarrow.array(found.dictionary.to_pylist(), VIEW))


def write_arrow(path: Path, columns: dict[str, Any], rows: int = 2) -> Path:
    made = pyarrow.table(columns)
    with pyarrow.ipc.new_file(str(path), made.schema) as out:
        out.write_table(made, max_chunksize=rows)
    return path


def of_bytes(values: list[bytes | None]) -> Any:
    """Strings of any bytes, which Arrow does not look at."""
    packed = pyarrow.array(values, pyarrow.binary())
    return pyarrow.StringArray.from_buffers(len(packed), *packed.buffers()[1:], packed.buffers()[0])


@pytest.mark.parametrize("part_format", ["parquet", "arrow"])
@pytest.mark.parametrize("part_rows", [1, 2, 5])
def test_views_of_strings_and_bytes_are_carried_along(tmp_path: Path, part_format: str, part_rows: int) -> None:
    columns = {
        "text": pyarrow.array(TEXTS, VIEW),
        "note": pyarrow.array(["x", None, TEXTS[2]], VIEW),
        "raw": pyarrow.array([b"\xff", None, b"y" * 20], pyarrow.binary_view()),
        "kind": dictionary_of_views(["p", "q", "p"]),
        "tags": pyarrow.array([["t", None], None, []], pyarrow.large_list(VIEW)),
        "pair": pyarrow.array([["t", "u"], ["x", "y"], ["v", "w"]], pyarrow.list_(VIEW, 2)),
        "meta": pyarrow.array(
            [{"a": {"b": "c"}}, None, {"a": None}], pyarrow.struct({"a": pyarrow.struct({"b": VIEW})})
        ),
        "map": pyarrow.array([[("k", "v")], None, []], pyarrow.map_(VIEW, VIEW)),
        "id": [1, 2, 3],
    }
    source = write_arrow(tmp_path / "in.arrow", columns)
    execute([source], tmp_path / "out", format=part_format, part_rows=part_rows)
    found = table(tmp_path / "out")
    assert found.drop_columns(["embedding"]).to_pylist() == pyarrow.table(columns).to_pylist()
    assert vectors(tmp_path / "out").tobytes() == expected(TEXTS).tobytes()


def test_a_type_without_views_stays_as_it_is() -> None:
    for kind in (
        pyarrow.list_(pyarrow.field("element", pyarrow.int8(), nullable=False)),
        pyarrow.map_(pyarrow.string(), pyarrow.field("c", pyarrow.int64())),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string(), ordered=True),
        pyarrow.large_string(),
        *UNWRITABLE,
    ):
        assert plain_type(kind) is kind
    ordered = pyarrow.dictionary(pyarrow.int8(), VIEW, ordered=True)
    assert plain_type(ordered) == pyarrow.dictionary(pyarrow.int8(), pyarrow.string(), ordered=True)
    column = pyarrow.chunked_array([dictionary_of_views(["a", "b"]), dictionary_of_views(["c"])])
    assert plain(column).to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("name", ["text", "note"])
def test_a_string_that_is_no_utf8_is_a_bad_row(tmp_path: Path, ending: str, name: str) -> None:
    columns = {"id": [0, 1, 2], "text": ["a", "b", "c"], "note": ["x", None, "z"]}
    columns[name] = of_bytes([b"ok", BAD, b"fine"])
    path = write_arrow(tmp_path / "in.arrow", columns)
    if ending == "parquet":
        path = tmp_path / "in.parquet"
        parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    with pytest.raises(InvalidInputError, match=rf"in\.{ending}, row 2: '{name}' is not UTF-8"):
        execute([path], tmp_path / "out")
    execute([path], tmp_path / "out", on_error="skip")
    assert table(tmp_path / "out").column("id").to_pylist() == [0, 2]
    assert rejects(tmp_path / "out") == [{"input": str(path), "row": 2, "reason": f"'{name}' is not UTF-8"}]
    execute([path], tmp_path / "null", on_error="null", format="arrow")
    found = table(tmp_path / "null")
    assert found.column("id").to_pylist() == [0, 1, 2]
    assert found.column(name).to_pylist() == ["ok", None, "fine"]
    assert found.column("embedding").is_null().to_pylist() == [False, True, False]


@pytest.mark.parametrize("kind", UNWRITABLE, ids=str)
def test_a_type_that_cannot_be_written_is_refused_by_its_column(kind: Any) -> None:
    columns = pyarrow.schema([("id", pyarrow.uint64()), ("odd", kind)])
    with pytest.raises(InvalidInputError, match=r"column 'odd' holds .*; choose others with --columns, or "):
        formats.check_types(columns, "parquet")


def test_types_that_can_be_written_are_not_refused() -> None:
    every = [pyarrow.uint64(), pyarrow.decimal256(50, 3), pyarrow.duration("ns"), pyarrow.time64("ns"), pyarrow.null()]
    every += [pyarrow.timestamp("ns", "Europe/Berlin"), pyarrow.float16(), pyarrow.map_(VIEW, pyarrow.int64())]
    columns = pyarrow.schema([(str(k), plain_type(kind)) for k, kind in enumerate(every)])
    for kind in ("parquet", "arrow", "jsonl"):
        formats.check_types(columns, kind)
    formats.check_types(pyarrow.schema([("odd", UNWRITABLE[0])]), "arrow")


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("sampled", [0, 1000])
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"\ud800": 1}, "it has '\\ud800', which no row of the first 1000 has"),
        ({"meta": {"a": ["\udfff"]}}, "'meta' holds half a surrogate pair ('\\udfff')"),
        ({"meta": {"\ud800": 1}}, "'meta' has '\\ud800', which no row of the first 1000 has"),
    ],
)
def test_half_a_surrogate_pair_anywhere_is_a_bad_row(
    tmp_path: Path, sampled: int, odd: dict[str, Any], reason: str
) -> None:
    good = [{"text": f"t {k}", "meta": {"a": ["b"]}} for k in range(sampled + 1)]
    source = write_lines(tmp_path / "in.jsonl", [*good, {"text": "odd", **odd}])
    with pytest.raises(InvalidInputError, match=f"row {sampled + 2}: "):
        execute([source], tmp_path / "out", part_rows=500)
    execute([source], tmp_path / "out", part_rows=500, on_error="skip")
    assert table(tmp_path / "out").num_rows == sampled + 1
    (noted,) = rejects(tmp_path / "out")
    assert noted["reason"].encode("utf-8", "backslashreplace").decode().replace("\\\\", "\\").startswith(reason)


def test_whole_numbers_without_a_sign_are_kept(tmp_path: Path) -> None:
    ids = [2**64 - 1, 0, 2**63]
    source = write_lines(tmp_path / "in.jsonl", [{"text": "t", "id": given} for given in ids])
    execute([source], tmp_path / "out")
    assert table(tmp_path / "out").column("id").to_pylist() == ids
    assert table(tmp_path / "out").schema.field("id").type == pyarrow.uint64()
    for beyond in (-1, 2**64):
        write_lines(source, [{"text": "t", "id": given} for given in [*ids, beyond]])
        with pytest.raises(InvalidInputError, match="column 'id' holds int in the first 4 rows"):
            execute([source], tmp_path / f"out {beyond}")


@pytest.mark.parametrize(
    ("name", "values", "there", "damaged"),
    [
        ("text", pyarrow.array(["one", "two", "three"]), [0, 3, 6, 11], [0, 3, 2**30, 11]),
        ("text", pyarrow.array(["one", "two", "three"]), [0, 3, 6, 11], [0, 9, 6, 11]),
        ("text", pyarrow.array(["one", "two", "three"]), [0, 3, 6, 11], [0, 3, 6, 2**30]),
        ("kind", pyarrow.array(["p", "q", "p"]).dictionary_encode(), [0, 1, 0], [0, 2**30, 0]),
        ("tags", pyarrow.array([[1], [2, 3], []], pyarrow.list_(pyarrow.int8())), [0, 1, 3, 3], [0, 2**30, 3, 3]),
    ],
)
def test_places_in_a_damaged_arrow_file_are_not_followed(
    tmp_path: Path, name: str, values: Any, there: list[int], damaged: list[int]
) -> None:
    """They would be read as other memory, or end the process."""
    columns = {"text": ["aaaa", "bbbb", "cccc"], name: values}
    source = write_arrow(tmp_path / "in.arrow", columns, rows=3)
    execute([source], tmp_path / "whole")
    before, after = (np.array(each, np.int32).tobytes() for each in (there, damaged))
    assert source.read_bytes().count(before) == 1
    source.write_bytes(source.read_bytes().replace(before, after))
    for on_error in ("fail", "skip"):
        with pytest.raises(InvalidInputError, match=r"in\.arrow is not readable as arrow \("):
            execute([source], tmp_path / on_error, on_error=on_error)


def test_names_of_columns_that_are_no_utf8_are_damage(tmp_path: Path) -> None:
    source = write_arrow(tmp_path / "in.arrow", {"text": ["a"], "colonne": ["b"]})
    source.write_bytes(source.read_bytes().replace(b"colonne", b"col\xffnne"))
    with pytest.raises(InvalidInputError, match=r"in\.arrow is not readable as arrow \(.*can't decode byte 0xff"):
        execute([source], tmp_path / "out")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_dates_that_are_no_whole_days_are_no_damage(tmp_path: Path, ending: str) -> None:
    dates = pyarrow.array([1, 86_400_001], pyarrow.int64()).view(pyarrow.date64())
    source = write_arrow(tmp_path / "in.arrow", {"text": ["a", "b"], "day": dates})
    execute([source], tmp_path / "out", format=ending)
    assert table(tmp_path / "out").num_rows == 2
