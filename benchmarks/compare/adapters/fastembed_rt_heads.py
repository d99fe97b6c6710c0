"""This project's rerankers, sparse and late-interaction models, in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.compare.adapters import requests_of_pairs
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main


def load(options: Options) -> Loaded:
    """Load the model directory with the class of its task."""
    import fastembed_rt

    task = options.manifest()["task"]
    kind = {
        "reranking": fastembed_rt.Reranker,
        "sparse": fastembed_rt.SparseModel,
        "late_interaction": fastembed_rt.LateInteractionModel,
    }[task]
    model: Any = kind(
        options.model_dir, precision=options.own["precision"], threads=options.threads, local_files_only=True
    )
    variant = model.variant
    return Loaded(
        files=[model.path / record.file for record in (*variant.files, model.manifest.tokenizer)],
        facts={
            "graph": variant.graph.file,
            "target": variant.target,
            "precision": variant.precision,
            "threads": model.threads,
        },
        **WAYS[task](model, options.max_length),
    )


def _reranking(model: Any, max_length: int) -> dict[str, Any]:
    return requests_of_pairs.of_pairs(model.predict, _counter(model, max_length))


def _sparse(model: Any, max_length: int) -> dict[str, Any]:
    def rows(vectors: Sequence[Any]) -> Iterator[Any]:
        return (vector.to_dense() for vector in vectors)

    return {"encode": model.encode_document, "count_tokens": _counter(model, max_length), "rows": rows}


def _late_interaction(model: Any, _: int) -> dict[str, Any]:
    def rows(texts: Sequence[Any]) -> Iterator[Any]:
        return (vectors.ravel() for vectors in texts)

    return {
        "encode": model.encode_document,
        "count_tokens": lambda texts: [len(vectors) for vectors in model.encode_document(texts)],
        "rows": rows,
        "single": model.encode_query,
    }


def _counter(model: Any, max_length: int) -> Callable[[list[Any]], list[int]]:
    """Tokens after the cut, which the model counts before it."""
    return lambda texts: [min(count, max_length) for count in model.count_tokens(texts).tolist()]


WAYS = {"reranking": _reranking, "sparse": _sparse, "late_interaction": _late_interaction}

if __name__ == "__main__":
    main(
        Adapter(
            packages=("fastembed-rt", "onnxruntime", "tokenizers", "numpy"),
            modules=(
                "fastembed_rt.models.reranker",
                "fastembed_rt.models.sparse",
                "fastembed_rt.models.late_interaction",
            ),
            load=load,
        )
    )
