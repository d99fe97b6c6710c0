"""OpenVINO without a library around it, as who knows it well would write it: the fp32 graph that pools and normalizes.

Texts by length, batches by tokens instead of by texts, as many streams as threads where there are several batches, all
threads for one. INT8 is NNCF's static quantization for transformers, of the same graph. The precision of the rest is
OpenVINO's own choice, bf16 on CPUs that have it; it is recorded, not changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.openvino_facts import facts
from benchmarks.compare.adapters.plain_tokenizer import counter, onnx_folder, plain
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

TOKENS = 1024  # of a batch, unless one text has more
SAMPLES = 300  # texts that NNCF calibrates on, its default
Feed = Callable[[Sequence[Sequence[int]]], dict[str, Any]]


def prepare(options: Options, folder: Path) -> None:
    """Convert the graph and, for INT8, quantize it."""
    import openvino

    onnx_folder(options, folder)
    model = openvino.Core().read_model(folder / "model.onnx")
    if options.own.get("quantize"):
        import nncf

        tokenizer, feed = plain(folder / "tokenizer.json", options.max_length), feeder(model)
        texts = json.loads(Path(options.calibration).read_text(encoding="utf-8"))[:SAMPLES]
        samples = [feed([tokenizer.encode(text).ids]) for text in texts]
        model = nncf.quantize(model, nncf.Dataset(samples), subset_size=SAMPLES, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(model, folder / "graph.xml", compress_to_fp16=False)


def feeder(model: Any) -> Feed:
    """Function from token ids of texts to the inputs that the graph has, padded to the longest."""
    import numpy as np

    names = {name for port in model.inputs for name in port.get_names()}

    def feed(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for k, row in enumerate(rows):
            ids[k, : len(row)], mask[k, : len(row)] = row, 1
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: known[name] for name in names}

    return feed


def load(options: Options) -> Loaded:
    """Compile the prepared graph twice: for one batch at a time, and for several."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import openvino

    graph, tokenizer_file = Path(options.prepared, "graph.xml"), Path(options.prepared, "tokenizer.json")
    tokenizer = plain(tokenizer_file, options.max_length)
    core = openvino.Core()
    model = core.read_model(graph)
    feed, threads = feeder(model), options.threads
    alone = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})
    streams = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": str(threads)}
    many = core.compile_model(model, "CPU", streams)
    own, pool = threading.local(), ThreadPoolExecutor(threads)

    def infer(compiled: Any, rows: Sequence[Sequence[int]]) -> Any:
        requests = own.__dict__.setdefault("requests", {})  # a request is for one thread at a time
        if compiled not in requests:
            requests[compiled] = compiled.create_infer_request()
        return requests[compiled].infer(feed(rows))[0].copy()

    def encode(texts: list[str]) -> Any:
        rows = [row.ids for row in tokenizer.encode_batch(texts)]
        batches = list(in_batches(rows))
        if len(batches) == 1:
            found = [infer(alone, [rows[k] for k in batches[0]])]
        else:
            found = list(pool.map(lambda batch: infer(many, [rows[k] for k in batch]), batches))
        out = np.empty((len(rows), found[0].shape[1]), np.float32)
        for batch, vectors in zip(batches, found, strict=True):
            out[batch] = vectors
        return out

    return Loaded(
        encode=encode,
        count_tokens=counter(tokenizer),
        files=[graph, graph.with_suffix(".bin"), tokenizer_file],
        facts={"batch_tokens": TOKENS, **facts(many)},
    )


def in_batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of rows, the longest first, as many together as have TOKENS; one is a batch whatever it has."""
    order = sorted(range(len(rows)), key=lambda k: -len(rows[k]))
    batch: list[int] = []
    tokens = 0
    for k in order:
        if batch and tokens + len(rows[k]) > TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(k)
        tokens += len(rows[k])
    if batch:
        yield batch


if __name__ == "__main__":
    packages = ("openvino", "nncf", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("openvino", "tokenizers"), load=load, prepare=prepare))
