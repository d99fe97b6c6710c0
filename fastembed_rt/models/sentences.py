"""Texts of one call to an embedding model: what it may ask for, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..system.progress import progress
from ..text.columns import Texts
from ..text.inputs import counted
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import ERROR, TEXTS, Window, windows
from ..vectors.dense import Vectors, chunk_means
from ..vectors.quantized import FLOAT32, Form
from .extras import Counted, Encoded, asked
from .options import Settings, check_out
from .work import Work

if TYPE_CHECKING:
    from .embedding import EmbeddingModel

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


def encode_vectors(
    model: EmbeddingModel,
    inputs: Texts,
    settings: Settings,
    show_progress_bar: bool | None,
    on_null: str,
    out: npt.NDArray[Any] | None,
    *,
    return_tokens: bool,
) -> Any:
    """Vectors of texts: see `EmbeddingModel.encode`."""
    single = isinstance(inputs, str)
    work: Work[Vectors] = SentencesCall(model._tokenizer, settings)
    plain = out is None and on_null == ERROR and not (return_tokens or show_progress_bar)
    few = [inputs] if isinstance(inputs, str) else inputs
    if plain and isinstance(few, list) and (made := model._few(few, work)) is not None:
        return made[0].copy() if single else made.copy()  # they may be a part of an array with those of others
    count, texts = counted(inputs)
    counting: Counted[Vectors] | None = None
    if return_tokens or on_null != ERROR:
        work, counting = asked(work, on_null, lambda: 0.0, return_tokens=return_tokens)
    if out is None:
        rows = np.empty((count, settings.dim), dtype=np.float32)
    else:
        check_out(out, (settings.dim,) if single else (count, settings.dim), np.dtype(np.float32))
        rows = out.reshape(count, settings.dim)  # the same memory: it is contiguous
    done = 0
    with progress(count, show_progress_bar) as bar:
        for vectors in model._work(windows(texts, (TEXTS,), nulls=on_null != ERROR), work, ahead=True, bar=bar):
            rows[done : done + len(vectors)] = vectors
            done += len(vectors)
            bar.update(len(vectors))
    made = out if out is not None else rows[0] if single else rows
    return made if counting is None else counting.encoded(made, single=single)


def encode_stored(
    model: EmbeddingModel, inputs: Texts, to_store: Form, out: npt.NDArray[Any] | None, options: OtherOptions
) -> Any:
    """Vectors of texts in another form than float32; `options` are those of the call in float32."""
    if out is not None and isinstance(inputs, str):
        check_out(out, (to_store.width,), to_store.kind.dtype)
    elif out is not None:
        count, texts = counted(inputs)
        check_out(out, (count, to_store.width), to_store.kind.dtype)
        inputs = list(texts)
    made = model.encode(inputs, **options)
    return_tokens = options["return_tokens"]
    stored = to_store(made.vectors if return_tokens else made)
    if out is not None:
        out[...] = stored
        stored = out
    return Encoded(stored, made.tokens) if return_tokens else stored


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
