"""The scripts of docs/scale.md, each in its engine, on 20,000 rows of Parquet and two cores. `make scale` runs this.

FASTEMBED_RT_SCALE names the folder of environments. Each script runs as it stands on the page, in a directory with
`my-model` and `texts`; hooks/sitecustomize.py watches the processes that the engine starts, and kills one where a test
asks for that. With FASTEMBED_RT_REAL, a folder that has minilm, that checkpoint in INT8 is `my-model`.
FASTEMBED_RT_SCALE_TABLE names a file that gets a line for each engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoints import save_sentence_transformers
from exports import quick

from fastembed_rt import EmbeddingModel

ROOT = Path(__file__).parents[2]
HOOKS = Path(__file__).with_name("hooks")
FOLDER = os.environ.get("FASTEMBED_RT_SCALE")
REAL = Path(os.environ.get("FASTEMBED_RT_REAL", ".")) / "minilm"
ROWS, FILES, CORES = 20_000, 4, 2
WORDS = (
    "the dog house red old tree river light cat sleeps runs quickly under new where is a of and in city night".split()
)
RETRIED, FAILS, WITHIN = "retried", "fails", "within"  # what becomes of a killed worker; WITHIN: there is none

pytestmark = [
    pytest.mark.scale,
    pytest.mark.skipif(FOLDER is None, reason="FASTEMBED_RT_SCALE names no folder of environments: make scale"),
]


@dataclass(frozen=True)
class Engine:
    environment: str
    killed: str
    package: str
    processes: int | None = None  # that embed; None: what the engine pleases
    variables: dict[str, str] = field(default_factory=dict)


ENGINES = {
    # Ray gives its workers the least priority, which on a busy machine is none.
    "Ray Data": Engine("engines", RETRIED, "ray", variables={"RAY_worker_niceness": "0"}),
    "Spark": Engine("engines", RETRIED, "pyspark"),
    "Dask": Engine("engines", RETRIED, "dask"),
    "Daft": Engine("engines", WITHIN, "daft"),
    "datasets": Engine("engines", FAILS, "datasets", processes=2),
    "polars": Engine("engines", WITHIN, "polars", processes=1),
    "Beam": Engine("beam", FAILS, "apache-beam", processes=2),  # its direct runner tries nothing twice
    # As on a cluster; by itself, a local Flink calls back into the process of the script.
    "Flink": Engine("flink", RETRIED, "apache-flink", variables={"_python_worker_execution_mode": "process"}),
}
# Engines that bring a model's files, by their module and what `send` takes before the Embed.
SENDERS = {"Ray Data": ("ray", ""), "Spark": ("spark", "spark, "), "Dask": ("dask", "client, ")}
# snappy-java takes some systems for others and then has no library: both sides write zstd.
SPARK = "spark.sql.parquet.compression.codec zstd\nspark.ui.enabled false\nspark.log.level ERROR\n"


@dataclass(frozen=True)
class Case:
    model: Path
    texts: Path
    wanted: np.ndarray[Any, Any]


def script(engine: str) -> str:
    """The first block of Python below a heading."""
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(engine)}\n.*?^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, engine
    return found[1]


def sending(engine: str, code: str) -> str:
    """The script with the model sent, whose directory is gone before anybody works."""
    module = f"fastembed_rt.scale.{SENDERS[engine][0]}"
    code = code.replace(f"from {module} import apply\n", f"import shutil\nfrom {module} import apply, send\n")
    made = 'Embed("my-model", into="vector")'
    assert code.count(made) == 1
    line = next(line for line in code.splitlines() if made in line)
    indent = line[: len(line) - len(line.lstrip())]
    before = f'{indent}sent = send({SENDERS[engine][1]}{made})\n{indent}shutil.rmtree("my-model")\n'
    return code.replace(line, before + line.replace(made, "sent"))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    work = tmp_path_factory.mktemp("scale")
    real = REAL.is_dir()
    quick(REAL if real else save_sentence_transformers(work / "tiny"), work / "model", precisions=("int8",))
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.choice((3, 5, 8, 12, 20)))) + f" {k}" for k in range(ROWS)]
    (work / "texts").mkdir()
    each = ROWS // FILES
    for k in range(FILES):
        rows = range(k * each, (k + 1) * each)
        table = pa.table({"id": list(rows), "text": [texts[row] for row in rows]})
        pq.write_table(table, work / f"texts/part-{k}.parquet", row_group_size=each // 2, compression="zstd")
    lines = [json.dumps({"id": k, "text": text}) for k, text in enumerate(texts)]
    (work / "texts.jsonl").write_text("\n".join(lines) + "\n")
    with EmbeddingModel(work / "model") as model:
        return Case(work / "model", work / "texts", model.encode(texts))


@dataclass
class Run:
    """One run of an engine's script."""

    directory: Path
    done: subprocess.CompletedProcess[str]

    @property
    def batches(self) -> list[dict[str, Any]]:
        """What the watched processes wrote down."""
        files = sorted((self.directory / "watch").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def vectors(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """(ids, vectors) as they were written."""
        files = [file for file in sorted(self.directory.glob("vectors*")) if file.is_file()]
        files += [file for file in sorted((self.directory / "vectors").rglob("*")) if file.is_file()]
        parts = [pq.read_table(file, columns=["id", "vector"]) for file in files if file.suffix == ".parquet"]
        if not parts:
            kept = [file for file in files if not file.name.startswith((".", "_"))]
            rows = [json.loads(line) for file in kept for line in file.read_text().splitlines()]
            return np.array([row["id"] for row in rows]), np.array([row["vector"] for row in rows], np.float32)
        ids = np.concatenate([np.asarray(part["id"]) for part in parts])
        flat = np.concatenate([np.asarray(part["vector"].combine_chunks().flatten()) for part in parts])
        return ids, flat.reshape(len(ids), -1)


def run(engine: str, case: Case, directory: Path, *, kill: bool = False, send: bool = False) -> Run:
    row = ENGINES[engine]
    code = script(engine)
    assert FOLDER is not None
    python = Path(FOLDER) / row.environment / "bin/python"
    if send:
        code = sending(engine, code)
        shutil.copytree(case.model, directory / "my-model")
    else:
        (directory / "my-model").symlink_to(case.model)
    (directory / "texts").symlink_to(case.texts)
    (directory / "texts.jsonl").symlink_to(case.texts.with_suffix(".jsonl"))
    for name in ("watch", "spark"):
        (directory / name).mkdir()
    (directory / "spark/spark-defaults.conf").write_text(SPARK)
    if kill:
        (directory / "watch/kill").touch()
    (directory / "script.py").write_text(code)
    environment = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(HOOKS), str(ROOT))),
        "FASTEMBED_RT_WATCH": str(directory / "watch"),
        "PYSPARK_PYTHON": str(python),
        "SPARK_CONF_DIR": str(directory / "spark"),
        "HF_HOME": str(directory / "cache"),
        **row.variables,
    }
    environment.pop("OMP_NUM_THREADS", None)
    process = subprocess.Popen(
        [python, "script.py"],
        cwd=directory,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=500)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
    return Run(directory, subprocess.CompletedProcess([], process.returncode, out, err))


def check(found: Run, case: Case) -> None:
    """Every row once, with the bits that `encode` gives."""
    assert found.done.returncode == 0, found.done.stderr[-4000:]
    ids, vectors = found.vectors()
    order = np.argsort(ids, kind="stable")
    np.testing.assert_array_equal(ids[order], np.arange(ROWS))
    np.testing.assert_array_equal(vectors[order], case.wanted)


def note(line: str) -> None:
    print(line, file=sys.stderr)
    if table := os.environ.get("FASTEMBED_RT_SCALE_TABLE"):
        with Path(table).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_script_of_the_page(engine: str, case: Case, tmp_path: Path) -> None:
    found = run(engine, case, tmp_path)
    check(found, case)
    batches = found.batches
    threads = {batch["pid"]: batch["threads"] for batch in batches}
    assert ENGINES[engine].processes in (None, len(threads))
    # At no time do models at work have more threads than there are cores, nor use more.
    for batch in batches:
        beside = {other["pid"] for other in batches if other["begun"] <= batch["begun"] <= other["ended"]}
        assert sum(threads[pid] for pid in beside) <= CORES, batches
        assert batch["cpu"] <= (batch["threads"] + 0.5) * batch["wall"] + 0.2, batch
    span = max(batch["ended"] for batch in batches) - min(batch["begun"] for batch in batches)
    python = Path(FOLDER or "") / ENGINES[engine].environment / "bin/python"
    code = f"from importlib.metadata import version; print(version('{ENGINES[engine].package}'))"
    version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    cpu = sum(batch["cpu"] for batch in batches)
    note(
        f"| {engine} | {version} | {ROWS / span:,.0f} | {len(threads)} x {max(threads.values())} | {len(batches)} "
        f"| {cpu:.1f} | yes |"
    )


@pytest.mark.parametrize("engine", [name for name, row in ENGINES.items() if row.killed != WITHIN])
def test_a_worker_that_is_killed(engine: str, case: Case, tmp_path: Path) -> None:
    """In the middle of its work; the engine starts another, and no row is missing or there twice; or it says so."""
    found = run(engine, case, tmp_path, kill=True)
    killed = [file.name for file in (tmp_path / "watch").glob("killed-*")]
    assert len(killed) == 1, found.done.stderr[-4000:]
    pid = int(killed[0].partition("-")[2])
    assert sum(batch["pid"] == pid for batch in found.batches) == 1
    if ENGINES[engine].killed == FAILS:
        assert found.done.returncode != 0
        assert re.search("abruptly died|Channel closed", found.done.stderr)
    else:
        check(found, case)
        assert len({batch["pid"] for batch in found.batches}) > 1
    note(f"| {engine} | killed | {ENGINES[engine].killed} |")


@pytest.mark.parametrize("engine", SENDERS)
def test_a_model_that_is_sent(engine: str, case: Case, tmp_path: Path) -> None:
    found = run(engine, case, tmp_path, send=True)
    check(found, case)
    assert not (tmp_path / "my-model").exists()
    places = {batch["path"] for batch in found.batches}
    assert all(str(case.model) not in place and str(tmp_path) not in place for place in places), places
    note(f"| {engine} | sent | {len(found.batches)} batches |")


def test_the_cache_of_datasets_knows_the_model(case: Case) -> None:
    """Its keys are hashes of what `map` calls: equal for equal models, open or not, and of no other."""
    code = """
import sys
from datasets.fingerprint import Hasher
from fastembed_rt.scale import Embed
from fastembed_rt.scale.datasets import Added
made = [Embed(sys.argv[1], **options) for options in ({}, {}, {"max_length": 5}, {"into": "other"})]
made[0].model.encode("a")
print(*[Hasher.hash(Added(embed, embed._plan.output)) for embed in made])
"""
    python = Path(FOLDER or "") / "engines/bin/python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-c", code, case.model], capture_output=True, text=True, check=True, env=environment, timeout=200
    )
    first, second, *others = done.stdout.split()
    assert first == second
    assert len({first, *others}) == 3
