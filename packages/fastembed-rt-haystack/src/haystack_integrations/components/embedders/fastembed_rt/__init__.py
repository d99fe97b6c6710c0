"""Embedders for Haystack: dense and sparse vectors of texts and documents, by fastembed-rt."""

from .embedders import FastEmbedRtDocumentEmbedder, FastEmbedRtTextEmbedder
from .sparse_embedders import FastEmbedRtSparseDocumentEmbedder, FastEmbedRtSparseTextEmbedder

__all__ = [
    "FastEmbedRtDocumentEmbedder",
    "FastEmbedRtSparseDocumentEmbedder",
    "FastEmbedRtSparseTextEmbedder",
    "FastEmbedRtTextEmbedder",
]
