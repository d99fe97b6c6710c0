"""A pytest plugin: our classes stand for fastembed's while its tests and qdrant-client's run; outcomes are kept."""

from __future__ import annotations

import importlib
import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastembed
import pytest

from fastembed_rt.compat import fastembed as compat

PLACE = Path(os.environ["FASTEMBED_RT_SUITE_EXPORTS"])
# Names that the tests ask for, and the model directory that stands in.
DENSE = ("BAAI/bge-small-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2")
SPARSE = ("prithivida/Splade_PP_en_v1", "prithvida/Splade_PP_en_v1", "Qdrant/bm42-all-minilm-l6-v2-attentions")
COLBERT = ("answerdotai/answerai-colbert-small-v1",)
RERANKER = ("Xenova/ms-marco-MiniLM-L-6-v2",)
FACTS: dict[str, Any] = {"license": "mit", "size_in_gb": 0.1}
MODULES = {
    "TextEmbedding": ("fastembed", "fastembed.text", "fastembed.text.text_embedding"),
    "SparseTextEmbedding": ("fastembed", "fastembed.sparse", "fastembed.sparse.sparse_text_embedding"),
    "LateInteractionTextEmbedding": (
        "fastembed",
        "fastembed.late_interaction",
        "fastembed.late_interaction.late_interaction_text_embedding",
    ),
    "TextCrossEncoder": ("fastembed.rerank.cross_encoder", "fastembed.rerank.cross_encoder.text_cross_encoder"),
}


def source(name: str) -> Any:
    return types.SimpleNamespace(hf=str(PLACE / name), url=None)


for model in DENSE:
    compat.TextEmbedding.add_custom_model(model, "DISABLED", True, source("dense"), 384, **FACTS)
for model in SPARSE:
    compat.SparseTextEmbedding.add_custom_model(model, source("splade"), **FACTS)
compat.SparseTextEmbedding.add_custom_model("Qdrant/bm25", source("bm25"), **FACTS)
for model in COLBERT:
    compat.LateInteractionTextEmbedding.add_custom_model(model, source("colbert"), 96, **FACTS)
for model in RERANKER:
    compat.TextCrossEncoder.add_custom_model(model, source("reranker"), **FACTS)
for kind, modules in MODULES.items():
    for module in modules:
        if hasattr(importlib.import_module(module), kind):
            setattr(importlib.import_module(module), kind, getattr(compat, kind))
fastembed.SparseEmbedding = compat.SparseEmbedding


@pytest.fixture(autouse=True)
def names_of_one_test() -> Iterator[None]:
    """What a test registers is gone after it."""
    kinds = [getattr(compat, kind) for kind in MODULES]
    before = [dict(kind.registered) for kind in kinds]
    yield
    for kind, names in zip(kinds, before, strict=True):
        kind.registered.clear()
        kind.registered.update(names)
