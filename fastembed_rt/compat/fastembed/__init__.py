"""fastembed's classes on model directories: `from fastembed_rt.compat.fastembed import TextEmbedding`."""

from __future__ import annotations

from .classes import LateInteractionTextEmbedding, SparseTextEmbedding, TextCrossEncoder, TextEmbedding
from .descriptions import Device, ModelSource, PoolingType, SparseEmbedding

__all__ = [
    "Device",
    "LateInteractionTextEmbedding",
    "ModelSource",
    "PoolingType",
    "SparseEmbedding",
    "SparseTextEmbedding",
    "TextCrossEncoder",
    "TextEmbedding",
]
