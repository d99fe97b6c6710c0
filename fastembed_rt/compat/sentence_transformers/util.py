"""sentence_transformers.util: handed through where sentence-transformers is installed, else what numpy can do of it.

Which of the two a name is depends on what is installed and never on what was imported before.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from .. import tensors
from . import functions, search

OURS: dict[str, Any] = {
    "SimilarityFunction": functions.SimilarityFunction,
    "quantize_embeddings": functions.quantize_embeddings,
    **{function.__name__: function for function in (*functions.MATRICES.values(), *functions.PAIRS.values())},
    "pytorch_cos_sim": functions.cos_sim,
    "information_retrieval": search.semantic_search,
    **{
        function.__name__: function
        for function in (
            search.semantic_search,
            search.paraphrase_mining,
            search.paraphrase_mining_embeddings,
            search.community_detection,
            search.normalize_embeddings,
            search.truncate_embeddings,
            search.batch_to_device,
        )
    },
}


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and importlib.util.find_spec("sentence_transformers") is not None:
        from sentence_transformers import util

        if hasattr(util, name):
            return getattr(util, name)
    if name in OURS:
        return OURS[name]
    hint = "" if tensors.installed() else "; sentence-transformers, which has more, is not installed"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted(OURS)
