"""Sparse encoders whose queries are looked up in a table, with random weights, saved by sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from checkpoints import saved_once
from sparse_encoders import save_masked_lm
from transformers import AutoTokenizer

WORDS, LIMIT = 101, 20


@saved_once
def save_inference_free(directory: Path, activation: str = "log1p_relu", **options: Any) -> Path:
    """Query: a weight for each token; document: SPLADE. `options` are the Router's."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    plain = save_masked_lm(directory.with_name(directory.name + "-plain"), vocab_size=WORDS)
    tokenizer = AutoTokenizer.from_pretrained(plain, model_max_length=LIMIT)
    assert len(tokenizer) == WORDS  # a weight for each
    torch.manual_seed(4)
    weights = torch.rand(WORDS) * 5 * (torch.rand(WORDS) > 0.2)  # some words have none
    query = [SparseStaticEmbedding(tokenizer, weight=weights)]
    document = [Transformer(str(plain), transformer_task="fill-mask"), SpladePooling("max", activation)]
    router = Router({"query": query, "document": document}, **{"default_route": "document", **options})
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(directory), create_model_card=False)
    return directory
