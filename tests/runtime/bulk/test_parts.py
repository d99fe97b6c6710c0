"""Parts of a job: every row in order with its vector, and where a part ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.dataset
import pytest
from bulk_jobs import TEXTS, execute, expected, table, vectors
from exports import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fastembed_rt.bulk import job, parts
from fastembed_rt.bulk.columns import Template


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
