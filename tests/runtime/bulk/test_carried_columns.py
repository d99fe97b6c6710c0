"""Columns of inputs: joined by templates, carried along, the same for all files and ranks."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from bulk_inputs import rows_of, write
from bulk_jobs import execute, expected, table, vectors
from pyarrow import parquet

from fastembed_rt.bulk.columns import Template
from fastembed_rt.errors import InvalidInputError


def test_templates_join_columns(tmp_path: Path) -> None:
    rows = [
        {"title": "A", "body": "b", "year": 1999, "key": "x"},
        {"title": "C", "body": None, "year": 2001, "key": "y"},
    ]
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    template = Template(r"{title} ({year})\n{body}{{}}")
    execute([path], tmp_path / "out", template=template, on_null="skip")
    found = table(tmp_path / "out")
    assert found.column("key").to_pylist() == ["x"]
    assert vectors(tmp_path / "out").tolist() == expected(["A (1999)\nb{}"]).tolist()
    assert found.column_names == ["title", "body", "year", "key", "embedding"]
    for pattern, said in (
        ("{}", "a column's name"),
        ("{a!r}", "a column's name"),
        ("{a", "cannot be read"),
        ("a", "no column"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            execute([path], tmp_path / "no", template=Template(pattern))
    with pytest.raises(InvalidInputError, match="no column 'none'; it has 'title', 'body'"):
        execute([path], tmp_path / "no", template=Template("{none}"))


def test_columns_of_any_type_are_carried_along(tmp_path: Path) -> None:
    import datetime
    import decimal

    columns = {
        "text": pyarrow.array(["a", "b"]).dictionary_encode(),
        "uuid": pyarrow.array([b"\x00" * 16, b"\xff" * 16], pyarrow.binary(16)),
        "when": pyarrow.array([datetime.datetime(2020, 1, 1), None], pyarrow.timestamp("ns")),
        "price": pyarrow.array([decimal.Decimal("1.10"), decimal.Decimal("2.20")]),
        "tags": pyarrow.array([["x"], []]),
        "meta": pyarrow.array([{"a": 1}, {"a": None}]),
    }
    given_table = pyarrow.table(columns)
    parquet.write_table(given_table, tmp_path / "in.parquet")
    execute([tmp_path / "in.parquet"], tmp_path / "out")
    found = table(tmp_path / "out").drop_columns(["embedding"])
    assert found.to_pylist() == given_table.to_pylist()
    for chosen in (("uuid", "price"), ()):
        execute([tmp_path / "in.parquet"], tmp_path / f"out-{len(chosen)}", chosen=chosen)
        assert table(tmp_path / f"out-{len(chosen)}").column_names == [*chosen, "embedding"]


def test_the_first_rows_of_json_decide_the_columns_for_all_ranks(tmp_path: Path) -> None:
    rows = [{"id": k, "text": f"t{k}", "late": None if k < 1500 else "x"} for k in range(2000)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of([path], rank=3, world=4)[-1] == rows[-1]
    path.write_text(
        path.read_text() + json.dumps({"id": "seven", "text": "a"}) + "\n" + json.dumps({"text": "b", "new": 1})
    )
    *_, wrong, more = rows_of([path])
    assert wrong == "'id' is str, and int64 in the rows before"
    assert more == "it has 'new', which no row of the first 1000 has; choose columns with --columns"
    assert rows_of([path], chosen=("late",))[-1] == {"text": "b", "late": None}
    path.write_text('{"id": 1, "text": "a"}\n{"id": "b", "text": "b"}\n')
    with pytest.raises(InvalidInputError, match="column 'id' holds int, str in the first 2 rows"):
        rows_of([path])


@pytest.mark.parametrize("csv_first", [True, False])
@pytest.mark.parametrize("other", ["in.jsonl", "in.json", "in.parquet", "in.arrow"])
def test_beside_csv_ids_are_strings_as_there(tmp_path: Path, other: str, csv_first: bool) -> None:
    (tmp_path / "in.csv").write_text("id,text\n007,c\n")
    of_csv, of_other = [{"id": "007", "text": "c"}], [{"id": "0", "text": "a"}, {"id": "1", "text": "b"}]
    files = [tmp_path / "in.csv", write(tmp_path / other, ["a", "b"])]
    assert rows_of(files if csv_first else files[::-1]) == (of_csv + of_other if csv_first else of_other + of_csv)
    assert [row["id"] for row in rows_of(files[1:])] == [0, 1]  # alone they stay numbers


def test_beside_csv_all_plain_values_are_strings(tmp_path: Path) -> None:
    sheet = tmp_path / "a.csv"
    sheet.write_text("id,price,new,text\n1,1.50,yes,a\n")
    lines: list[dict[str, Any]] = [
        {"id": 2, "price": 1.5, "new": True, "text": "b"},
        {"id": 3, "price": 2, "new": None, "text": "c"},
    ]
    other = tmp_path / "b.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in [*lines, {**lines[0], "price": math.nan}]))
    found = {"id": "2", "price": "1.5", "new": "true", "text": "b"}
    # 2 alone would have been a number with a fraction in a column with 1.5: beside csv it is what was written.
    rest = [{"id": "3", "price": "2", "new": None, "text": "c"}, {**found, "price": None}]
    first = {"id": "1", "price": "1.50", "new": "yes", "text": "a"}
    assert rows_of([sheet, other]) == [first, found, *rest]
    assert rows_of([other, sheet]) == [found, *rest, first]


@pytest.mark.parametrize("csv_first", [True, False])
def test_beside_csv_columns_with_types_are_strings(tmp_path: Path, csv_first: bool) -> None:
    values = {
        "text": ["b"],
        "double": [100000.0],
        "single": pyarrow.array([0.1], pyarrow.float32()),
        "half": pyarrow.array(np.array([0.1], np.float16)),
        "day": [datetime.date(2024, 1, 2)],
        "exact": [decimal.Decimal("1.50")],
        "sure": [False],
        "nothing": [math.nan],
    }
    parquet.write_table(pyarrow.table(values), tmp_path / "b.parquet")
    names = list(values)
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    files = [tmp_path / "a.csv", tmp_path / "b.parquet"]
    found = rows_of(files if csv_first else files[::-1])
    assert dict.fromkeys(names, "x") in found
    wanted = ["b", "100000.0", "0.1", "0.1", "2024-01-02", "1.50", "false", None]
    assert dict(zip(names, wanted, strict=True)) in found


def test_files_of_other_columns_than_the_first_are_refused_by_name(tmp_path: Path) -> None:
    for name, columns in (
        ("a", {"text": ["x"]}),
        ("b", {"text": ["x"], "id": [1]}),
        ("c", {"other": ["x"]}),
        ("d", {"text": [1.5]}),
    ):
        parquet.write_table(pyarrow.table(columns), tmp_path / f"{name}.parquet")
    with pytest.raises(InvalidInputError, match=r"b\.parquet has a column 'id', which the first input lacks"):
        rows_of([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert len(rows_of([tmp_path / "a.parquet", tmp_path / "b.parquet"], chosen=())) == 2
    with pytest.raises(InvalidInputError, match=r"c\.parquet has no column 'text'"):
        rows_of([tmp_path / "a.parquet", tmp_path / "c.parquet"])
    with pytest.raises(
        InvalidInputError, match=r"column 'text' holds double, not strings; pass --column, or --template"
    ):
        rows_of([tmp_path / "d.parquet"])
    with pytest.raises(InvalidInputError, match="is the name of the vectors'"):
        parquet.write_table(pyarrow.table({"text": ["a"], "embedding": [1]}), tmp_path / "e.parquet")
        execute([tmp_path / "e.parquet"], tmp_path / "out")


# Bad rows.
