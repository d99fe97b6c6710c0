"""Static INT8: what each layer's input looks like on real text, and the integers that lose least."""

from .calibration import Calibrated, calibrate
from .fallback import passing
from .sample import Sample, vectors
from .texts import LONG_TOKENS, SEED, WORD_CHARACTERS, calibration_texts, chosen_texts, degenerate_texts, long_texts

__all__ = [
    "LONG_TOKENS",
    "SEED",
    "WORD_CHARACTERS",
    "Calibrated",
    "Sample",
    "calibrate",
    "calibration_texts",
    "chosen_texts",
    "degenerate_texts",
    "long_texts",
    "passing",
    "vectors",
]
