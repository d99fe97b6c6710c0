"""Jobs into real stores and out of real ones: `make sinks` makes an environment with their packages and runs this.

FASTEMBED_RT_SINKS names its Python. LanceDB, DuckDB and Qdrant are folders of a test, S3 is moto's server on loopback,
PostgreSQL a cluster of its own where the machine has one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_jobs import table, vectors, write_jsonl
from checkpoints import WORDS, save_sentence_transformers
from exports import quick

from fastembed_rt import EmbeddingModel

PYTHON = os.environ.get("FASTEMBED_RT_SINKS", "")
ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
TEXTS = [f"{WORDS[k % len(WORDS)]} {WORDS[k * 7 % len(WORDS)]} {k}" for k in range(40)]
POSTGRES = next((folder for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)

pytestmark = [
    pytest.mark.sinks,
    pytest.mark.skipif(not PYTHON, reason="FASTEMBED_RT_SINKS is unset: make sinks"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sinks")
    quick(save_sentence_transformers(root / "checkpoint"), root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def wanted(directory: Path) -> Any:
    with EmbeddingModel(directory) as model:
        return model.encode(TEXTS)


def script(*words: object, given: str = "", **environment: str) -> str:
    """What a command of the environment prints; it must not fail."""
    done = subprocess.run(
        [PYTHON, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def embed(directory: Path, *words: object, **environment: str) -> str:
    return script("-m", "fastembed_rt", "embed", directory, *words, "--threads", "1", **environment)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a database of PostgreSQL's own user, where there is one."""
    if POSTGRES is None:
        pytest.skip("there is no PostgreSQL in /usr/lib/postgresql")
    folder = Path(tempfile.mkdtemp(prefix="fastembed-rt-postgres-"))
    user = "postgres" if os.geteuid() == 0 else None  # who may not be root
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*words: str) -> None:
        subprocess.run(words, check=True, user=user, cwd=folder, timeout=120, stdout=subprocess.DEVNULL)

    try:
        run(str(POSTGRES / "initdb"), "-D", str(folder / "data"), "-U", "tester", "-A", "trust")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(
            str(POSTGRES / "pg_ctl"),
            "-D",
            str(folder / "data"),
            "-o",
            options,
            "-l",
            str(folder / "log"),
            "-w",
            "start",
        )
        yield f"tester@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            run(str(POSTGRES / "pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def places(store: str, folder: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The URL for --to, and what rows_of.py takes."""
    if store == "postgresql":
        address = request.getfixturevalue("postgres")
        return f"postgresql://{address}/docs", f"postgresql://{address}#docs"
    place = {"duckdb": folder / "in.duckdb", "lancedb": folder / "lance", "qdrant": folder / "qdrant"}[store]
    return f"{store}://{place}/docs", f"{place}/docs"


@pytest.mark.parametrize("store", ["duckdb", "lancedb", "qdrant", "postgresql"])
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
    found = json.loads(script(SCRIPTS / "rows_of.py", store, place))
    rows = sorted(found["rows"])
    assert [key for key, _ in rows] == [*range(40)]
    there = np.array([vector for _, vector in rows], np.float32)
    if store == "qdrant":  # which normalizes once more for cosine
        np.testing.assert_allclose(there, wanted, atol=1e-6)
    else:
        assert there.tobytes() == wanted.tobytes()
    dim = wanted.shape[1]
    kinds = {"duckdb": f"FLOAT[{dim}]", "lancedb": f"fixed_size_list<item: float>[{dim}]", "qdrant": str(dim)}
    assert found["kind"] == kinds.get(store, "real[]")


def test_pgvector_is_used_where_it_is_and_named_where_it_is_not(
    directory: Path, wanted: Any, tmp_path: Path, postgres: str
) -> None:
    assert POSTGRES is not None
    source = write_jsonl(tmp_path / "in.jsonl", TEXTS)
    words = ["embed", directory, source, "--shards", tmp_path / "job", "--to", f"pgvector://{postgres}/vectors"]
    done = subprocess.run(
        [PYTHON, "-m", "fastembed_rt", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if done.returncode:
        assert "without pgvector, postgresql:// writes arrays of real" in done.stderr
        assert "tester@" not in done.stderr
        return
    found = json.loads(script(SCRIPTS / "rows_of.py", "postgresql", f"postgresql://{postgres}#vectors"))
    assert found["kind"] == "vector"
    assert np.array([vector for _, vector in sorted(found["rows"])], np.float32).tobytes() == wanted.tobytes()


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
