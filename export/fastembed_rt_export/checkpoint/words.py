"""WordEmbeddings: a table of word vectors, which WordWeights may weight, as sentence-transformers' first models have.

The table is a static one (static.py) whose tokens are words; tokenizer/words.py says which words a text has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import settings
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import read_json
from ..graph.weight import Array
from ..static import UNLIMITED, WORD_WEIGHTS, WORDS, read_static
from ..tensors import Stored

MODULE, WEIGHTS = "WordEmbeddings", "WordWeights"
SETTINGS = "wordembedding_config.json"
TOKENIZER, TOKENIZER_FILE = "WhitespaceTokenizer", "whitespacetokenizer_config.json"
LAYER = "emb_layer.weight"
POOLINGS = ("max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")  # cls asks a transformer's first token


def read_words(folder: Path, weights: Path | None) -> tuple[dict[str, Any], dict[str, Stored], tuple[Path, ...], int]:
    """What stands for config.json, the tensors, their files, and the number of words that texts are cut to.

    Args:
        folder: of the WordEmbeddings.
        weights: of the WordWeights behind them, if any.

    Raises:
        CheckpointError: no table, words without a row, weights that are no numbers.
        UnsupportedCheckpointError: a tokenizer that is not built, weights below 0.
    """
    said = read_json(folder / SETTINGS)
    settings.check(settings.WORD_EMBEDDINGS, said, folder / SETTINGS, [])
    kind = str(said.get("tokenizer_class")).rpartition(".")[2]
    if kind != TOKENIZER:
        raise UnsupportedCheckpointError(
            f"{folder / SETTINGS} has tokenizer_class {kind}, which is not built; built is {TOKENIZER}"
        )
    config, stored, files = read_static(folder, LAYER)
    words = words_of(folder)
    if len(words) > config["vocab_size"]:
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE} has {len(words)} words for a table of {config['vocab_size']} rows"
        )
    if weights is not None:
        column = _weights(weights, len(words), config["vocab_size"])
        stored[WORD_WEIGHTS] = Stored(column.shape, "F32", lambda: column)
        config["hidden_size"] += 1  # the weight, behind the vector
    limit = said.get("max_seq_length", UNLIMITED)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CheckpointError(f"{folder / SETTINGS} has max_seq_length {limit!r}, expected a number of words")
    return {**config, "model_type": WORDS}, stored, files, min(limit or UNLIMITED, UNLIMITED)


def words_of(folder: Path) -> list[str]:
    """The vocabulary of the tokenizer saved in `folder`, by number."""
    return listed(read_json(folder / TOKENIZER_FILE), "vocab", folder / TOKENIZER_FILE)


def listed(said: Mapping[str, Any], key: str, path: Path) -> list[str]:
    """The words under `key`.

    Raises:
        CheckpointError: something else is there.
    """
    words = said.get(key)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{path} has no list of words as {key}")
    return words


def _weights(folder: Path, words: int, rows: int) -> Array:
    """(rows, 1) float32; rows behind the `words` are of none.

    WordWeights makes its layer of the words in its settings; a file of weights beside them is not read.
    """
    path = folder / "config.json"
    said = read_json(path)
    settings.check(settings.WORD_WEIGHTS, said, path, [])
    vocabulary = listed(said, "vocab", path)
    by_word, other = said.get("word_weights"), said.get("unknown_word_weight", 1)
    if not isinstance(by_word, dict) or not all(isinstance(n, int | float) for n in (*by_word.values(), other)):
        raise CheckpointError(f"{path} has word_weights or an unknown_word_weight that are no numbers")
    if len(vocabulary) < words:
        raise CheckpointError(f"{path} has {len(vocabulary)} words, the tokenizer {words}")
    found = [float(by_word.get(word, by_word.get(word.lower(), other))) for word in vocabulary[:rows]]
    if not all(math.isfinite(weight) and weight >= 0 for weight in found):
        raise UnsupportedCheckpointError(
            f"{path} has weights below 0 or that are not finite: means with such weights are not built"
        )
    column = np.ones((rows, 1), np.float32)
    column[: len(found), 0] = found
    return column
