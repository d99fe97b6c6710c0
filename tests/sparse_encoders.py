"""Small sparse encoders with random weights, saved as users' are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoints import CONFIGS, save_tokenizer, saved_once, spread_weights


@saved_once
def save_masked_lm(directory: Path, model_type: str = "bert", **changes: Any) -> Path:
    """A plain ...ForMaskedLM directory with random weights."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**CONFIGS[model_type], **changes})
    model = transformers.AutoModelForMaskedLM.from_config(config).eval().float()
    spread_weights(model)
    model.save_pretrained(directory)
    save_tokenizer(directory, model_type)
    return directory


@saved_once
def save_splade(
    directory: Path, model_type: str = "bert", strategy: str = "max", activation: str = "relu", **options: Any
) -> Path:
    """A SparseEncoder, saved by sentence-transformers; `options` are its own."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    plain = save_masked_lm(directory.with_name(directory.name + "-plain"), model_type)
    modules = [Transformer(str(plain), transformer_task="fill-mask"), SpladePooling(strategy, activation)]
    SparseEncoder(modules=modules, device="cpu", **options).save_pretrained(str(directory), create_model_card=False)
    return directory
