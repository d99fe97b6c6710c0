"""sentence-transformers' classes for rerankers, sparse and late-interaction models, on torch, ONNX or OpenVINO.

Graphs and their INT8 are made as for sentence encoders (see the modules for its backends).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters import requests_of_pairs
from benchmarks.compare.adapters import sentence_transformers_onnx as onnx
from benchmarks.compare.adapters import sentence_transformers_openvino as openvino
from benchmarks.compare.adapters.openvino_facts import facts as openvino_facts
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

CLASSES = {"reranking": "CrossEncoder", "sparse": "SparseEncoder", "late_interaction": "MultiVectorEncoder"}
BACKENDS = {"onnx": onnx, "openvino": openvino}


def opened(options: Options, folder: str, model_kwargs: dict[str, Any]) -> Any:
    """A model of the task's class."""
    import sentence_transformers

    kind = getattr(sentence_transformers, CLASSES[options.manifest()["task"]])
    return kind(folder, backend=options.own["backend"], device="cpu", local_files_only=True, model_kwargs=model_kwargs)


def prepare(options: Options, folder: Path) -> None:
    """Export and quantize, where the backend has graphs."""
    backend = options.own["backend"]
    if backend in BACKENDS:
        model = opened(options, options.checkpoint, {"export": True})
        BACKENDS[backend].save(model, options, folder)


def load(options: Options) -> Loaded:
    """Load the checkpoint, or the prepared export, with a budget of threads."""
    import torch

    torch.set_num_threads(options.threads)
    backend = options.own["backend"]
    if backend == "torch":
        folder, kwargs = options.checkpoint, {"dtype": getattr(torch, options.own["dtype"])}
        facts: dict[str, Any] = {"dtype": options.own["dtype"]}
    else:
        folder, kwargs = options.prepared, BACKENDS[backend].model_kwargs(options)
        facts = {"graph": kwargs["file_name"]}
    model = opened(options, folder, kwargs)
    if backend == "openvino":
        graph = model.transformers_model
        graph.compile()
        facts |= openvino_facts(graph.compiled_model if hasattr(graph, "compiled_model") else graph.request)
    ways = {"reranking": _reranking, "sparse": _sparse, "late_interaction": _late_interaction}
    return Loaded(
        files=sorted(
            path for path in Path(folder).rglob("*") if path.suffix in (".safetensors", ".onnx", ".xml", ".bin")
        ),
        facts={**facts, "batch_size": 32},
        **ways[options.manifest()["task"]](model, options.max_length),
    )


def _reranking(model: Any, max_length: int) -> dict[str, Any]:
    def score(pairs: list[tuple[str, str]]) -> Any:
        return model.predict(pairs, show_progress_bar=False)

    return requests_of_pairs.of_pairs(score, _counter(model.tokenizer, max_length))


def _sparse(model: Any, max_length: int) -> dict[str, Any]:
    model.max_seq_length = max_length

    def rows(vectors: Any) -> Iterator[Any]:
        return (vector.to_dense().float().numpy() for vector in vectors)

    return {
        "encode": lambda texts: model.encode_document(texts, show_progress_bar=False),
        "count_tokens": _counter(model.tokenizer, max_length),
        "rows": rows,
    }


def _late_interaction(model: Any, _: int) -> dict[str, Any]:
    def rows(texts: Sequence[Any]) -> Iterator[Any]:
        import numpy as np

        return (np.asarray(vectors, dtype=np.float32).ravel() for vectors in texts)

    def encode(texts: list[str]) -> Any:
        return model.encode_document(texts, show_progress_bar=False)

    return {
        "encode": encode,
        "count_tokens": lambda texts: [len(vectors) for vectors in encode(texts)],
        "rows": rows,
        "single": lambda texts: model.encode_query(texts, show_progress_bar=False),
    }


def _counter(tokenizer: Any, max_length: int) -> Any:
    return lambda texts: [len(ids) for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]]


if __name__ == "__main__":
    packages = ("sentence-transformers", "transformers", "torch", "optimum", "onnxruntime", "optimum-intel", "openvino")
    main(Adapter(packages=packages, modules=("sentence_transformers",), load=load, prepare=prepare))
