"""Modules of sentence-transformers with random weights, and checkpoints with a Router made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from checkpoints import save_transformers
from tokenizers import Tokenizer


def transformer(directory: Path, model_type: str = "bert", **options: Any) -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    module = Transformer(str(save_transformers(directory, model_type)), **options)
    return [module, Pooling(module.get_embedding_dimension(), "mean")]


def static(directory: Path, dim: int = 24) -> Any:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    save_transformers(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    torch.manual_seed(3)
    return StaticEmbedding(tokenizer, embedding_weights=torch.randn(tokenizer.get_vocab_size(), dim) + 0.3)


def dense(outputs: int = 8, seed: int = 0) -> Any:
    from sentence_transformers.base.modules.dense import Dense

    torch.manual_seed(seed)
    return Dense(24, outputs)


def save(directory: Path, *modules: Any, **options: Any) -> Path:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=list(modules), device="cpu", **options).save_pretrained(
        str(directory), create_model_card=False
    )
    return directory


def router(query: list[Any], document: list[Any], **options: Any) -> Any:
    from sentence_transformers.base.modules import Router

    return Router({"query": query, "document": document}, **options)


def normalize() -> Any:
    from sentence_transformers.base.modules import Normalize

    return Normalize()
