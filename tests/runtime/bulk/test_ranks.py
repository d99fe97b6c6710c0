"""Ranks of a job, and what merging them refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bulk_jobs import BAD, TEXTS, Counting, encoder, execute, expected, rejects, table, vectors, write_jsonl
from exports import contents

from fastembed_rt.bulk import job
from fastembed_rt.bulk.merge import merge
from fastembed_rt.bulk.store import Directory, open_store
from fastembed_rt.errors import InvalidInputError, OutputExistsError


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


@pytest.mark.parametrize("bad_rank", [0, 1])
def test_a_rank_without_a_bad_row_goes_with_one_that_was_resumed_without_it(tmp_path: Path, bad_rank: int) -> None:
    """As the message at the bad row says; which of the ranks met it makes no difference."""
    texts = [*TEXTS, BAD] if bad_rank else [BAD, *TEXTS]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    execute([source], tmp_path / "out", rank=1 - bad_rank, world=2)
    with pytest.raises(InvalidInputError, match="--on-error skip or null"):
        execute([source], tmp_path / "out", rank=bad_rank, world=2)
    execute([source], tmp_path / "out", rank=bad_rank, world=2, on_error="skip")
    merge([open_store(str(tmp_path / "out"))])
    for rank in range(2):
        execute([source], tmp_path / "whole", rank=rank, world=2, on_error="skip")
    merge([open_store(str(tmp_path / "whole"))])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"on_error": "skip"}, {"on_error": "null"}, "--on-error changed"),
        ({"on_error": "skip"}, {"on_null": "zero"}, "--on-null changed"),
        ({"on_null": "zero"}, {"on_null": "empty"}, "--on-null changed"),
    ],
)
def test_ranks_that_took_rows_differently_are_not_merged(
    tmp_path: Path, source: Path, first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    for rank, taken in enumerate((first, second)):
        execute([source], tmp_path / "out", rank=rank, world=2, **taken)
    with pytest.raises(InvalidInputError, match=said):
        merge([open_store(str(tmp_path / "out"))])


def test_ranks_that_wrote_into_a_database_are_joined_elsewhere(tmp_path: Path) -> None:
    """Their parts have no files; what is brought over is what is known of them."""
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD])
    rows: list[int] = []

    class Sink:
        def write(self, part: int, table: Any) -> None:
            rows.extend(table.column("id").to_pylist())

        def close(self) -> None:
            """Nothing to do."""

    places = [tmp_path / f"out-{rank}" for rank in range(2)]
    for rank, place in enumerate(places):
        execute([source], place, rank=rank, world=2, on_error="skip", sink=lambda job, schema: Sink())
    stores = [open_store(str(place)) for place in places]
    for _ in range(2):
        _, parts = merge(stores, open_store(str(tmp_path / "goal")))
    assert sum(record.rows for rank in parts for record in rank) == len(rows) == len(TEXTS)
    assert json.loads((tmp_path / "goal" / job.MANIFEST).read_text())["rows"] == len(TEXTS)
    assert len(rejects(tmp_path / "goal")) == 1
    (tmp_path / "goal" / job.REJECTS).write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"part 3 in .* is damaged; run the job with --resume"):
        merge([open_store(str(tmp_path / "goal"))])
    (places[1] / "_embed/00001-of-00002/rejects-000003.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"part 3 in .* is damaged; resume rank 1"):
        merge(stores, open_store(str(tmp_path / "other")))


def test_one_rank_of_a_merged_job_is_begun_again_beside_the_others_parts(tmp_path: Path) -> None:
    source, out = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD]), tmp_path / "out"
    for rank in range(2):
        execute([source], out, rank=rank, world=2, on_error="skip")
    merge([open_store(str(out))])
    before = contents(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds notes\.txt"):
        execute([source], out, rank=0, world=2, on_error="skip", force=True, resume=False)
    (out / "notes.txt").unlink()
    assert contents(out) == before  # what is refused has removed nothing
    counting = Counting()
    execute([source], out, rank=0, world=2, on_error="skip", force=True, resume=False, counting=counting)
    assert counting.texts == TEXTS[: len(counting.texts)]
    assert 0 < len(counting.texts) < len(TEXTS)
    others = {name for name in before if name.startswith("part-00001")}
    assert others
    assert all(contents(out)[name] == before[name] for name in others)
    merge([open_store(str(out))])
    assert contents(out) == before


@pytest.mark.parametrize("merged", [True, False])
def test_a_job_of_another_number_of_ranks_is_begun_again_as_a_whole(tmp_path: Path, source: Path, merged: bool) -> None:
    for rank in range(3):
        execute([source], tmp_path / "out", rank=rank, world=3)
    if merged:
        merge([open_store(str(tmp_path / "out"))])
    for rank in (1, 0):
        execute([source], tmp_path / "out", rank=rank, world=2, force=True, resume=False)
        execute([source], tmp_path / "wanted", rank=rank, world=2)
    for name in ("out", "wanted"):
        merge([open_store(str(tmp_path / name))])
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")
