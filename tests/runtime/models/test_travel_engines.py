"""A model in the engines that move objects between processes, each as its users write it, with one load a process.

In an environment of their own, `make travel`, whose interpreter FASTEMBED_RT_TRAVEL names. In each of them vectors are
those of this process, no process opens a model twice, and nothing is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
PYTHON = os.environ.get("FASTEMBED_RT_TRAVEL")
TEXTS = [f"a dog runs over {k % 13} trees" for k in range(64)]
# Each makes `out`: the vectors, and for each of them the process that made it and the engines that this one has.
BEGIN = """
import json, os, sys
import numpy as np
from fastembed_rt import EmbeddingModel
directory, texts = sys.argv[1], json.loads(sys.argv[2])
model = EmbeddingModel(directory, threads=1)
def engines():  # of this process: a fork has its parent's too, which it cannot use
    import gc
    from fastembed_rt.run.engine import Engine
    found = [one._pool._workers._state.process for one in gc.get_objects() if isinstance(one, Engine)]
    return found.count(os.getpid())
"""
ENGINES = {
    "datasets.map": """
from datasets import Dataset, disable_progress_bars
disable_progress_bars()
def work(batch):
    vectors = model.encode(batch["text"])
    return {"vector": vectors, "process": [os.getpid()] * len(vectors), "engines": [engines()] * len(vectors)}
made = Dataset.from_dict({"text": texts}).map(work, batched=True, batch_size=8, num_proc=2)
made.set_format("numpy")
out = np.array(made["vector"]), made["process"][:], made["engines"][:]
""",
    "dspy.Embedder": """
import copy, dspy
embedder = dspy.Embedder(model.encode, batch_size=16, caching=False)
again = copy.deepcopy(embedder)
import cloudpickle
third = cloudpickle.loads(cloudpickle.dumps(embedder))
vectors = embedder(texts)
for other in (again, third):
    np.testing.assert_array_equal(other(texts), vectors)
index = dspy.retrievers.Embeddings(corpus=texts, embedder=embedder, k=3)
assert index(texts[5]).passages[0] == texts[5]
out = vectors, [os.getpid()] * len(vectors), [engines()] * len(vectors)
""",
    "Ray tasks": """
import logging, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=True, logging_level=logging.ERROR)
@ray.remote(num_cpus=1)
def work(start):
    vectors = model.encode(texts[start : start + 8])  # a closure
    return vectors, [os.getpid()] * 8, [engines()] * 8
parts = ray.get([work.remote(start) for start in range(0, len(texts), 8)])
@ray.remote
def given(one, start):
    return one.encode(texts[start : start + 8])
reference = ray.put(model)
for k, vectors in enumerate(ray.get([given.remote(reference, start) for start in range(0, len(texts), 8)])):
    np.testing.assert_array_equal(vectors, parts[k][0])
out = [np.concatenate([part[k] for part in parts]) for k in range(3)]
ray.shutdown()
""",
    "Ray Data": """
import logging, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ray.data.DataContext.get_current().enable_progress_bars = False
logging.getLogger("ray.data").setLevel(logging.ERROR)
def work(batch):
    vectors = model.encode(batch["item"])  # a pyarrow column
    count = len(vectors)
    table = {"vector": vectors, "process": np.full(count, os.getpid()), "engines": np.full(count, engines())}
    return {"item": np.asarray(batch["item"].to_pylist()), **table}
rows = ray.data.from_items(texts).map_batches(work, batch_format="pyarrow", batch_size=8).take_all()
where = {}
for row in rows:
    where.setdefault(row["item"], []).append(row)
rows = [where[text].pop() for text in texts]
out = [np.array([row[name] for row in rows]) for name in ("vector", "process", "engines")]
ray.shutdown()
""",
    "Spark": """
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.log.level", "ERROR")
spark = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "8").getOrCreate()
frame = spark.createDataFrame([(k, text) for k, text in enumerate(texts)], ["k", "text"]).repartition(4)
def batches(found):
    import pyarrow as pa
    for batch in found:
        vectors = model.encode(batch["text"])  # a closure, and a pyarrow column
        columns = {"k": batch["k"], "vector": pa.array(list(vectors), pa.list_(pa.float32()))}
        columns |= {"process": pa.array([os.getpid()] * len(vectors)), "engines": pa.array([engines()] * len(vectors))}
        yield pa.RecordBatch.from_pydict(columns)
schema = "k long, vector array<float>, process long, engines long"
rows = sorted(frame.mapInArrow(batches, schema).collect(), key=lambda row: row.k)
@pandas_udf("array<float>")
def embed(column: pd.Series) -> pd.Series:
    return pd.Series(list(model.encode(column)))
second = sorted(frame.withColumn("vector", embed("text")).collect(), key=lambda row: row.k)
np.testing.assert_array_equal([row.vector for row in rows], [row.vector for row in second])
third = spark.sparkContext.parallelize(texts, 4).mapPartitions(lambda part: model.encode(list(part))).collect()
np.testing.assert_array_equal(np.array(third, np.float32), np.array([row.vector for row in rows], np.float32))
out = [np.array([row[name] for row in rows]) for name in ("vector", "process", "engines")]
spark.stop()
""",
}
END = """
vectors, processes, counts = out
np.save(sys.argv[3], np.asarray(vectors, dtype=np.float32))
print(json.dumps({"processes": len(set(map(int, processes))), "engines": int(max(counts))}))
"""


@pytest.mark.skipif(PYTHON is None, reason="FASTEMBED_RT_TRAVEL names no interpreter with these engines: make travel")
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine(engine: str, model_dir: Path, tmp_path: Path) -> None:
    with EmbeddingModel(model_dir, threads=1) as model:
        wanted = model.encode(TEXTS)
    assert PYTHON is not None
    result = tmp_path / "vectors.npy"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": PYTHON, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [PYTHON, "-c", BEGIN + ENGINES[engine] + END, str(model_dir), json.dumps(TEXTS), str(result)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_array_equal(np.load(result), wanted)
    assert about["engines"] == 1, about
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "fastembed" in line or "tokenizers" in line]
    assert not ours, ours
    print(engine, about, file=sys.stderr)
