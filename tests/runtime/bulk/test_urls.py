"""Object stores by fsspec: inputs and parts at URLs, of a store in memory and of this machine's files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from bulk_jobs import BAD, execute, expected, write_jsonl
from exports import contents
from pyarrow import parquet

from fastembed_rt.bulk import extras, job
from fastembed_rt.bulk.merge import merge
from fastembed_rt.bulk.store import Directory, ObjectStore, open_store
from fastembed_rt.errors import InvalidInputError, MissingDependencyError

TEXTS = [f"text {k}" for k in range(10)]


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def objects(system: Any, root: str) -> dict[str, bytes]:
    return {name.split(f"{root}/", 1)[1]: system.cat_file(name) for name in system.find(root)}


def put_parquet(system: Any, name: str) -> None:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": TEXTS}), stream, row_group_size=3)
    system.pipe_file(name, stream.getvalue())


@pytest.mark.parametrize("given", ["memory://bucket/in", "memory://bucket/in/*.jsonl", "memory://bucket/in/a.jsonl"])
def test_inputs_and_parts_are_objects(memory: Any, tmp_path: Path, given: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    memory.pipe_file("/bucket/in/a.jsonl", source.read_bytes())
    execute([given], "memory://bucket/out")
    execute([source], tmp_path / "out")
    there, here = objects(memory, "/bucket/out"), contents(tmp_path / "out")
    assert {k: v for k, v in there.items() if k != job.MANIFEST} == {k: v for k, v in here.items() if k != job.MANIFEST}
    execute([given], "memory://bucket/out")
    memory.pipe_file("/bucket/out/part-00000-000001.parquet", b"damaged")
    execute([given], "memory://bucket/out")
    assert objects(memory, "/bucket/out") == there
    memory.pipe_file("/bucket/in/a.jsonl", source.read_bytes()[:-20] + b"\n")
    with pytest.raises(InvalidInputError, match=r"a\.jsonl changed since|JSON"):
        execute([given], "memory://bucket/out")


def test_ranks_share_objects_and_are_merged(memory: Any) -> None:
    put_parquet(memory, "/bucket/in.parquet")
    for rank in range(3):
        execute(["memory://bucket/in.parquet"], "memory://bucket/out", rank=rank, world=3)
    merge([open_store("memory://bucket/out")])
    found = [parquet.read_table(io.BytesIO(memory.cat_file(name))) for name in memory.glob("/bucket/out/part-*")]
    merged = pyarrow.concat_tables(found)
    assert merged.column("text").to_pylist() == TEXTS
    assert merged.column("embedding").to_pylist() == expected(TEXTS).tolist()


def test_large_objects_are_known_by_what_their_store_says(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastembed_rt.bulk import inputs

    monkeypatch.setattr(inputs, "HASHED_WHOLE", 10)
    put_parquet(memory, "/bucket/in.parquet")
    execute(["memory://bucket/in.parquet"], "memory://bucket/out")
    execute(["memory://bucket/in.parquet"], "memory://bucket/out")
    put_parquet(memory, "/bucket/in.parquet")  # the same bytes at another time
    with pytest.raises(InvalidInputError, match="changed since"):
        execute(["memory://bucket/in.parquet"], "memory://bucket/out")


def test_files_of_this_machine_by_their_url(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS, BAD])
    execute([source.as_uri()], (tmp_path / "out").as_uri(), on_error="skip")
    assert (tmp_path / "out" / job.SUCCESS).exists()
    assert isinstance(open_store((tmp_path / "out").as_uri()), Directory)


class Slow(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
    """A store that shows an object while it is written, as SFTP does."""

    protocol = "slow"


def test_where_half_an_object_would_show_it_gets_its_name_by_a_move(memory: Any) -> None:
    store = ObjectStore(Slow(), "/bucket", "slow://bucket")
    store.write("a/part-1", b"one")
    assert (store.names("a"), store.read("a/part-1"), store.folders()) == (["part-1"], b"one", ["a"])
    memory.pipe_file("/bucket/a/.part-1.0123abcd.unfinished", b"ha")
    store.remove_unfinished("a")
    assert store.names("a") == ["part-1"]
    store.remove_folder("a")
    assert (store.read("a/part-1"), store.digest("a/part-1"), store.names("a")) == (None, None, [])


def test_a_write_that_arrives_short_is_noticed(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory://bucket")
    monkeypatch.setattr(type(memory), "size", lambda self, path: 2)
    with pytest.raises(OSError, match="has 2 bytes after 3 were written"):
        store.write("name", b"abc")


def test_a_url_of_a_package_that_is_missing_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="nothing://bucket cannot be opened"):
        open_store("nothing://bucket")
    with pytest.raises(
        MissingDependencyError, match=r"a thing needs no_such_package.*pip install 'fastembed-rt\[bulk\]'"
    ):
        extras.required("no_such_package", "a thing")
    with pytest.raises(InvalidInputError, match="does not exist"):
        execute([(tmp_path / "none.txt").as_uri()], tmp_path / "out")


def test_an_object_of_an_unknown_size_is_refused_whose_rows_would_be_missing(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server has it that sends no Content-Length."""
    memory.pipe_file("/bucket/in.jsonl", write_jsonl(tmp_path / "in.jsonl", TEXTS).read_bytes())
    monkeypatch.setattr(type(memory), "size", lambda *_: None)
    with pytest.raises(InvalidInputError, match=r"in\.jsonl: its server does not say how many bytes it has"):
        execute(["memory://bucket/in.jsonl"], tmp_path / "out")
