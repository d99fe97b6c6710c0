"""What a resumed run has in common with the first (model, options, inputs), and parts that are not what they were."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bulk_jobs import BAD, TEXTS, Counting, encoder, execute, expected, vectors, write_jsonl
from exports import contents

from fastembed_rt.bulk import job, run
from fastembed_rt.bulk.columns import Template
from fastembed_rt.bulk.parts import parts as cut
from fastembed_rt.bulk.readers import Dialect
from fastembed_rt.bulk.store import Directory
from fastembed_rt.errors import InvalidInputError, OutputExistsError


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


def test_parts_that_are_there_are_looked_at_when_the_model_has_its_first_texts(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, store = tmp_path / "out", Directory(tmp_path / "out")
    execute([source], out)
    complete = job.Complete.read(store)
    assert complete is not None
    complete.reopen(store)
    job.Progressed(store, 0, 1).remove_record(6)
    store.remove(f"{job.WORK}/00000-of-00001/{job.DONE}")
    order: list[str] = []
    whole = job.Progressed.is_sound

    def looked_at(progressed: job.Progressed, record: job.PartRecord) -> bool:
        order.append(f"part {record.number}")
        return whole(progressed, record)

    def parts(*arguments: Any) -> Iterator[Any]:
        time.sleep(0.2)  # a reader that takes its time
        order.append("read")
        yield from cut(*arguments)

    monkeypatch.setattr(run, "parts", parts)
    monkeypatch.setattr(job.Progressed, "is_sound", looked_at)
    execute([source], out)
    assert order == ["read", *(f"part {k}" for k in (0, 1, 2, 3, 4, 5, 7))]


def test_a_damaged_list_of_rejects_is_made_anew(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD])
    execute([source], tmp_path / "out", on_error="skip")
    wanted = contents(tmp_path / "out")
    (tmp_path / "out" / job.REJECTS).write_text("{}\n")
    execute([source], tmp_path / "out", on_error="skip")
    assert contents(tmp_path / "out") == wanted
