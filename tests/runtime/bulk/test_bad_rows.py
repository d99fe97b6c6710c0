"""Rows that are no texts: the first ends a run, or they are left out, null, or what --on-null says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from bulk_jobs import (
    BAD,
    ODD,
    TEXTS,
    Counting,
    encoder,
    execute,
    expected,
    rejects,
    table,
    vector_of,
    vectors,
    write_jsonl,
)
from exports import contents
from pyarrow import parquet

from fastembed_rt.bulk import job
from fastembed_rt.bulk.cache import Cache
from fastembed_rt.bulk.columns import Template
from fastembed_rt.cli.layouts import Dense, Sparse, Tokens
from fastembed_rt.errors import InvalidInputError, MissingDependencyError
from fastembed_rt.vectors.quantized import form
from fastembed_rt.vectors.sparse import SparseVector

ROWS = ["a", None, BAD, "b", ODD, "", 7, "c"]
GOOD = ["a", "b", "", "c"]


def test_bad_rows_are_left_out_and_noted(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    execute([source], tmp_path / "out", on_error="skip")
    assert table(tmp_path / "out").column("id").to_pylist() == [0, 3, 5, 7]
    assert vectors(tmp_path / "out").tobytes() == expected(GOOD).tobytes()
    assert [(entry["row"], entry["reason"]) for entry in rejects(tmp_path / "out")] == [
        (2, "there is no text (null); see --on-null"),
        (3, f"text 0 is {BAD}"),
        (5, "its vector is not finite; take another precision"),
        (7, "'text' is int, and string in the rows before"),
    ]
    assert {entry["input"] for entry in rejects(tmp_path / "out")} == {str(source)}


@pytest.mark.parametrize("part_format", ["parquet", "arrow"])
def test_a_part_may_have_no_row_left(tmp_path: Path, part_format: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ["a", "b", "c", "d", *[None] * 4, "e"])
    records = execute([source], tmp_path / "out", on_error="skip", format=part_format)
    assert [(record.rows, record.rejected) for record in records.values()] == [(4, 0), (0, 4), (1, 0)]
    assert table(tmp_path / "out").column("id").to_pylist() == [0, 1, 2, 3, 8]
    assert vectors(tmp_path / "out").tobytes() == expected(["a", "b", "c", "d", "e"]).tobytes()


@pytest.mark.parametrize("part_format", ["parquet", "arrow"])
def test_bad_rows_are_null_and_noted(tmp_path: Path, part_format: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    execute([source], tmp_path / "out", on_error="null", format=part_format)
    found = table(tmp_path / "out").column("embedding").to_pylist()
    assert [k for k, value in enumerate(found) if value is None] == [1, 2, 4, 6]
    kept = [value for value in found if value is not None]
    assert np.array(kept, np.float32).tobytes() == expected(GOOD).tobytes()
    assert len(rejects(tmp_path / "out")) == 4


def test_a_pyarrow_that_does_not_keep_null_vectors_is_told_and_what_has_none_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyarrow, "__version__", "25.0.0")
    bad = write_jsonl(tmp_path / "in.jsonl", ["a", None])
    with pytest.raises(MissingDependencyError, match=r"needs pyarrow 26 or newer, and this is 25\.0\.0; pip install"):
        execute([bad], tmp_path / "bad", on_error="null")
    execute([bad], tmp_path / "arrow", on_error="null", format="arrow")
    execute([write_jsonl(tmp_path / "good.jsonl", ["a", "b"])], tmp_path / "good", on_error="null")
    assert vectors(tmp_path / "good").tobytes() == expected(["a", "b"]).tobytes()


def test_the_first_bad_row_ends_a_run_with_its_place(tmp_path: Path) -> None:
    for rows, said in (
        (["a", "b", "c", "d", "e", None], r"in\.jsonl, row 6: there is no text \(null\)"),
        (["a", "b", "c", "d", "e", BAD], r"in\.jsonl, row 6: text 0 is refused by the model; --on-error"),
        (["a", ODD], r"in\.jsonl, row 2: its vector is not finite"),
        (["a", 1], r"in\.jsonl, row 2: 'text' is int"),
    ):
        source = write_jsonl(tmp_path / "in.jsonl", rows)
        with pytest.raises(InvalidInputError, match=said):
            execute([source], tmp_path / "out", force=True, resume=False)


@pytest.mark.parametrize(
    ("on_null", "wanted"),
    [
        ("empty", [expected(["a"])[0].tolist(), expected([""])[0].tolist()]),
        ("zero", [expected(["a"])[0].tolist(), [0.0] * 4]),
        ("null", [expected(["a"])[0].tolist(), None]),
        ("skip", [expected(["a"])[0].tolist()]),
    ],
)
def test_rows_without_a_text(tmp_path: Path, on_null: str, wanted: list[Any]) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", None]}), path)
    execute([path], tmp_path / "out", on_null=on_null)
    assert table(tmp_path / "out").column("embedding").to_pylist() == wanted
    assert not (tmp_path / "out" / job.REJECTS).exists()


def test_nan_in_a_template_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"x": [1.5, float("nan")]}), path)
    execute([path], tmp_path / "out", on_null="skip", template=Template("{x}"))
    assert vectors(tmp_path / "out").tobytes() == expected(["1.5"]).tobytes()


def test_npy_refuses_what_would_move_rows(tmp_path: Path, source: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"on_error": "skip"}, "left out"),
        ({"on_error": "null"}, "no null"),
        ({"on_null": "null"}, "left out"),
    ]
    for changes, said in cases:
        with pytest.raises(InvalidInputError, match=said):
            execute([source], tmp_path / "out", format="npy", **changes)


@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_a_run_that_ended_at_a_bad_row_goes_on_without_it(tmp_path: Path, on_error: str) -> None:
    """As its message says; nothing that is there is made anew, and the bytes are those of a run that began so."""
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD, None, "end"])
    with pytest.raises(InvalidInputError, match="--on-error skip or null"):
        execute([source], tmp_path / "out")
    counting = Counting()
    execute([source], tmp_path / "out", counting=counting, on_error=on_error, on_null="zero")
    assert counting.texts == [*TEXTS[28:], "end"]
    execute([source], tmp_path / "whole", on_error=on_error, on_null="zero")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    for then, null in (("fail", "zero"), (on_error, "empty")):
        with pytest.raises(InvalidInputError, match=r"--on-(error|null) changed: it was '"):
            execute([source], tmp_path / "out", on_error=then, on_null=null)


def test_what_decided_over_a_row_that_is_there_cannot_change(tmp_path: Path) -> None:
    """A row without a text was left out as a bad one: others of its kind cannot get zeros in the same job."""
    source = write_jsonl(tmp_path / "in.jsonl", ["a", None, "b", "c", BAD, None])
    execute([source], tmp_path / "out", on_error="skip")
    (tmp_path / "out" / "part-00000-000001.parquet").unlink()
    with pytest.raises(InvalidInputError, match="--on-null changed: it was 'error', now it is 'zero'"):
        execute([source], tmp_path / "out", on_error="skip", on_null="zero")


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_a_vector_that_is_not_finite_has_no_code(tmp_path: Path, precision: str) -> None:
    ranges = [[0.0] * 4, [1.0] * 4] if precision.endswith("int8") else None
    stored = form(precision, 4, ranges)
    counting = Counting()

    def encode(texts: list[str], out: Any) -> Any:
        _, lengths = counting(texts)
        out[:] = stored(np.stack([vector_of(text) for text in texts]))
        return out, lengths

    layout = Dense(stored.width, stored.kind.dtype)
    model = encoder(encode=encode, layout=layout, width=stored.width, dtype=stored.kind.dtype)
    source = write_jsonl(tmp_path / "in.jsonl", ["a", ODD, "b"])
    cache = Cache(tmp_path / "cache", "a-model", stored.width, stored.kind.dtype)
    execute([source], tmp_path / "out", model=model, on_error="skip", cache=cache)
    assert table(tmp_path / "out").column("id").to_pylist() == [0, 2]
    assert vectors(tmp_path / "out").tobytes() == stored(expected(["a", "b"])).tobytes()
    (bad,) = rejects(tmp_path / "out")
    assert bad["row"] == 2
    assert bad["reason"].startswith("a vector is not finite, and ")
    assert set(cache.get(["a", ODD, "b"])) == {"a", "b"}


def test_token_vectors_and_weights_that_are_not_finite_are_bad_rows(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ["a", ODD, "b"])
    made: dict[str, tuple[Any, Any]] = {
        "tokens": (Tokens(4), lambda text: np.stack([vector_of("x"), vector_of(text)])),
        "sparse": (Sparse(9), lambda text: SparseVector(np.array([1, 2, 5, 7]), vector_of(text), 9)),
    }
    for name, (layout, vector) in made.items():

        def encode(texts: list[str], out: Any, vector: Any = vector) -> Any:
            return [vector(text) for text in texts], [1] * len(texts)

        execute([source], tmp_path / name, model=encoder(encode=encode, layout=layout, width=0), on_error="skip")
        assert table(tmp_path / name).column("id").to_pylist() == [0, 2]
        assert [entry["reason"] for entry in rejects(tmp_path / name)] == [
            "its vector is not finite; take another precision"
        ]
