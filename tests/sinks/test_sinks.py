"""Jobs into real stores and out of real ones: `make sinks` makes an environment with their packages and runs this.

FASTEMBED_RT_SINKS names its Python. LanceDB, DuckDB and Qdrant are folders of a test, S3 is moto's server on loopback,
PostgreSQL with pgvector a cluster of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_jobs import table, vectors, write_jsonl
from sink_jobs import OTHER_POSTGRES, PYTHON, ROOT, SQL, TEXTS, cluster, embed, refused, run, script

from fastembed_rt import EmbeddingModel

SCRIPTS = Path(__file__).parent / "scripts"
MARKS = "fastembed_rt_parts"

pytestmark = [
    pytest.mark.sinks,
    pytest.mark.skipif(not PYTHON, reason="FASTEMBED_RT_SINKS is unset: make sinks"),
]


def places(store: str, folder: Path, request: pytest.FixtureRequest, name: str = "docs") -> tuple[str, str]:
    """The URL for --to, and what rows_of.py takes."""
    if store == "postgresql":
        address = request.getfixturevalue("postgres").address
        return f"postgresql://{address}/{name}", f"postgresql://{address}#{name}"
    if store == "pgvector":
        address = request.getfixturevalue("postgres").address
        return f"pgvector://{address}/{name}_vector", f"postgresql://{address}#{name}_vector"
    place = {"duckdb": folder / "in.duckdb", "lancedb": folder / "lance", "qdrant": folder / "qdrant"}[store]
    return f"{store}://{place}/{name}", f"{place}/{name}"


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "qdrant", "postgresql", "pgvector"])
def test_every_row_is_in_the_store_once_however_often_a_part_comes(
    store: str, directory: Path, wanted: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS, more=[{"tags": [str(k)]} for k in range(40)])
    url, place = places(store, tmp_path, request)
    words = [source, "--shards", tmp_path / "job", "--to", url, "--id-column", "id", "--part-rows", "7"]
    embed(directory, *words)
    assert not list((tmp_path / "job").glob("part-*"))
    assert (tmp_path / "job" / "_SUCCESS").exists()
    embed(directory, *words, "--force")  # as if the job had not been noted: all parts come again
    embed(directory, *words, "--resume")
    found = json.loads(script(SCRIPTS / "rows_of.py", "postgresql" if store == "pgvector" else store, place))
    rows = sorted(found["rows"])
    assert [key for key, _ in rows] == [*range(40)]
    there = np.array([vector for _, vector in rows], np.float32)
    if store == "qdrant":  # which normalizes once more for cosine
        np.testing.assert_allclose(there, wanted, atol=1e-6)
    else:
        assert there.tobytes() == wanted.tobytes()
    dim = wanted.shape[1]
    kinds = {"duckdb": f"FLOAT[{dim}]", "lancedb": f"fixed_size_list<item: float>[{dim}]", "qdrant": str(dim)}
    kinds |= {"postgresql": "real[]", "pgvector": "vector"}
    assert found["kind"] == kinds[store]


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "qdrant", "postgresql", "pgvector"])
def test_a_part_may_have_no_row_left(
    store: str, directory: Path, wanted: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS[:4], *[None] * 4, *TEXTS[8:10]])
    url, place = places(store, tmp_path, request, "left_out")
    words = ["--part-rows", "4", "--on-null", "skip", "--id-column", "id"]
    embed(directory, source, "--shards", tmp_path / "job", "--to", url, *words)
    found = json.loads(script(SCRIPTS / "rows_of.py", "postgresql" if store == "pgvector" else store, place))
    rows = dict(found["rows"])
    assert sorted(rows) == [0, 1, 2, 3, 8, 9]
    np.testing.assert_allclose([rows[k] for k in sorted(rows)], wanted[sorted(rows)], rtol=0, atol=1e-6)


def sql(store: str, place: str, statement: str) -> None:
    """A statement, in which {} is the table."""
    database, table = place.rsplit("/", 1) if store == "duckdb" else place.split("#")
    script("-c", DUCKDB if store == "duckdb" else SQL, database, statement.format(table))


DUCKDB = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(sys.argv[2])"


def ids(store: str, place: str) -> list[int]:
    found = json.loads(script(SCRIPTS / "rows_of.py", "postgresql" if store == "pgvector" else store, place))
    return sorted(key for key, _ in found["rows"])


@pytest.mark.parametrize("gone", ["DROP TABLE", "DELETE FROM"])
@pytest.mark.parametrize("store", ["duckdb", "postgresql", "pgvector"])
def test_a_table_that_was_dropped_or_emptied_is_filled_again(
    store: str, gone: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    url, place = places(store, tmp_path, request, f"gone_{gone[:4].lower()}")
    words = [source, "--shards", tmp_path / "job", "--to", url, "--part-rows", "7"]
    for rank in (0, 1):
        embed(directory, *words, "--rank", rank, "--world", 2)
    sql(store, place, f"{gone} {{}}")
    for rank in (1, 0):  # the second finds the rows of the first
        embed(directory, *words, "--rank", rank, "--world", 2, "--force")
    assert ids(store, place) == [*range(40)]
    embed(directory, *words, "--rank", 0, "--world", 2, "--force")
    assert ids(store, place) == [*range(40)]


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "qdrant", "postgresql", "pgvector"])
def test_a_part_whose_rows_are_taken_otherwise_now_is_replaced_or_refused(
    store: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS[:9], None, *TEXTS[10:]])
    url, place = places(store, tmp_path, request, "taken")
    words = [source, "--to", url, "--part-rows", "7", "--id-column", "id", "--shards"]
    embed(directory, *words, tmp_path / "job", "--on-null", "skip")
    without = [k for k in range(40) if k != 9]
    assert ids(store, place) == without
    if store in ("lancedb", "qdrant"):
        embed(directory, *words, tmp_path / "fresh", "--on-null", "empty")
        assert ids(store, place) == [*range(40)]
    else:
        for more in ([tmp_path / "fresh"], [tmp_path / "job", "--force"]):
            said = refused(directory, *words, *more, "--on-null", "empty")
            assert "part 0 is in taken" in said
            assert "with 7 rows (bad rows: fail, rows without a text: skip)" in said
            assert ids(store, place) == without
        sql(store, place, "DROP TABLE {}")
        embed(directory, *words, tmp_path / "job", "--on-null", "empty", "--force")
        assert ids(store, place) == [*range(40)]
    if store == "lancedb":
        embed(directory, *words, tmp_path / "job", "--on-null", "skip", "--force")
        assert ids(store, place) == without


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "postgresql"])
def test_a_job_that_ended_at_a_bad_row_goes_on_without_it(
    store: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*TEXTS[:30], None, *TEXTS[31:]])
    url, place = places(store, tmp_path, request, "goes_on")
    words = [source, "--to", url, "--part-rows", "7", "--shards", tmp_path / "job", "--resume"]
    assert "row 31" in refused(directory, *words)
    (tmp_path / "job" / "_embed" / "00000-of-00001" / "part-000002.json").unlink()  # its rows and their mark are there
    embed(directory, *words, "--on-error", "skip")
    assert ids(store, place) == [k for k in range(40) if k != 30]


@pytest.mark.parametrize("store", ["duckdb", "postgresql"])
def test_marks_of_an_earlier_version_are_understood(
    store: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    url, place = places(store, tmp_path, request, "earlier")
    words = [source, "--shards", tmp_path / "job", "--to", url, "--part-rows", "7"]
    embed(directory, *words)
    sql(
        store,
        place,
        f"CREATE TABLE earlier_marks AS SELECT mark FROM {MARKS}; DROP TABLE {MARKS}; "
        f"CREATE TABLE {MARKS} (mark varchar PRIMARY KEY); INSERT INTO {MARKS} SELECT mark FROM earlier_marks",
    )
    embed(directory, *words, "--force")
    assert ids(store, place) == [*range(40)]


def test_what_postgresql_does_not_take_is_named(
    directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, place = places("postgresql", tmp_path, request, "nul")
    for name, more in (("text", {}), ("tags", {"tags": [["a"], ["b"], ["c\0"]]})):
        texts = ["a", "b", "c"] if more else ["a", "b", "c\0"]
        source = write_jsonl(tmp_path / f"{name}.jsonl", texts, **more)
        words = [source, "--shards", tmp_path / name, "--to", f"{url}_{name}", "--part-rows", "2"]
        said = refused(directory, *words)
        assert f"part 1, row 1: column '{name}' holds a NUL character, which PostgreSQL does not take; " in said
        assert "Traceback" not in said
        sql("postgresql", f"{place}_{name}", "DROP TABLE {}")
        embed(directory, *words, "--columns", "id", "--force")
        assert ids("postgresql", f"{place}_{name}") == [0, 1, 2]


def test_a_row_without_an_id_is_no_point(directory: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"id": k, "text": TEXTS[k]}) + "\n" for k in range(3)) + '{"text": "a dog"}\n')
    words = [source, "--shards", tmp_path / "job", "--to", f"qdrant://{tmp_path}/points/docs"]
    assert "part 0, row 4: its id in column 'id' is None" in refused(directory, *words, "--id-column", "id")
    assert "--id-column key: there is no such column; there are id, text" in refused(
        directory, *words, "--id-column", "key"
    )
    embed(directory, *words, "--force")


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "pgvector"])
def test_a_job_killed_at_random_moments_brings_every_row_once(
    store: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    texts = [f"{TEXTS[k % len(TEXTS)]} {k}" for k in range(4000)]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    url, place = places(store, tmp_path, request, "killed")
    command = [PYTHON, "-m", "fastembed_rt", "embed", directory, source, "--shards", tmp_path / "job", "--to", url]
    command += ["--resume", "--part-rows", "50", "--threads", "1", "-q"]
    chance = random.Random(store)
    seen: list[int] = []
    for k in range(5):
        process = subprocess.Popen([*map(str, command)], env={**os.environ, "PYTHONPATH": str(ROOT)})
        records = tmp_path / "job" / "_embed" / "00000-of-00001"
        wanted, deadline = len(seen and list(records.glob("part-*.json"))) + k, time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(records.glob("part-*.json"))) >= wanted:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.wait()
        seen.append(len(list(records.glob("part-*.json"))))
    assert seen[-1] > seen[0], seen
    script(*command[1:])
    found = json.loads(script(SCRIPTS / "rows_of.py", "postgresql" if store == "pgvector" else store, place))
    rows = sorted(found["rows"])
    assert [key for key, _ in rows] == [*range(len(texts))]
    with EmbeddingModel(directory) as model:
        assert np.array([vector for _, vector in rows], np.float32).tobytes() == model.encode(texts).tobytes()


@pytest.mark.skipif(OTHER_POSTGRES is None, reason="there is no PostgreSQL in /usr/lib/postgresql")
def test_where_pgvector_is_missing_it_is_named_and_the_user_is_not(directory: Path, tmp_path: Path) -> None:
    assert OTHER_POSTGRES is not None
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    with cluster(OTHER_POSTGRES) as other:
        words = ["--shards", tmp_path / "job", "--to", f"pgvector://{other.address}/vectors"]
        done = run("-m", "fastembed_rt", "embed", directory, source, *words)
    if done.returncode == 0:
        pytest.skip("the machine's PostgreSQL has pgvector")
    assert "without pgvector, postgresql:// writes arrays of real" in done.stderr
    assert "tester@" not in done.stderr


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """Environment variables that lead s3:// to a server of this test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [PYTHON, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            time.sleep(0.1)
        environment = {
            "FSSPEC_S3_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        script("-c", "import s3fs; s3fs.S3FileSystem().mkdir('bucket')", **environment)
        yield environment
    finally:
        server.kill()
        server.wait()


def test_inputs_and_parts_on_s3(directory: Path, wanted: Any, tmp_path: Path, s3: dict[str, str]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    copy = "import s3fs, sys; s3fs.S3FileSystem().put(sys.argv[1], sys.argv[2], recursive=True)"
    script("-c", copy, source, "bucket/in/in.jsonl", **s3)
    words = ["s3://bucket/in", "--shards", "s3://bucket/out", "--part-rows", "7"]
    for rank in (0, 1):
        embed(directory, *words, "--rank", rank, "--world", 2, **s3)
    break_one = "import s3fs; s3fs.S3FileSystem().pipe('bucket/out/part-00001-000001.parquet', b'no')"
    script("-c", break_one, **s3)
    embed(directory, *words, "--rank", 1, "--world", 2, "--resume", **s3)
    script("-m", "fastembed_rt", "embed", "merge", "s3://bucket/out", **s3)
    fetch = "import s3fs, sys; s3fs.S3FileSystem().get('bucket/out', sys.argv[1], recursive=True)"
    script("-c", fetch, tmp_path / "got", **s3)
    (out,) = [path.parent for path in (tmp_path / "got").rglob("_SUCCESS")]
    assert table(out).column("text").to_pylist() == TEXTS
    assert vectors(out).tobytes() == wanted.tobytes()


def test_datasets_saved_to_disk(directory: Path, wanted: Any, tmp_path: Path) -> None:
    script(SCRIPTS / "datasets_on_disk.py", tmp_path, given=json.dumps(TEXTS))
    for name, rows in (("plain", [*range(40)]), ("selected", [4, 3, 2, 1]), ("splits/train", [*range(40)])):
        embed(directory, tmp_path / name, "--shards", tmp_path / f"out-{rows[0]}-{len(name)}")
        assert vectors(tmp_path / f"out-{rows[0]}-{len(name)}").tobytes() == wanted[rows].tobytes()


def test_a_query_on_duckdb_is_resumed(directory: Path, wanted: Any, tmp_path: Path) -> None:
    script(SCRIPTS / "duckdb_file.py", tmp_path / "in.duckdb", given=json.dumps(TEXTS))
    words = ["--sql", "SELECT * FROM notes ORDER BY n DESC", "--column", "body", "--part-rows", "7"]
    embed(directory, tmp_path / "in.duckdb", "--shards", tmp_path / "out", *words)
    (tmp_path / "out" / "part-00000-000003.parquet").unlink()
    embed(directory, tmp_path / "in.duckdb", "--shards", tmp_path / "out", *words, "--resume")
    assert vectors(tmp_path / "out").tobytes() == wanted[::-1].tobytes()
    assert table(tmp_path / "out").column_names == ["n", "body", "made", "tags", "embedding"]


def test_duckdbs_log_is_of_its_input_and_may_be_written_back(directory: Path, wanted: Any, tmp_path: Path) -> None:
    database, out, late = tmp_path / "in.duckdb", tmp_path / "out", "a dog runs late"
    script(SCRIPTS / "duckdb_file.py", database, given=json.dumps(TEXTS[:-1]))
    row = f"(39, '{TEXTS[-1]}', '2020-01-01', ['a'])"
    script(SCRIPTS / "duckdb_log.py", database, f"INSERT INTO notes VALUES {row}")
    log = database.with_name("in.duckdb.wal")
    assert log.stat().st_size
    words = [database, "--shards", out, "--sql", "SELECT * FROM notes ORDER BY n", "--column", "body"]
    words += ["--part-rows", "7"]
    embed(directory, *words)
    for written_back in (False, True):
        (out / "part-00000-000003.parquet").unlink()
        if written_back:
            script(SCRIPTS / "duckdb_log.py", database)
            assert not log.exists() or not log.stat().st_size
        embed(directory, *words, "--resume")
        assert vectors(out).tobytes() == wanted.tobytes()
    script(SCRIPTS / "duckdb_log.py", database, f"UPDATE notes SET body = '{late}' WHERE n = 5")
    (out / "part-00000-000003.parquet").unlink()
    with pytest.raises(AssertionError, match=r"changed since \(rows_sha256\)"):
        embed(directory, *words, "--resume")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_duckdb_opens_and_writes_nothing_into_is_refused(
    directory: Path, tmp_path: Path, ending: str
) -> None:
    """DuckDB 2 shows the rows of such a file, and keeps what is new in memory."""
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    other = tmp_path / f"other.{ending}"
    script("-c", f"import duckdb; duckdb.sql('SELECT 1 AS a').{WRITTEN[ending]}({str(other)!r})")
    before = other.read_bytes()
    said = refused(directory, source, "--shards", tmp_path / "job", "--to", f"duckdb://{other}/docs")
    assert "DuckDB" in said
    assert other.read_bytes() == before
    said = refused(directory, source, "--shards", tmp_path / "memory", "--to", "duckdb://:memory:/docs")
    assert ":memory: is no database of DuckDB, to keep rows" in said


WRITTEN = {"csv": "write_csv", "parquet": "write_parquet"}


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "qdrant"])
def test_what_does_not_fit_a_table_is_refused_before_a_part_is_made(
    store: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    to, place = places(store, tmp_path, request)
    embed(directory, source, "--shards", tmp_path / "first", "--to", to, "--id-column", "id")
    said = refused(directory, source, "--shards", tmp_path / "cut", "--to", to, "--truncate-dim", "8")
    others = {"duckdb": "FLOAT[24], these would be FLOAT[8]", "qdrant": "other vectors than 8 numbers"}
    others["lancedb"] = "fixed_size_list<item: float>[24], these would be fixed_size_list<item: float>[8]"
    assert f"{others[store]}; name another " in said
    if store != "qdrant":  # which has no columns
        more = write_jsonl(tmp_path / "more.jsonl", TEXTS, more=[1] * len(TEXTS))
        said = refused(directory, more, "--shards", tmp_path / "more", "--to", to)
        assert "has no column 'more'; name another table" in said
    assert ids(store, place) == [*range(40)]


def test_a_server_that_is_not_there_is_said_in_a_sentence(directory: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        words = [source, "--resume", "--shards"]
        to = f"qdrant://127.0.0.1:{port}/docs"
        said = refused(directory, *words, tmp_path / "qdrant", "--to", to, code=1)
        assert "--to cannot be opened (ResponseHandlingException: [Errno 111] Connection refused)" in said
        to = f"pgvector://me:secret@localhost:{port}/db/docs"
        said = refused(directory, *words, tmp_path / "postgres", "--to", to)
    assert f"--to pgvector://localhost:{port}/db/docs: " in said
    assert "Connection refused" in said
    assert "secret" not in said


def test_columns_that_a_store_does_not_keep_are_refused_by_name(directory: Path, tmp_path: Path) -> None:
    odd = write_jsonl(tmp_path / "odd.jsonl", TEXTS, meta=[{"inner": {}}] * len(TEXTS))
    said = refused(directory, odd, "--shards", tmp_path / "job", "--to", f"lancedb://{tmp_path / 'lance'}/docs")
    assert "column 'meta' (struct<inner: struct<>>) is none that LanceDB keeps" in said
    script("-c", "import pyarrow, pyarrow.parquet as files; " + MADE, tmp_path / "in.parquet")
    to = f"qdrant://{tmp_path / 'qdrant'}/docs"
    said = refused(directory, tmp_path / "in.parquet", "--shards", tmp_path / "bytes", "--to", to)
    assert "column 'raw' holds binary, and payloads of Qdrant hold no bytes; choose others with --columns" in said


MADE = "import sys; files.write_table(pyarrow.table({'text': ['a'], 'raw': [b'b']}), sys.argv[1])"
