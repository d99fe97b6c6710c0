"""The modules of sentence-transformers that tests make checkpoints of, wherever the installed release has them."""

try:
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
except ImportError:  # before sentence-transformers 6
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

__all__ = ["Dense", "Normalize", "Pooling", "Transformer"]
