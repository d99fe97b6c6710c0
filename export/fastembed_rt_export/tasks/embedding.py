"""Embedding models: what int8 calibrates on. The rest of the task is the pipeline itself."""

from __future__ import annotations

from collections.abc import Sequence

from fastembed_rt.tokenizer import TextTokenizer

from ..quantize import Sample
from ..variants import Quantizing


def quantizing() -> Quantizing:
    """Single texts; the cosine of their vectors."""
    return Quantizing(sample=_sample)


def _sample(tokenizer: TextTokenizer, texts: Sequence[str]) -> Sample:
    return Sample.of(tokenizer(texts).ids)
