"""fastembed-rt: sentence embeddings in production, from a fine-tuned checkpoint to vectors without torch.

Importing this package costs milliseconds: onnxruntime and tokenizers load with the first model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FastembedRtError

if TYPE_CHECKING:
    from .models.bm25 import BM25
    from .models.embedding import EmbeddingModel
    from .models.late_interaction import LateInteractionModel
    from .models.reranker import Reranker
    from .models.sparse import SparseModel
    from .models.stats import EncodeStats

__version__ = "0.1.0"
_MODULES = {  # of what loads when it is asked for
    "BM25": "models.bm25",
    "EmbeddingModel": "models.embedding",
    "EncodeStats": "models.stats",
    "LateInteractionModel": "models.late_interaction",
    "Reranker": "models.reranker",
    "SparseModel": "models.sparse",
}
__all__ = [
    "BM25",
    "EmbeddingModel",
    "EncodeStats",
    "FastembedRtError",
    "LateInteractionModel",
    "Reranker",
    "SparseModel",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        from .run.session import require_onnxruntime

        require_onnxruntime()
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _followed() -> None:
    """Never called: tools that build programs put into them what is imported somewhere, and follow no names."""
    from .models import bm25, embedding, late_interaction, reranker, sparse, stats  # noqa: F401


def __dir__() -> list[str]:
    return __all__
