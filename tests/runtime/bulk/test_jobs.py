"""Jobs in parts: rows and vectors in order, what is refused on resuming, bad rows, ranks, and what saves work."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.dataset
import pytest
from bulk_jobs import BAD, ODD, Counting, encoder, execute, expected, table, vectors, write_jsonl
from exports import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fastembed_rt.bulk import job, parts, progress
from fastembed_rt.bulk.cache import Cache
from fastembed_rt.bulk.columns import Template
from fastembed_rt.bulk.encoder import Encoding, Remembered
from fastembed_rt.bulk.merge import merge
from fastembed_rt.bulk.readers import Dialect
from fastembed_rt.bulk.store import Directory, open_store
from fastembed_rt.errors import InvalidInputError, OutputExistsError

TEXTS = [f"text {k % 7} {k}" for k in range(30)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", TEXTS)


def rejects(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / job.REJECTS).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("part_format", ["parquet", "arrow", "npy"])
def test_parts_hold_every_row_in_order_with_its_vector(tmp_path: Path, source: Path, part_format: str) -> None:
    records = execute([source, source], tmp_path / "out", format=part_format)
    assert vectors(tmp_path / "out").tobytes() == expected(TEXTS * 2).tobytes()
    assert [(record.start, record.stop) for record in records.values()] == [(k, k + 4) for k in range(0, 60, 4)]
    if part_format != "npy":
        found = table(tmp_path / "out")
        assert found.column("id").to_pylist() == [*range(30)] * 2
        assert found.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 4)
        assert found.schema.metadata[b"fastembed_rt.fingerprint"] == b"a-model"
    manifest = json.loads((tmp_path / "out" / job.MANIFEST).read_text())
    assert (manifest["rows"], manifest["rejected"], manifest["job"]["fingerprint"]) == (60, 0, "a-model")
    assert (tmp_path / "out" / job.SUCCESS).read_bytes() == b""
    assert not (tmp_path / "out" / job.WORK).exists()


def test_readers_of_parquet_folders_take_the_directory_as_it_is(tmp_path: Path, source: Path) -> None:
    execute([source], tmp_path / "out")
    assert parquet.read_table(tmp_path / "out").column("text").to_pylist() == TEXTS
    assert pyarrow.dataset.dataset(tmp_path / "out").count_rows() == 30


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.json"])
def test_inputs_without_a_row_make_a_job_without_a_part(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert execute([tmp_path / name], tmp_path / "out") == {}
    assert set(contents(tmp_path / "out")) == {job.MANIFEST, job.SUCCESS}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=30),
    rows=st.integers(1, 6),
    blocks=st.integers(1, 7),
    skip=st.integers(0, 30),
)
def test_where_a_part_ends_depends_on_the_rows_alone(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], rows: int, blocks: int, skip: int
) -> None:
    """Neither on how many were read together nor on where a resumed run begins."""
    from fastembed_rt.bulk.columns import Plan
    from fastembed_rt.bulk.rows import Block

    monkeypatch.setattr(parts, "CHARACTERS", 12)
    whole = pyarrow.table({"text": ["x" * length for length in lengths]}, pyarrow.schema([("text", pyarrow.string())]))
    plan = Plan.of(whole.schema, Template("text", plain=True), None, sampled=False, label="")

    def cut(start: int, size: int) -> Iterator[Block]:
        for at in range(start, len(lengths), size):
            yield Block(whole.slice(at, min(size, len(lengths) - at)), "in", at + 1)

    made = list(parts.parts(cut(0, 1000), plan, rows))
    wanted = [(part.number, part.start, part.stop, part.texts) for part in made]
    assert [text for part in made for text in part.texts] == whole.column("text").to_pylist()
    for part in made:
        assert len(part.texts) <= rows
        assert sum(len(text or "") for text in part.texts[:-1]) < 12
        assert part.origin(0) == ("in", part.start + 1)
        assert part.origin(len(part.texts) - 1) == ("in", part.stop)
    first = next((part for part in made if part.start >= skip), None)
    if first is not None:
        again = parts.parts(cut(first.start, blocks), plan, rows, first.number, first.start)
        assert [(part.number, part.start, part.stop, part.texts) for part in again] == wanted[first.number :]


# What a resumed run has in common with the first.


def test_a_job_that_is_there_wants_resume_or_force(tmp_path: Path, source: Path) -> None:
    execute([source], tmp_path / "out", resume=False)
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="--resume goes on with it, --force begins again"):
        execute([source], tmp_path / "out", resume=False)
    execute([source], tmp_path / "out", part_rows=7, force=True, resume=False)
    assert len(list((tmp_path / "out").glob("part-*"))) == 5
    execute([source], tmp_path / "out", force=True, resume=False)
    assert contents(tmp_path / "out") == before


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": encoder(fingerprint="another")}, "vectors of a-model, these would be another"),
    "part_rows": ({"part_rows": 5}, "--part-rows changed: it was 4, now it is 5"),
    "column": ({"template": Template("{text}")}, "--column changed: it was 'text', now it is not given"),
    "columns": ({"chosen": ("id",)}, r"--columns changed: it was not given, now it is \['id'\]"),
    "format": ({"format": "arrow"}, "--shard-format changed: it was 'parquet', now it is 'arrow'"),
    "encoding": ({"dialect": Dialect(encoding="latin-1")}, "--encoding changed: it was 'utf-8', now it is 'latin-1'"),
    "more": ({"more": {"truncation": "chunk"}}, "--truncation changed: it was not given, now it is 'chunk'"),
    "world": ({"rank": 1, "world": 2}, "rank 0 of 1, not 1 of 2|a job of 1 ranks, not 2"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", CHANGES)
def test_another_model_or_option_is_refused_by_name(tmp_path: Path, source: Path, name: str, finished: bool) -> None:
    changes, said = CHANGES[name]
    execute([source], tmp_path / "out")
    if not finished:
        complete = job.Complete.read(Directory(tmp_path / "out"))
        assert complete is not None
        complete.reopen(Directory(tmp_path / "out"))
        assert not (tmp_path / "out" / job.SUCCESS).exists()
    before = contents(tmp_path / "out")
    with pytest.raises(InvalidInputError, match=said):
        execute([source], tmp_path / "out", **changes)
    assert contents(tmp_path / "out") == before


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


def test_other_inputs_are_refused_by_name(tmp_path: Path, source: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", ["x"])
    execute([source, other], tmp_path / "out")
    for files, said in (
        ([source], "other.jsonl is gone"),
        ([other, source], "another order"),
        ([source, other, other], "another order|is new"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            execute(files, tmp_path / "out")
    write_jsonl(other, ["y"])
    with pytest.raises(InvalidInputError, match=r"input .*other\.jsonl changed since \(sha256\)"):
        execute([source, other], tmp_path / "out")


def test_large_inputs_are_known_by_size_time_and_ends(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastembed_rt.bulk import inputs

    monkeypatch.setattr(inputs, "HASHED_WHOLE", 10)
    execute([source], tmp_path / "out")
    execute([source], tmp_path / "out")
    content = source.read_bytes()
    source.write_bytes(content)
    os.utime(source, ns=(1, 1))
    with pytest.raises(InvalidInputError, match=r"changed since \(modified_ns\)"):
        execute([source], tmp_path / "out")


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path, source: Path) -> None:
    for name in ("notes.txt", "part-00000-c000.snappy.parquet", "part-00000-000000.parquet"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text("mine")
        for force in (False, True):
            if force and name == "part-00000-000000.parquet":
                continue
            with pytest.raises(OutputExistsError, match=f"holds {name}"):
                execute([source], folder, force=force, resume=not force)
            assert (folder / name).read_text() == "mine"
            assert force or [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInputError, match="not a directory"):
        execute([source], tmp_path / "file")


@pytest.mark.skipif(os.name == "nt", reason="names of files are UTF-16 there")
def test_a_name_that_is_not_utf8_is_known_again(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"in-\xff\xc3\xbc.jsonl")
    execute([write_jsonl(source, TEXTS)], tmp_path / "out")
    (tmp_path / "out" / "part-00000-000001.parquet").unlink()
    execute([source], tmp_path / "out")
    assert vectors(tmp_path / "out").tobytes() == expected(TEXTS).tobytes()


def test_two_runs_of_one_rank_are_not_at_once(tmp_path: Path, source: Path) -> None:
    store = Directory(tmp_path / "out")
    with (
        store.lock("_embed/00000-of-00001/lock") as held,
        pytest.raises(InvalidInputError, match="another process works"),
    ):
        assert held
        execute([source], tmp_path / "out")


# Parts that are not what they were.


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_part_is_found_and_made_anew(tmp_path: Path, finished: bool, damage: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD])
    out, store = tmp_path / "out", Directory(tmp_path / "out")
    execute([source], out, on_error="null")
    wanted = contents(out)
    if not finished:
        complete = job.Complete.read(store)
        assert complete is not None
        complete.reopen(store)
    for name in ("part-00000-000003.parquet", "part-00000-000007.parquet"):
        content = bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "remove":
            (out / name).unlink()
        else:
            (out / name).write_bytes(content if damage == "flip" else content[:-9])
    counting = Counting()
    execute([source], out, counting=counting, on_error="null")
    assert counting.texts == [*TEXTS[12:16], *TEXTS[28:30]]
    assert contents(out) == wanted


def test_a_damaged_list_of_rejects_is_made_anew(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD])
    execute([source], tmp_path / "out", on_error="skip")
    wanted = contents(tmp_path / "out")
    (tmp_path / "out" / job.REJECTS).write_text("{}\n")
    execute([source], tmp_path / "out", on_error="skip")
    assert contents(tmp_path / "out") == wanted


# Bad rows.

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
def test_bad_rows_are_null_and_noted(tmp_path: Path, part_format: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    execute([source], tmp_path / "out", on_error="null", format=part_format)
    found = table(tmp_path / "out").column("embedding").to_pylist()
    assert [k for k, value in enumerate(found) if value is None] == [1, 2, 4, 6]
    kept = [value for value in found if value is not None]
    assert np.array(kept, np.float32).tobytes() == expected(GOOD).tobytes()
    assert len(rejects(tmp_path / "out")) == 4


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


# Ranks.


@pytest.mark.parametrize("apart", [True, False])
def test_ranks_are_merged_into_what_one_run_gives(tmp_path: Path, apart: bool) -> None:
    texts = [*TEXTS, BAD, *TEXTS]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    places = [tmp_path / (f"out-{rank}" if apart else "out") for rank in range(3)]
    for rank in (2, 0, 1):
        execute([source], places[rank], rank=rank, world=3, on_error="skip")
        assert not (places[rank] / job.SUCCESS).exists()
    goal = tmp_path / "goal" if apart else places[0]
    stores = [open_store(str(place)) for place in dict.fromkeys(places)]
    for _ in range(2):  # once more changes nothing
        merge(stores, open_store(str(goal)) if apart else None)
    assert table(goal).column("text").to_pylist() == TEXTS * 2
    assert vectors(goal).tobytes() == expected(TEXTS * 2).tobytes()
    assert len(rejects(goal)) == 1
    assert json.loads((goal / job.MANIFEST).read_text())["rows"] == 60
    execute([source], goal, rank=1, world=3, on_error="skip")  # nothing to do
    name = "part-00001-000002.parquet"
    (goal / name).write_bytes(b"")
    with pytest.raises(InvalidInputError, match=f"{name} in .* is damaged; run the job with --resume"):
        merge([open_store(str(goal))])
    execute([source], goal, rank=1, world=3, on_error="skip")
    merge([open_store(str(goal))])
    assert vectors(goal).tobytes() == expected(TEXTS * 2).tobytes()


def test_merging_refuses_what_is_missing_damaged_or_of_another_job(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    store = Directory(out)
    with pytest.raises(InvalidInputError, match="there is no job"):
        merge([store])
    execute([source], out, rank=1, world=2)
    with pytest.raises(InvalidInputError, match="rank 0 of 2 is not there"):
        merge([store])
    execute([source], out, rank=0, world=2, model=encoder(fingerprint="another"))
    with pytest.raises(InvalidInputError, match=r"rank 1 .* is of another job: the model changed"):
        merge([store])
    execute([source], out, rank=0, world=2, force=True, resume=False)
    (out / "part-00000-000001.parquet").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="damaged; resume rank 0"):
        merge([store])
    execute([source], out, rank=0, world=2)
    (out / "_embed/00000-of-00002/done.json").unlink()
    with pytest.raises(InvalidInputError, match=r"rank 0 of 2 in .* is not finished"):
        merge([store])
    execute([source], out, rank=0, world=2)
    merge([store])
    assert vectors(out).tobytes() == expected(TEXTS).tobytes()


# What saves work.


def test_equal_texts_are_encoded_once(tmp_path: Path) -> None:
    texts = [f"text {k % 6}" for k in range(40)]
    counting = Counting()
    watch = progress.Watch()
    execute([write_jsonl(tmp_path / "in.jsonl", texts)], tmp_path / "out", counting=counting, watch=watch)
    assert counting.texts == texts[:6]
    assert (watch.counts.duplicates, watch.figures()["duplicate_share"]) == (34, 34 / 40)
    assert vectors(tmp_path / "out").tobytes() == expected(texts).tobytes()
    every = Counting()
    execute([tmp_path / "in.jsonl"], tmp_path / "all", counting=every, dedupe=False)
    assert every.texts == texts
    assert contents(tmp_path / "all") == contents(tmp_path / "out")


def test_where_neighbours_matter_parts_share_nothing(tmp_path: Path) -> None:
    """A resumed run would else have other neighbours than the first one had."""
    counting = Counting()
    model = encoder(counting, invariant=False)
    execute([write_jsonl(tmp_path / "in.jsonl", ["a", "a", "b", "c", "a", "d"])], tmp_path / "out", model=model)
    assert counting.texts == ["a", "b", "c", "a", "d"]


def test_few_vectors_are_remembered() -> None:
    remembered = Remembered(2, np.float32, size=3 * 208)
    for k in range(5):
        remembered.put(bytes([k]), np.full(2, k))
    assert [remembered.get(bytes([k])) is not None for k in range(5)] == [False, False, True, True, True]
    assert remembered.get(b"\x03").tolist() == [3.0, 3.0]


def test_vectors_are_kept_between_runs_by_fingerprint(tmp_path: Path) -> None:
    def run(texts: list[str], fingerprint: str = "a-model") -> list[str]:
        counting = Counting()
        cache = Cache(tmp_path / "cache", fingerprint, 4, np.float32)
        model = encoder(counting, fingerprint=fingerprint)
        execute(
            [write_jsonl(tmp_path / "in.jsonl", texts)],
            tmp_path / "out",
            model=model,
            cache=cache,
            force=True,
            resume=False,
        )
        cache.close()
        assert vectors(tmp_path / "out").tobytes() == expected(texts).tobytes()
        return counting.texts

    assert run(["a", "b", "ü"]) == ["a", "b", "ü"]
    assert run(["b", "c", "ü"]) == ["c"]
    assert run(["a", "c"]) == []
    assert run(["a"], "another") == ["a"]
    for path in (tmp_path / "cache").glob("*.sqlite"):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
        connection.close()
    assert run(["a", "b"]) == ["a", "b"]  # damaged ones are missing
    assert run(["a", "b"]) == []


def test_a_cache_that_is_no_database_is_refused(tmp_path: Path) -> None:
    Cache(tmp_path, "f", 4, np.float32).close()
    (path,) = tmp_path.glob("*.sqlite")
    path.write_bytes(b"nothing" * 1000)
    with pytest.raises(InvalidInputError, match=r"--cache .*name another directory, or remove"):
        Cache(tmp_path, "f", 4, np.float32)


def test_texts_are_shortened_and_encoded_whole_where_that_was_too_short() -> None:
    counting = Counting()
    made = encoder(counting, shorten=lambda text: text if len(text) < 9 else text[:8], max_length=3)
    encoding = Encoding(made)
    found: list[Any] = [None] * 3
    faults = encoding.vectors(dict(enumerate(["a b c d e f g", "short", "aaaaaaaaaaaa bb"])), found)
    assert counting.texts == ["a b c d ", "short", "aaaaaaaa", "aaaaaaaaaaaa bb"]
    assert [vector.tolist() for vector in found] == expected(["a b c d ", "short", "aaaaaaaaaaaa bb"]).tolist()
    assert not faults
    assert encoding.counts.shortened == 2


# What is told.


def test_figures_and_files_of_them(tmp_path: Path, source: Path) -> None:
    for name in ("figures.json", "figures.prom"):
        watch = progress.Watch()
        with progress.Telling(watch, quiet=True, file=tmp_path / name):
            execute([source], tmp_path / name.replace(".", "-"), watch=watch)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["rows"], figures["parts"], figures["tokens"]) == (30, 8, 90)
    assert figures["bytes_read"] == source.stat().st_size
    assert figures["seconds_left"] == 0
    lines = (tmp_path / "figures.prom").read_text().splitlines()
    assert "fastembed_rt_embed_rows 30" in lines
    assert "# TYPE fastembed_rt_embed_rows gauge" in lines


def test_padding_is_counted_with_the_batches_that_run() -> None:
    made = encoder(padded=lambda lengths: max(lengths) * len(lengths))
    encoding = Encoding(made)
    encoding.vectors({0: "one", 1: "one two three"}, [None, None])
    assert (encoding.counts.tokens, encoding.counts.slots) == (4, 6)
    watch = progress.Watch(counts=encoding.counts)
    assert watch.figures()["padding_share"] == pytest.approx(1 / 3)


def test_a_line_each_so_many_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = progress.Watch(total_rows=10)
    watch.counts.rows = 5
    with progress.Telling(watch, every=0.05):
        time.sleep(0.4)
    said = capsys.readouterr().err.splitlines()
    assert 1 <= len(said) <= 8
    assert said[0].startswith("5 of 10 rows, ")
    assert "left" in said[0]
    assert progress.duration(3723) == "1:02:03"
    assert progress.duration(59.7) == "01:00"


def test_every_option_decides_what_a_resumed_run_must_have() -> None:
    """A new option that is forgotten in `described` would let two kinds of parts into one job."""
    from bulk_jobs import options

    described = options().described()
    own = {field.name for field in dataclasses.fields(options())} - {
        "dialect",
        "template",
        "chosen",
        "format",
        "rank",
        "world",
    }
    dialect = {field.name for field in dataclasses.fields(Dialect())}
    assert set(described) == own | dialect | {"column", "columns", "shard_format"}
