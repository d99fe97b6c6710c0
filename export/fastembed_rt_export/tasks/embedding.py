"""Embedding models: what int8 calibrates on. The rest of the task is the pipeline itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastembed_rt.text.tokenizer import TextTokenizer

from ..architectures import Architecture
from ..quantize import Sample
from ..variants import Quantizing


def quantizing(row: Architecture) -> Quantizing:
    """Single texts; the cosine of their vectors."""

    def sample(tokenizer: TextTokenizer, texts: Sequence[str]) -> Sample:
        return replace(Sample.of(tokenizer(texts).ids), mixed_lengths=row.padding_changes() is None)

    return Quantizing(sample=sample)
