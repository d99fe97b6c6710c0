"""What follows the pooling of Perplexity's embedders: whole numbers of eight bits, of the tangent of each number.

Self-contained: tests put this file beside checkpoints, where modules.json names it.
"""

from __future__ import annotations

from typing import Any

import torch

try:
    from sentence_transformers.sentence_transformer.modules import Module
except ImportError:  # before 6
    from sentence_transformers.models import Module


class FlexibleQuantizer(Module):
    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        soft = torch.tanh(features["sentence_embedding"])
        return {**features, "sentence_embedding": (soft * 127).round().clamp(-128, 127)}

    @classmethod
    def load(cls, *_: Any, **__: Any) -> FlexibleQuantizer:
        return cls()

    def save(self, *_: Any, **__: Any) -> None:
        """It has no settings."""
