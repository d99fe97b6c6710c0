"""StaticEmbedding: the mean of a vector for each token, without a transformer (sentence-transformers, model2vec).

A table of vectors and a tokenizer that adds no special tokens; there is no limit on a text's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .architectures import Architecture
from .architectures.blocks import Config, setting
from .errors import CheckpointError
from .graph.graph import Value
from .graph.ops import Ops
from .graph.weight import Array
from .tensors import FLOATS, Stored, Tensors, read

STATIC, WORDS = "static", "words"  # stand for a model_type in the manifest
UNLIMITED = 1_000_000  # tokens, as many as sentence-transformers' WordEmbeddings take: memory has to end somewhere
TABLE = "embedding.weight"
WORD_WEIGHTS = "word_weights"  # (V, 1), where words weigh differently in a mean
WHOLE = ("I8", "U8", "I16", "I32", "I64")
# model2vec's names: rows, the row of each token where there are fewer rows than tokens, a weight for each token.
ROWS, MAPPING, WEIGHTS = "embeddings", "mapping", "weights"


def read_static(folder: Path, name: str = TABLE) -> tuple[dict[str, Any], dict[str, Stored], tuple[Path, ...]]:
    """What stands for config.json, the table under one name, and the files that hold it; `name`: as they call it.

    Raises:
        CheckpointError: no table, or one that is not a matrix of floats.
    """
    stored, files = read(folder)
    table = stored.get(name) or _folded(folder, stored, name)
    if len(table.shape) != 2 or table.dtype not in FLOATS:
        raise CheckpointError(f"{folder} has a table of {table.dtype} {table.shape}, expected floats (tokens, dim)")
    config = {"model_type": STATIC, "vocab_size": table.shape[0], "hidden_size": table.shape[1]}
    return config, {TABLE: table}, files


def _folded(folder: Path, stored: Mapping[str, Stored], name: str) -> Stored:
    """model2vec's rows, mapping and weights as one table: rows[mapping[token]] * weights[token]."""
    rows, mapping, weights = (stored.get(name) for name in (ROWS, MAPPING, WEIGHTS))
    if rows is None:
        raise CheckpointError(f"{folder} has neither {name!r} nor model2vec's {ROWS!r}: no table of token vectors")
    tokens = (mapping or weights or rows).shape[0]
    if (mapping and mapping.shape != (tokens,)) or (weights and weights.shape != (tokens,)):
        raise CheckpointError(
            f"{folder} has a mapping of {mapping.shape if mapping else 'nothing'} and weights of "
            f"{weights.shape if weights else 'nothing'}, expected one number a token"
        )

    def load() -> Array:
        table = rows.load()
        if mapping is not None:
            places = mapping.load().astype(np.int64)
            beyond = np.count_nonzero((places < -len(table)) | (places >= len(table)))
            if beyond:
                said = f"a mapping with {beyond} places beyond its table's {len(table)} rows"
                raise CheckpointError(f"{folder} has {said}")
            table = table[places]
        return table if weights is None else (table * weights.load()[:, None]).astype(np.float32)

    # Rows in whole numbers become floats through the weights; without those, no model takes them.
    return Stored((tokens, *rows.shape[1:]), "F32" if weights and rows.dtype in WHOLE else rows.dtype, load)


def encoder(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """Token vectors; times the weight of each word and with that behind them, where words have some."""
    rows, width = setting(config, "vocab_size", int), setting(config, "hidden_size", int)
    if not tensors.has(WORD_WEIGHTS):
        return ops.embed(tensors.get(TABLE, (rows, width)))
    weights = tensors.get(WORD_WEIGHTS, (rows, 1))
    table = tensors.get(TABLE, (rows, width - 1))
    weighted = table.map(".weighted", lambda array: array * weights.load(), table.shape)
    return ops.token_graph.node("Concat", ops.embed(weighted), ops.embed(weights), axis=-1, name="weighted")


ARCHITECTURE = Architecture(encoder, lambda _: UNLIMITED, "")
