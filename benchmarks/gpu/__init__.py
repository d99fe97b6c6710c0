"""On an NVIDIA GPU: right first, then how fast, beside sentence-transformers and what the card itself can do."""
