"""Texts of one call to an embedding model: what it may ask for, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import Window
from ..vectors.dense import Vectors, chunk_means
from ..vectors.quantized import FLOAT32
from .options import Settings

SENTENCE, TOKENS = "sentence", "tokens"  # what `encode` gives


class EncodeOptions(TypedDict, total=False):
    """What `encode` takes beside texts and gives an array for; its docstring says what each is."""

    prompt_name: str | None
    prompt: str | None
    truncate_dim: int | None
    normalize: bool | None
    show_progress_bar: bool | None
    precision: str
    ranges: npt.ArrayLike | None
    calibration_embeddings: npt.ArrayLike | None
    on_null: str
    out: npt.NDArray[Any] | None


class OtherOptions(EncodeOptions, total=False):
    """What makes something else of it: `Encoded`, or `TokenVectors`."""

    return_tokens: bool
    output: str


class SentencesCall:
    """Work of a call that wants vectors of texts."""

    def __init__(self, tokenizer: TextTokenizer, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings

    def tokenize(self, window: Window) -> Tokenized:
        """Token ids, the prompt's in front."""
        return self._tokenizer(window.texts, self._settings.prompt, window.first, parallel=window.parallel)

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        """Tokens of the prompt, where pooling leaves it out."""
        return tokenized.left_out(self._settings.prompt_tokens)

    def finish(self, tokenized: Tokenized, results: Vectors) -> Vectors:
        """Vectors (n, dim), cut and normalized as asked; texts in chunks are the mean of those."""
        again = self._settings.normalized_already
        return self._settings.finish(chunk_means(results, tokenized.owner, tokenized.texts, again=again))


def copies(vectors: Iterator[Vectors]) -> Iterator[Vectors]:
    """Rows of arrays, each with memory of its own: one that somebody keeps would keep the whole window."""
    for vector in vectors:
        yield vector.copy()


def check_output(
    output: str,
    truncate_dim: int | None,
    normalize: bool | None,
    precision: str,
    ranges: npt.ArrayLike | None,
    calibration_embeddings: npt.ArrayLike | None,
    out: npt.NDArray[Any] | None = None,
) -> None:
    """Raise InvalidInputError unless a call wants vectors of tokens, and nothing of them that they do not have."""
    if output != TOKENS:
        raise InvalidInputError(f"output {output!r} is not known; known: {SENTENCE}, {TOKENS}")
    foreign = {
        "truncate_dim": truncate_dim,
        "normalize": normalize,
        "ranges": ranges,
        "calibration_embeddings": calibration_embeddings,
        "precision": None if precision == FLOAT32 else precision,
        "out": out,
    }
    given = [name for name, value in foreign.items() if value is not None]
    if given:
        raise InvalidInputError(
            f"{given[0]} is for vectors of texts; output={TOKENS!r} gives the encoder's states as they are"
        )
