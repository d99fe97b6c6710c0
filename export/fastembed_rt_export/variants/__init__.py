"""Which graphs a directory gets."""

from .making import MODEL_FILE, Made, check, default_precision, make
from .wanted import Built, Quantizing, TokenStates, Wanted

__all__ = [
    "MODEL_FILE",
    "Built",
    "Made",
    "Quantizing",
    "TokenStates",
    "Wanted",
    "check",
    "default_precision",
    "make",
]
