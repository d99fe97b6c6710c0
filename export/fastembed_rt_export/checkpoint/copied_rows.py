"""A word table that ends in copies of some of its rows: its tokenizer has several ids for what the model has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastembed_rt.manifest import SPARSE

from ..errors import UnsupportedCheckpointError
from ..graph.weight import Array
from ..tensors import Stored
from .record import Checkpoint

_TABLE = "word_embeddings.weight"


def add(checkpoint: Checkpoint, copied: Sequence[int]) -> Checkpoint:
    """The checkpoint with copies of these rows behind its word table.

    Raises:
        UnsupportedCheckpointError: a model that uses its word table otherwise than to look up rows.
    """
    rows = checkpoint.config.get("vocab_size")
    names = [name for name, tensor in checkpoint.stored.items() if name.endswith(_TABLE) and tensor.shape[0] == rows]
    if checkpoint.architecture.traced or checkpoint.task == SPARSE or len(names) != 1:
        raise UnsupportedCheckpointError(
            f"{checkpoint.path}: its tokenizer needs rows behind the word table, which is not built for sparse or "
            "traced models"
        )
    table = checkpoint.stored[names[0]]

    def load() -> Array:
        whole = table.load()
        return np.concatenate((whole, whole[list(copied)]))

    longer = Stored((table.shape[0] + len(copied), *table.shape[1:]), table.dtype, load)
    return replace(
        checkpoint,
        stored={**checkpoint.stored, names[0]: longer},
        config={**checkpoint.config, "vocab_size": longer.shape[0]},
    )
