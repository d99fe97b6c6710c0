"""SparseStaticEmbedding: a weight for each token of the vocabulary, given to the tokens that a text has.

The queries of inference-free sparse encoders (Geng et al. 2024, arXiv:2411.04403). No special tokens are put around a
text; one that is written in it counts as any other. A token that a text has twice counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import settings
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import inside, read_json
from ..graph.graph import FLOAT, Graph, Value
from ..graph.portable import enter
from ..graph.target import Target
from ..graph.weight import Array
from ..settings import SPARSE_STATIC
from ..static import STATIC
from ..tensors import FLOATS, Stored, Tensors, read, refuse_not_finite
from ..tokenizer.tokenizer_json import parsed

MODULE, WEIGHT = "SparseStaticEmbedding", "weight"
_IDF = "idf.json"


@dataclass(frozen=True)
class TokenWeights:
    """What stands for a transformer and its head."""

    words: int
    max_active_dims: int | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """For people to read."""
        return (f"{MODULE}({self.words} tokens)",)


def read_weights(folder: Path, root: Path) -> tuple[dict[str, Any], dict[str, Stored], tuple[Path, ...]]:
    """What stands for config.json, the weights under their name, and the files that hold them.

    Raises:
        CheckpointError: no weights, or other than one number a token.
        UnsupportedCheckpointError: weights that lie elsewhere.
    """
    beside = folder / "config.json"
    said = read_json(beside) if beside.is_file() else {}
    settings.check(SPARSE_STATIC, said, beside, [])
    path = said.get("path")
    if isinstance(path, str) and path.endswith(".json"):
        stored, files = _from_json(_found(path, folder, root), folder)
    else:
        tensors, files = read(folder)
        if WEIGHT not in tensors:
            raise CheckpointError(f"{folder} has no tensor {WEIGHT!r}: no weights of tokens")
        stored = tensors[WEIGHT]
    if len(stored.shape) != 1 or stored.dtype not in FLOATS:
        raise CheckpointError(f"{folder} has {WEIGHT} {stored.dtype} {stored.shape}, expected a float for each token")
    return {"model_type": STATIC, "vocab_size": stored.shape[0], "hidden_size": 1}, {WEIGHT: stored}, files


def _found(path: str, folder: Path, root: Path) -> Path:
    places = [inside(folder, Path(path).name), inside(root, Path(path).name), folder / _IDF, root / _IDF]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UnsupportedCheckpointError(
            f"{folder / 'config.json'} takes its weights from {path!r}, which is not in the checkpoint; save the model "
            "again with sentence-transformers, which puts them into a file of tensors"
        )
    return found


def _from_json(file: Path, folder: Path) -> tuple[Stored, tuple[Path, ...]]:
    """Weights by token; one that the vocabulary lacks is the unknown token's, and the last that is named counts."""
    by_token = read_json(file)
    if not all(isinstance(value, (int, float)) for value in by_token.values()):
        raise CheckpointError(f"{file} holds other than a number for each token")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} lacks the checkpoint's vocabulary: there is no tokenizer.json")
    tokenizer = parsed(path.read_text(encoding="utf-8", errors="replace"), path)
    unknown = tokenizer.token_to_id(str(getattr(tokenizer.model, "unk_token", None) or "[UNK]"))
    words = tokenizer.get_vocab_size(with_added_tokens=True)
    if (last := max(tokenizer.get_vocab().values(), default=-1)) >= words:
        raise CheckpointError(f"{path} has {words} tokens with ids up to {last}, so that weights have no place by id")

    def load() -> Array:
        weights = np.zeros(words, np.float32)
        for token, value in by_token.items():
            place = tokenizer.token_to_id(token)
            place = unknown if place is None else place
            if place is not None:
                weights[place] = value
        refuse_not_finite(weights, WEIGHT, file)
        return weights

    return Stored((words,), "F32", load), (file,)


def build(target: Target, opset: int, words: int, tensors: Tensors) -> tuple[Graph, Value]:
    """Graph of standard operators: texts -> weights of all tokens (B, words)."""
    del target  # a table has nothing that one would do better
    graph = Graph(opset)
    tokens = enter(graph, False)
    size = graph.node("Shape", tokens.input_ids, start=0, end=1, name="batch")
    shape = graph.node("Concat", size, graph.constant([words]), axis=0, name="shape")
    none = graph.node("Expand", graph.constant(0.0), shape, name="none")
    mask = graph.node("Cast", tokens.attention_mask, to=FLOAT, name="mask")
    # A sum, since the order in which a token and padding of the same id are written is nobody's promise.
    count = graph.node("ScatterElements", none, tokens.input_ids, mask, axis=1, reduction="add", name="count")
    there = graph.node("Min", count, graph.constant(1.0), name="there")
    return graph, graph.node("Mul", there, graph.weight(tensors.get(WEIGHT, (words,))), name="weights")
