"""sentence-transformers' classes on model directories: `from fastembed_rt.compat.sentence_transformers import ...`.

Importing this module imports neither torch nor sentence_transformers. What is not here (losses, readers, trainers) is
handed through from sentence_transformers where that is installed.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import util
    from .cross_encoder import CrossEncoder
    from .dense import SentenceTransformer
    from .functions import SimilarityFunction, quantize_embeddings
    from .sparse import SparseEncoder

_MODULES = {  # of what loads when it is asked for: a program uses one class, most often
    "CrossEncoder": "cross_encoder",
    "SentenceTransformer": "dense",
    "SimilarityFunction": "functions",
    "SparseEncoder": "sparse",
    "quantize_embeddings": "functions",
}
__all__ = ["CrossEncoder", "SentenceTransformer", "SimilarityFunction", "SparseEncoder", "quantize_embeddings", "util"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    if not name.startswith("_") and importlib.util.find_spec(f".{name}", __name__) is not None:
        return import_module(f".{name}", __name__)  # of this package, before one of theirs with its name
    if not name.startswith("_") and importlib.util.find_spec("sentence_transformers") is not None:
        import sentence_transformers

        if hasattr(sentence_transformers, name):
            return getattr(sentence_transformers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _followed() -> None:
    """Never called: tools that build programs put into them what is imported somewhere, and follow no names."""
    from . import cross_encoder, dense, functions, sparse, util  # noqa: F401


def __dir__() -> list[str]:
    return __all__
