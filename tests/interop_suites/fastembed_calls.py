"""Each call in fastembed and in our classes of its names, on the same graph: types, shapes, dtypes, values.

    python tests/interop_suites/fastembed_calls.py PLACE     # with what stand_ins.model_directories made

Runs in an environment with fastembed and without torch. A line for each call; 1 if one differs.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastembed
import numpy as np
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder
from fastembed.sparse.bm25 import supported_languages

from fastembed_rt.compat import fastembed as compat

TEXTS = ["a dog runs", "the house is red", "", "new city light: 1 2 3 4 5 6 7 8 9 0 " * 40, "München, 東京 🙂"]
PAIRS = [("where is the dog?", text) for text in TEXTS]
NAME = "me/Model"
WORDS = [
    *TEXTS,
    "The dogs' running_dog is running; _ the DOG runs 3.14 times!",
    "Die Häuser der Straße, die STRASSEN",
    "ΟΔΟΣ'Α και οδός ΟΔΟΣ.",
    "Собаки бегут и собака бежит",
    "İstanbul'da ve ISPARTA evlerinde",
    "الكتاب في المكتبة والكتب",
    "புத்தகங்கள் புத்தகம் 猫 ①² \u203f \u200b e\u0301",
    "x" * 40 + " " + "x" * 41,
]
Call = Callable[[Any], Any]

DENSE: dict[str, Call] = {
    "embed": lambda m: list(m.embed(TEXTS)),
    "embed one": lambda m: list(m.embed(TEXTS[0])),
    "embed an iterator": lambda m: list(m.embed(iter(TEXTS), batch_size=2)),
    "embed a tuple": lambda m: list(m.embed(tuple(TEXTS))),
    "embed many, in processes there": lambda m: list(m.embed(TEXTS * 4, batch_size=4, parallel=2)),
    "embed nothing": lambda m: list(m.embed([])),
    "the kind of what embed gives": lambda m: type(m.embed(TEXTS)),
    "query_embed": lambda m: list(m.query_embed(TEXTS)),
    "query_embed one": lambda m: list(m.query_embed(TEXTS[0])),
    "passage_embed": lambda m: list(m.passage_embed(TEXTS)),
    "embedding_size": lambda m: m.embedding_size,
    "token_count": lambda m: m.token_count(TEXTS),
    "token_count one": lambda m: m.token_count(TEXTS[0], batch_size=1),
    "lazy": lambda m: hasattr(m.model, "model"),
    "get_embedding_size": lambda m: type(m).get_embedding_size(NAME.lower()),
    "listed": lambda m: [e["dim"] for e in type(m).list_supported_models() if e["model"] == NAME],
    "an unknown name": lambda m: type(m).get_embedding_size("no/such/model"),
    "registered twice": lambda m: type(m).add_custom_model(NAME, PoolingType.MEAN, True, ModelSource(hf="a/b"), 3),
}
RERANKER: dict[str, Call] = {
    "rerank": lambda m: list(m.rerank(PAIRS[0][0], TEXTS)),
    "rerank an iterator": lambda m: list(m.rerank(PAIRS[0][0], iter(TEXTS), batch_size=2)),
    "rerank_pairs": lambda m: list(m.rerank_pairs(PAIRS)),
    "rerank_pairs in processes there": lambda m: list(m.rerank_pairs(PAIRS * 4, batch_size=4, parallel=2)),
    "the kind of what rerank gives": lambda m: type(m.rerank("a", ["b"])),
    "token_count": lambda m: m.token_count(PAIRS),
    "registered twice": lambda m: type(m).add_custom_model(NAME, sources=ModelSource(hf="a/b")),
}


def values(found: Any) -> list[Any]:
    """Of vectors of words, in their order."""
    return [(one.indices.tolist(), one.values.tolist(), str(one.indices.dtype), str(one.values.dtype)) for one in found]


BM25: dict[str, Call] = {
    "embed": lambda m: values(m.embed(WORDS)),
    "embed one": lambda m: values(m.embed(WORDS[0], batch_size=2)),
    "query_embed": lambda m: values(m.query_embed(WORDS)),
    "passage_embed": lambda m: values(m.passage_embed(WORDS)),
    "token_count": lambda m: m.token_count(WORDS),
    "listed": lambda m: [
        {name: value for name, value in one.items() if name not in ("description", "sources")}
        for one in type(m).list_supported_models()
        if one["model"] == "Qdrant/bm25"
    ],
}
BM25_OPTIONS: tuple[dict[str, Any], ...] = (
    *({"language": language} for language in supported_languages),
    {"k": 2.0, "b": 0.2, "avg_len": 3.0, "token_max_length": 4},
    {"disable_stemmer": True},
    {"stopwords": {"DOG"}},
    {"cuda": False, "threads": 1, "device_ids": [0]},
    {"language": "klingon"},
)


def outcome(call: Call, model: Any) -> Any:
    try:
        return call(model)
    except Exception as error:  # noqa: BLE001 - compared with what the other library raises
        return error


def difference(ours: Any, theirs: Any) -> str:  # noqa: PLR0911 - a kind of result a line
    """What is not alike, "" if nothing is."""
    if isinstance(theirs, ValueError):
        return "" if isinstance(ours, ValueError) else f"{ours!r} for {theirs!r}"
    if isinstance(ours, Exception) or isinstance(theirs, Exception):
        return f"{ours!r} for {theirs!r}"
    if type(ours) is not type(theirs):
        return f"{type(ours)} for {type(theirs)}"
    if isinstance(theirs, list):
        if len(ours) != len(theirs):
            return f"{len(ours)} for {len(theirs)}"
        return next(filter(None, (difference(a, b) for a, b in zip(ours, theirs, strict=True))), "")
    if isinstance(theirs, np.ndarray):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"{ours.shape} {ours.dtype} for {theirs.shape} {theirs.dtype}"
        off = float(np.abs(ours - theirs).max())
        return "" if off <= 1e-5 else f"{off:.1e} apart"
    if isinstance(theirs, float):
        return "" if abs(ours - theirs) <= 1e-5 * max(1.0, abs(theirs)) else f"{ours} for {theirs}"
    return "" if ours == theirs else f"{ours!r} for {theirs!r}"


def nearest(text_embedding: Any, **options: Any) -> list[tuple[int, float]]:
    """What qdrant-client's local inference finds with a class in fastembed's place: numbers of texts and scores."""
    import qdrant_client.embed.embedder
    import qdrant_client.fastembed_common
    from qdrant_client import QdrantClient, models

    for module in (qdrant_client.embed.embedder, qdrant_client.fastembed_common):
        module.TextEmbedding = text_embedding
    client = QdrantClient(":memory:")
    client.create_collection("texts", models.VectorParams(size=384, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=number, vector=models.Document(text=text, model=NAME, options=options))
        for number, text in enumerate(TEXTS)
    ]
    client.upsert("texts", points)
    query = models.Document(text="which dog is running?", model=NAME, options=options)
    return [(point.id, point.score) for point in client.query_points("texts", query=query).points]


def main() -> int:
    """Compare."""
    place = Path(sys.argv[1])
    here = types.SimpleNamespace(hf=str(place / "dense"), url=None)
    facts: dict[str, Any] = {"pooling": PoolingType.DISABLED, "normalization": True, "dim": 384}
    facts["model_file"] = "model.onnx"
    fastembed.TextEmbedding.add_custom_model(NAME, sources=ModelSource(hf="me/Model"), **facts)
    compat.TextEmbedding.add_custom_model(NAME, sources=here, **facts)
    TextCrossEncoder.add_custom_model(NAME, sources=ModelSource(hf="me/Model"), model_file="model.onnx")
    compat.TextCrossEncoder.add_custom_model(NAME, sources=types.SimpleNamespace(hf=str(place / "reranker")))
    faults = 0
    for calls, ours, theirs, folder in (
        (DENSE, compat.TextEmbedding, fastembed.TextEmbedding, "dense-for-fastembed"),
        (RERANKER, compat.TextCrossEncoder, TextCrossEncoder, "reranker-for-fastembed"),
    ):
        for name, call in calls.items():
            lazy = name == "lazy"
            right = theirs(NAME, lazy_load=lazy, specific_model_path=str(place / folder))
            # fastembed reads the limit from tokenizer_config.json, not where sentence-transformers does.
            limit = {} if lazy else {"max_length": right.model.tokenizer.truncation["max_length"]}
            left = ours(NAME, lazy_load=lazy, **limit)
            found = difference(outcome(call, left), outcome(call, right))
            print(f"{'differs' if found else 'same'}: {ours.__name__}: {name} {found}")
            faults += bool(found)
    words = {"specific_model_path": str(place / "bm25")}
    for options in BM25_OPTIONS:
        left, right = (
            outcome(lambda kind: kind("Qdrant/bm25", **words, **options), kind)  # noqa: B023 - called at once
            for kind in (compat.SparseTextEmbedding, fastembed.SparseTextEmbedding)
        )
        for name, call in BM25.items():
            opened = not isinstance(right, Exception)
            found = difference(*(outcome(call, one) for one in (left, right))) if opened else difference(left, right)
            print(f"{'differs' if found else 'same'}: BM25 with {options}: {name} {found}")
            faults += bool(found)
    folder = str(place / "dense-for-fastembed")
    theirs_found = nearest(fastembed.TextEmbedding, specific_model_path=folder)
    ours_found = nearest(compat.TextEmbedding, max_length=512)
    alike = [number for number, _ in ours_found] == [number for number, _ in theirs_found]
    alike = alike and np.allclose([s for _, s in ours_found], [s for _, s in theirs_found], atol=1e-5)
    print(f"{'same' if alike else 'differs'}: qdrant-client's local inference: {ours_found}")
    faults += not alike
    theirs_sparse = fastembed.SparseEmbedding(values=np.array([1.0, 2.0]), indices=np.array([3, 5]))
    ours_sparse = compat.SparseEmbedding(values=np.array([1.0, 2.0]), indices=np.array([3, 5]))
    for name in ("as_dict", "as_object"):
        alike = str(getattr(ours_sparse, name)()) == str(getattr(theirs_sparse, name)())
        print(f"{'same' if alike else 'differs'}: SparseEmbedding: {name}")
        faults += not alike
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
