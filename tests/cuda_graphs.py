"""What tests of the cuda targets' graphs share: checkpoints, rows of token ids, and transformers' vectors for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from checkpoints import CONFIGS, save_transformers
from sentence_transformers.sentence_transformer.modules import Pooling

from fastembed_rt_export.checkpoint import read as checkpoints
from fastembed_rt_export.checkpoint.read import Checkpoint, Overrides

Array = npt.NDArray[Any]
BOUNDS = {"fp16": 0.9995, "bf16": 0.995}
LENGTHS = (20, 1, 7, 2, 19)
REFUSED = ("deberta", "deberta-v2", "gemma2", "lfm2", "lfm2_bidirectional")  # by their scores or convolutions
SUPPORTED = sorted(set(CONFIGS) - set(REFUSED))


def rows_of(lengths: tuple[int, ...] = LENGTHS) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.integers(5, 100, length) for length in lengths]


def loaded(directory: Path, model_type: str, pooling: tuple[str, ...] = ("mean",), **changes: Any) -> Checkpoint:
    found = checkpoints.load(save_transformers(directory / model_type, model_type, **changes), model_type)
    return checkpoints.override(found, Overrides(pooling=pooling))


def expected(model: Any, pooling: tuple[str, ...], rows: list[Array]) -> Array:
    """transformers' states of each text alone through sentence-transformers' pooling."""
    pool = Pooling(model.config.hidden_size, pooling_mode=pooling)
    found = []
    with torch.no_grad():
        for row in rows:
            mask = torch.ones(1, len(row), dtype=torch.long)
            states = model(input_ids=torch.tensor(row[None]), attention_mask=mask).last_hidden_state
            features = pool({"token_embeddings": states, "attention_mask": mask})
            found.append(features["sentence_embedding"].numpy()[0])
    return np.stack(found)
