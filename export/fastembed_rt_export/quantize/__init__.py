"""Static INT8: what each layer's input looks like on real text, and the integers that lose least."""

from . import fp8
from .calibration import Calibrated, calibrate
from .fit import Fitting
from .sample import Sample
from .texts import (
    LONG_TOKENS,
    SEED,
    WORD_CHARACTERS,
    calibration_texts,
    chosen_texts,
    degenerate_texts,
    long_texts,
    rare_texts,
    share_of,
)

__all__ = [
    "LONG_TOKENS",
    "SEED",
    "WORD_CHARACTERS",
    "Calibrated",
    "Fitting",
    "Sample",
    "calibrate",
    "calibration_texts",
    "chosen_texts",
    "degenerate_texts",
    "fp8",
    "long_texts",
    "rare_texts",
    "share_of",
]
