"""fastembed-rt: sentence embeddings in production, from a fine-tuned checkpoint to vectors without torch.

Importing this package costs milliseconds: onnxruntime and tokenizers load with the first model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FastembedRtError

if TYPE_CHECKING:
    from .late import LateInteractionModel
    from .loading import EncodeStats
    from .model import EmbeddingModel
    from .reranker import Reranker
    from .sparse import SparseModel

__version__ = "0.1.0"
_MODULES = {  # of what loads when it is asked for
    "EmbeddingModel": "model",
    "EncodeStats": "loading",
    "LateInteractionModel": "late",
    "Reranker": "reranker",
    "SparseModel": "sparse",
}
__all__ = [
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

        from .session import require_onnxruntime

        require_onnxruntime()
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
