"""fastembed-rt: sentence embeddings in production, from a fine-tuned checkpoint to vectors without torch.

Importing this package costs milliseconds: onnxruntime and tokenizers load with the first model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FastembedRtError

if TYPE_CHECKING:
    from .model import EmbeddingModel, EncodeStats

__version__ = "0.1.0"
__all__ = ["EmbeddingModel", "EncodeStats", "FastembedRtError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("EmbeddingModel", "EncodeStats"):
        from .session import require_onnxruntime

        require_onnxruntime()
        from . import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
