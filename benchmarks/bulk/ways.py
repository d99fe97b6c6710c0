"""Ways to bring a Parquet file of texts into Parquet with vectors, each run in a process of its own.

python -m benchmarks.bulk.ways NAME '{"source": ..., "target": ..., "model": ..., "checkpoint": ..., "threads": 2}'

The last line printed is a record: rows, seconds without loading the model, and the resident memory meanwhile. `encode`
is the rate to compare with: the same texts, in memory already, and nothing written.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAMPLED = 0.5  # seconds between two looks at the memory
BATCH = 1024
PACKAGES = (
    "datasets",
    "fastembed",
    "numpy",
    "onnxruntime",
    "pyarrow",
    "ray",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)


def resident(process: int | str) -> float:
    """Memory of a process in MB; 0 of one that is gone. Linux only."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0.0
    return int(pages) * resource.getpagesize() / 1e6


class Memory:
    """Resident memory of this process in MB with the seconds at which it was looked at; Linux only."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._began = time.perf_counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(SAMPLED):
            self.samples.append((round(time.perf_counter() - self._began, 2), resident("self")))

    def stop(self) -> list[tuple[float, float]]:
        """All looks."""
        self._over.set()
        self._thread.join()
        return self.samples


@contextlib.contextmanager
def timed(record: dict[str, Any]) -> Iterator[None]:
    """Seconds, CPU seconds of this process and memory of the block, into the record."""
    memory = Memory()
    began, worked = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        record["seconds"] = time.perf_counter() - began
        record["cpu_seconds"] = time.process_time() - worked
        record["resident_mb"] = memory.stop()


def encode(given: dict[str, Any]) -> dict[str, Any]:
    """`EmbeddingModel.encode` of all texts at once."""
    import pyarrow.parquet

    from fastembed_rt import EmbeddingModel

    texts = pyarrow.parquet.read_table(given["source"]).column("text").to_pylist()
    record: dict[str, Any] = {"rows": len(texts)}
    with EmbeddingModel(given["model"], precision=given["precision"], threads=given["threads"]) as model:
        model.encode(texts[:BATCH])
        with timed(record):
            model.encode(texts)
    return record


def bulk(given: dict[str, Any]) -> dict[str, Any]:
    """`embed --shards`; its own clock begins when the model is loaded."""
    from fastembed_rt import EmbeddingModel, cli
    from fastembed_rt.bulk import run

    record: dict[str, Any] = {}
    started = given.get("started", time.time())  # of the process, where whoever started it says so
    first: list[
        tuple[float, float]
    ] = []  # when the model was given texts, and the CPU seconds of this process up to then
    loaded: list[float] = []
    whole, execute = EmbeddingModel.encode, run.execute

    def seen(self: EmbeddingModel, *inputs: Any, **options: Any) -> Any:
        first.append((time.time(), time.process_time()))
        return whole(self, *inputs, **options)

    def executed(*inputs: Any, **options: Any) -> Any:
        loaded.append(time.process_time())
        return execute(*inputs, **options)

    EmbeddingModel.encode = seen  # type: ignore[method-assign]
    run.execute = executed
    figures = Path(given["target"]).with_suffix(".json")
    words = ["embed", given["model"], given["source"], "--shards", given["target"], "--resume", "-q"]
    words += ["--threads", str(given["threads"]), "--precision", given["precision"], "--metrics-file", str(figures)]
    with timed(record):
        code = cli.main([*words, *given.get("words", [])])
    if code:
        raise SystemExit(code)
    told = json.loads(figures.read_text(encoding="utf-8"))
    record["to_first_text"] = (first[0][0] - started) if first else None
    record["cpu_to_first_text"] = first[0][1] if first else None
    return {
        **record,
        "rows": told["rows"],
        "cpu_seconds": time.process_time() - loaded[0],
        "all_seconds": record["seconds"],
        "seconds": told["seconds"],
        "figures": told,
    }


def sentence_transformers_datasets(given: dict[str, Any]) -> dict[str, Any]:
    """`SentenceTransformer.encode` in `datasets.map`, written as Parquet."""
    import torch
    from datasets import load_dataset
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(given["threads"])
    model = SentenceTransformer(given["checkpoint"], device="cpu")
    data = load_dataset("parquet", data_files=given["source"], split="train", cache_dir=given["target"] + "-cache")
    record: dict[str, Any] = {"rows": len(data)}

    def batch(rows: dict[str, Any]) -> dict[str, Any]:
        return {"embedding": model.encode(rows["text"], batch_size=32)}

    with timed(record):
        data.map(batch, batched=True, batch_size=BATCH).to_parquet(given["target"] + ".parquet")
    return record


def fastembed_parallel(given: dict[str, Any]) -> dict[str, Any]:
    """fastembed with `parallel=`, the same fp32 graph in each of its processes, written as Parquet."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "benchmark/model"  # the graph pools and normalizes, so fastembed must not
    source = ModelSource(hf=name)
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.DISABLED,
        normalization=False,
        sources=source,
        dim=given["dim"],
        model_file="model.onnx",
    )
    model = TextEmbedding(name, specific_model_path=given["prepared"], threads=1, cuda=False)
    table = pyarrow.parquet.read_table(given["source"])
    record: dict[str, Any] = {"rows": table.num_rows}
    with timed(record):
        found = np.stack(list(model.embed(table.column("text").to_pylist(), parallel=given["threads"])))
        column = pyarrow.FixedSizeListArray.from_arrays(found.reshape(-1), found.shape[1])
        pyarrow.parquet.write_table(table.append_column("embedding", column), given["target"] + ".parquet")
    return record


def ray_sentence_transformers(given: dict[str, Any]) -> dict[str, Any]:
    """Ray Data's map_batches with one actor a CPU, each with a SentenceTransformer; written as Parquet."""
    import ray

    # One more, for the reading of files: actors that hold all CPUs would wait for rows for ever.
    ray.init(num_cpus=given["threads"] + 1, include_dashboard=False, log_to_driver=False)

    class Embedder:
        def __init__(self, checkpoint: str) -> None:
            import torch
            from sentence_transformers import SentenceTransformer

            torch.set_num_threads(1)
            self.model = SentenceTransformer(checkpoint, device="cpu")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {**batch, "embedding": self.model.encode(list(batch["text"]), batch_size=32)}

    data = ray.data.read_parquet(given["source"])
    record: dict[str, Any] = {"rows": data.count()}
    with timed(record):
        made = data.map_batches(
            Embedder, fn_constructor_args=(given["checkpoint"],), batch_size=BATCH, concurrency=given["threads"]
        )
        made.write_parquet(given["target"])
    return record


WAYS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "encode": encode,
    "bulk": bulk,
    "st-datasets": sentence_transformers_datasets,
    "fastembed-parallel": fastembed_parallel,
    "ray-st": ray_sentence_transformers,
}


def versions() -> dict[str, str]:
    """Of the packages that the ways use, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


if __name__ == "__main__":
    print(json.dumps({**WAYS[sys.argv[1]](json.loads(sys.argv[2])), "versions": versions()}))
