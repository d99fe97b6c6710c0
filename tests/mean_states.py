"""Plain transformers directories beside transformers: the mean of a model's states, one text at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from checkpoints import TEXTS, exported_vectors
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer
from tolerances import close

from fastembed_rt_export.checkpoint.read import Overrides

Vectors = npt.NDArray[np.float32]
MAX_LENGTH = 44


def assert_agrees(directory: Path, output: Path, model: Any = None, **options: Any) -> None:
    """The export of a plain directory, pooled so, gives the mean of the model's states."""
    if model is None:
        named = json.loads((directory / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        kind = getattr(transformers, named, transformers.AutoModel)
        model = kind.from_pretrained(directory, trust_remote_code=True, dtype=torch.float32)
    vectors = exported_vectors(
        directory, output, overrides=Overrides(max_length=MAX_LENGTH, pooling=("mean",)), **options
    )
    close(vectors, mean_states(model.float().eval(), directory))


def mean_states(model: Any, directory: Path) -> Vectors:
    """Mean of the model's states, one text at a time: no padding."""
    if model.config.model_type == "qwen2":  # its class does not take the file as it is
        known = transformers.AutoTokenizer.from_pretrained(directory)
        tokenizer = known._tokenizer
    else:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    rows = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            pool = Pooling(states.shape[-1], pooling_mode="mean")
            pooled = pool({"token_embeddings": states, "attention_mask": torch.ones_like(ids)})
        rows.append(pooled["sentence_embedding"].numpy()[0])
    return np.stack(rows)
