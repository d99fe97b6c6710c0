"""Late-interaction checkpoints as sentence-transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from checkpoints import save_transformers, saved_once

FIXED = {"strategy": "fixed", "length": 12}


@saved_once
def save_multi_vector(
    directory: Path,
    model_type: str = "bert",
    *,
    skiplist: tuple[str, ...] = (".", "!", ","),
    skiplist_tasks: list[str] | None = None,
    prompts: dict[str, str] | None = None,
    similarity: str | None = None,
    changes: dict[str, Any] | None = None,
    **transformer: Any,
) -> Path:
    """A MultiVectorEncoder, saved by sentence-transformers."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    plain = save_transformers(directory.with_name(directory.name + "-plain"), model_type, **(changes or {}))
    torch.manual_seed(1)
    dense = {"bias": False, "activation_function": torch.nn.Identity(), "module_input_name": "token_embeddings"}
    modules = [
        Transformer(str(plain), **{"document_length": 40, **transformer}),
        Dense(24, 16, **dense),
        Dense(16, 8, **dense, use_residual=True),
        MultiVectorMask(skiplist_words=list(skiplist), skiplist_tasks=skiplist_tasks),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts, similarity_fn_name=similarity)
    model.save_pretrained(str(directory), create_model_card=False)
    return directory
