"""fastembed's rerankers, sparse and late-interaction models, given the same fp32 graph.

Of rerankers it takes any graph. Of the others it has classes for models that it knows, which take another folder:
SPLADE++, whose graph ends in the words' scores of each token, and ColBERT, which has the markers of its own model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters import requests_of_pairs
from benchmarks.compare.adapters.plain_tokenizer import onnx_folder, set_limit
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

NAME = "benchmark/model"
SPARSE, LATE = "prithivida/Splade_PP_en_v1", "colbert-ir/colbertv2.0"
BATCH = 4  # of texts by length, see the adapter for sentence encoders


def prepare(options: Options, folder: Path) -> None:
    """The exported graph, or for SPLADE one that optimum makes."""
    if options.manifest()["task"] != "sparse":
        onnx_folder(options, folder)
        return
    from optimum.exporters.onnx import main_export

    main_export(options.checkpoint, folder, task="fill-mask", library_name="transformers", do_validation=False)
    shutil.copy(Path(options.model_dir, "tokenizer.json"), folder / "tokenizer.json")
    set_limit(options, folder)


def load(options: Options) -> Loaded:
    """Load the prepared folder."""
    ways = {"reranking": _reranking, "sparse": _sparse, "late_interaction": _late_interaction}
    folder = Path(options.prepared)
    return Loaded(
        files=[path for path in folder.iterdir() if path.is_file()],
        facts={"intra_op_num_threads": options.threads, "batch_size": BATCH},
        **ways[options.manifest()["task"]](options),
    )


def _reranking(options: Options) -> dict[str, Any]:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(model=NAME, sources=ModelSource(hf=NAME), model_file="model.onnx")
    model = TextCrossEncoder(NAME, specific_model_path=options.prepared, threads=options.threads, cuda=False)

    def score(pairs: list[tuple[str, str]]) -> Any:
        import numpy as np

        order = sorted(range(len(pairs)), key=lambda place: -len(pairs[place][0]) - len(pairs[place][1]))
        scores = np.empty(len(pairs))
        scores[order] = list(model.rerank_pairs([pairs[place] for place in order], batch_size=BATCH))
        return scores

    def count(pairs: list[tuple[str, str]]) -> list[int]:
        return [sum(row.attention_mask) for row in model.model.tokenizer.encode_batch(pairs)]

    return requests_of_pairs.of_pairs(score, count)


def _sparse(options: Options) -> dict[str, Any]:
    from fastembed import SparseTextEmbedding

    model = SparseTextEmbedding(SPARSE, specific_model_path=options.prepared, threads=options.threads, cuda=False)
    words = int(model.model.tokenizer.get_vocab_size())

    def rows(vectors: Sequence[Any]) -> Iterator[Any]:
        import numpy as np

        for vector in vectors:
            dense = np.zeros(words, dtype=np.float32)
            dense[vector.indices] = vector.values
            yield dense

    return {
        "encode": lambda texts: _by_length(model.embed, texts),
        "count_tokens": lambda texts: [sum(row.attention_mask) for row in model.model.tokenizer.encode_batch(texts)],
        "rows": rows,
    }


def _late_interaction(options: Options) -> dict[str, Any]:
    from fastembed import LateInteractionTextEmbedding

    model = LateInteractionTextEmbedding(
        LATE, specific_model_path=options.prepared, threads=options.threads, cuda=False
    )

    def encode(texts: list[str]) -> list[Any]:
        return _by_length(model.embed, texts)

    return {
        "encode": encode,
        "count_tokens": lambda texts: [len(vectors) for vectors in encode(texts)],
        "rows": lambda texts: (vectors.ravel() for vectors in texts),
        "single": lambda texts: list(model.query_embed(texts)),
    }


def _by_length(embed: Any, texts: list[str]) -> list[Any]:
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    found: list[Any] = [None] * len(texts)
    for place, vectors in zip(order, embed([texts[place] for place in order], batch_size=BATCH), strict=True):
        found[place] = vectors
    return found


if __name__ == "__main__":
    packages = ("fastembed", "onnxruntime", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("fastembed",), load=load, prepare=prepare))
