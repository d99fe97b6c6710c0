"""A model of each task beside its checkpoint in sentence-transformers, for tests of what serves all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

TEXTS = ["a dog runs quickly under the old tree!", "the house is red", "", "a cat sleeps. the river, the light", "new"]
QUERY = "which dog runs ?"
PROMPTS = {"query": "query: ", "document": "passage: "}
Run = Callable[..., tuple[int, str, str]]
CLASSES = {"splade": "SparseEncoder", "colbert": "MultiVectorEncoder", "dense": "SentenceTransformer"}


@dataclass(frozen=True)
class Exported:
    """A checkpoint, and the model directory exported from it."""

    checkpoint: Path
    directory: Path

    @cached_property
    def reference(self) -> Any:
        """The checkpoint in sentence-transformers."""
        import sentence_transformers

        kind = getattr(sentence_transformers, CLASSES.get(self.checkpoint.name, "CrossEncoder"))
        return kind(str(self.checkpoint), device="cpu", local_files_only=True)


def save_all(root: Path) -> dict[str, Exported]:
    """dense (exported with its tokens), splade, colbert, reranker, and labels, a reranker with three of them."""
    from checkpoints import save_sentence_transformers
    from cross_encoders import save_classifier, save_cross_encoder
    from exports import quick
    from multi_vectors import FIXED, save_multi_vector
    from sparse_encoders import save_splade

    checkpoints = {
        "dense": save_sentence_transformers(root / "dense", prompts=PROMPTS),
        "splade": save_splade(root / "splade", prompts=PROMPTS, default_prompt_name="document"),
        "colbert": save_multi_vector(root / "colbert", prompts=PROMPTS, query_expansion=FIXED, query_length=12),
        "reranker": save_cross_encoder(root / "reranker", prompts={"query": "query: "}),
        "labels": save_classifier(root / "labels", labels=3),
    }
    for name, checkpoint in checkpoints.items():
        quick(checkpoint, root / f"{name}-onnx", tokens=name == "dense")
    return {name: Exported(checkpoint, root / f"{name}-onnx") for name, checkpoint in checkpoints.items()}


def rows(output: str) -> list[dict[str, Any]]:
    """JSON lines, read."""
    return [json.loads(line) for line in output.splitlines()]
