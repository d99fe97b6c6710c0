"""What calls of SentenceTransformer are compared with: texts, and the ids of their features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TEXTS = ["a dog runs", "the house is red", "", "new city light: 1 2 3 4 5 6 7 8 9 0 " * 9]
Call = Callable[[Any], Any]


def ids_of(features: Any) -> dict[str, Any]:
    """Without token types, which BERT's tokenizers give and the plain ones of these checkpoints do not."""
    return {name: value for name, value in features.items() if name != "token_type_ids"}
