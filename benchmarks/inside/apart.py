"""One model taken apart: its tokenizer, its session, and what goes from one to the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fastembed_rt import manifest
from fastembed_rt.files import ModelFiles
from fastembed_rt.manifest import Manifest
from fastembed_rt.run import batching
from fastembed_rt.run.batching import Feeds, Ids
from fastembed_rt.run.session import Session, choose_variant, load
from fastembed_rt.text.tokenizer import TextTokenizer

WORDS = "the old river runs quickly under a new city light while one red house sleeps over 7 trees".split()
MANY = 64  # texts of 3 to 60 words


def texts(count: int = MANY) -> list[str]:
    """Texts of many lengths, the same in every session."""
    return [" ".join(WORDS[(k + j) % len(WORDS)] for j in range(3 + 19 * k % 58)) for k in range(count)]


@dataclass(frozen=True)
class Parts:
    """One model in one precision, taken apart."""

    directory: Path
    precision: str
    threads: int

    @cached_property
    def manifest(self) -> Manifest:
        return manifest.read(self.directory)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.directory / self.manifest.tokenizer.file, max_length=self.manifest.max_length)

    @cached_property
    def session(self) -> Session:
        variant = choose_variant(self.manifest, precision=self.precision)
        return load(ModelFiles(self.directory, variant.files), variant, provider="cpu", threads=self.threads)

    @cached_property
    def rows(self) -> list[Ids]:
        return self.tokenizer(texts()).ids

    def feeds(self, rows: list[Ids]) -> Feeds:
        nothing = np.zeros(len(rows), dtype=np.int64)
        return batching.feeds(rows, self.session.facts.inputs, self.manifest.pad_token_id, nothing)
