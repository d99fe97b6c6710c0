"""Vectors of tokens and of spans: the encoder of an embedding model without its pooling.

Vectors of spans out of one pass over the whole text are late chunking (Guenther et al. 2024, arXiv:2409.04701).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, InvalidTypeError, LacksGraphError
from ..manifest import LATE_INTERACTION, OUTPUTS, TokenGraph, Variant
from ..run import batching
from ..run.contract import Split
from ..text.columns import Texts
from ..text.pieces import Pieces, check_overlap, pieces
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import ERROR, STREAM_TEXTS, Window, windows
from ..vectors.dense import Vectors
from .embedding import EmbeddingModel
from .extras import asked, lists
from .late_calls import feeds, split
from .opening import Source, chosen_variant
from .options import Settings, all_texts
from .sentences import TOKENS

Spans = npt.NDArray[np.int64]  # (spans, 2): first character, and the one behind the last


@dataclass(frozen=True, eq=False)  # arrays are compared by whoever knows how closely
class TokenVectors:
    """The last hidden state of a text, token by token."""

    vectors: Vectors  # (tokens, width of the encoder) float32, as the pooling gets them
    offsets: npt.NDArray[np.int64]  # (tokens, 2) first character, and the one behind the last; (0, 0) of special ones
    special: npt.NDArray[np.bool_]  # (tokens,) True for tokens of no character: special ones, and those of the prompt
    ids: npt.NDArray[np.int64]  # (tokens,)

    def __len__(self) -> int:
        return len(self.ids)


class TokenEncoder(EmbeddingModel):
    """The token graph of an embedding model, which makes it and holds it."""

    _output = OUTPUTS[LATE_INTERACTION]

    @property
    def graph(self) -> TokenGraph:
        """What runs."""
        return token_graph(super()._chosen(self._source))

    def nothing(self) -> TokenVectors:
        """Of a row without a text."""
        vectors, offsets = np.empty((0, self.graph.dim), np.float32), np.empty((0, 2), np.int64)
        return TokenVectors(vectors, offsets, np.empty(0, bool), np.empty(0, np.int64))

    def _chosen(self, source: Source) -> Variant:
        found = chosen_variant(self.manifest, source)
        graph = token_graph(found)
        return replace(found, graph=graph.graph, weights=graph.weights, opset=graph.opset, inputs=graph.inputs)

    def _announce(self) -> None:
        """It travels with the model whose it is."""

    def _check_files(self) -> None:
        known = {record.file for record in super()._chosen(self._source).files}  # checked with the model
        for record in self.variant.files:
            if record.file not in known:
                self._files.check(record.file)

    @staticmethod
    def _feeds(
        rows: Sequence[batching.Ids], inputs: Sequence[str], pad_token_id: int, boundaries: batching.Ids
    ) -> batching.Feeds:
        return feeds(rows, inputs, pad_token_id, boundaries)

    def _splitter(self) -> Split | None:
        return split


def token_graph(variant: Variant) -> TokenGraph:
    """A variant's.

    Raises:
        LacksGraphError: it has none.
    """
    if variant.tokens is None:
        raise LacksGraphError(
            f"this model gives vectors of texts alone in {variant.target}/{variant.precision}; for those of tokens and "
            "spans export it with: fastembed-rt export --tokens"
        )
    return variant.tokens


def token_encoder(model: EmbeddingModel) -> TokenEncoder:
    """The encoder without its pooling, of the files that a model has opened; it is opened once and closed with it."""
    return model._other(TokenEncoder, TOKENS, model._source)


def encode_tokens(
    model: EmbeddingModel,
    inputs: Texts,
    settings: Settings,
    show: bool | None,
    on_null: str,
    *,
    return_tokens: bool,
) -> Any:
    """TokenVectors of a text, or of each text: see EmbeddingModel.encode."""
    encoder = token_encoder(model)
    call = TokensCall(encoder, settings)
    return lists(encoder._work, inputs, call, show, on_null, encoder.nothing, return_tokens=return_tokens)


def embed_tokens(model: EmbeddingModel, inputs: Iterator[str], settings: Settings, on_null: str) -> Iterator[Any]:
    """TokenVectors of texts, one by one: see EmbeddingModel.embed."""
    encoder = token_encoder(model)
    work, _ = asked(TokensCall(encoder, settings), on_null, encoder.nothing, return_tokens=False)
    return encoder._one_by_one(windows(inputs, STREAM_TEXTS, nulls=on_null != ERROR), work)


def encode_spans(
    model: EmbeddingModel,
    inputs: Texts,
    spans: Sequence[Any],
    settings: Settings,
    overlap: int | None,
    show: bool | None,
) -> Any:
    """Vectors of the spans of a text, or of each text: see EmbeddingModel.encode_spans."""
    encoder = token_encoder(model)
    if encoder.graph.no_spans:
        raise InvalidInputError(f"late chunking takes means of token states, and {encoder.graph.no_spans}")
    if overlap is None:
        repeated = model.max_length // 8
    else:  # looked at here: most texts fit into one window, and a wrong number would stay unseen until one does not
        tokenizer = encoder._tokenizer
        repeated = check_overlap(overlap, tokenizer.max_length - int(tokenizer.count([""], settings.prompt)[0]))
    single = isinstance(inputs, str)
    texts = [inputs] if isinstance(inputs, str) else all_texts(inputs)
    of_texts = [spans] if single else list(spans)
    if len(of_texts) != len(texts):
        raise InvalidInputError(f"{len(of_texts)} lists of spans for {len(texts)} texts; pass one for each")
    call = SpansCall(encoder, settings, repeated, of_texts)
    return lists(encoder._work, inputs if single else texts, call, show, ERROR, list, return_tokens=False)


class TokensCall:
    """Texts of one call for the vectors of their tokens."""

    def __init__(
        self,
        encoder: TokenEncoder,
        settings: Settings,
        tokenizer: TextTokenizer | None = None,
        overlap: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer or encoder._tokenizer
        self._prompt = settings.prompt
        self._overlap = overlap
        self._width = encoder.graph.dim

    def tokenize(self, window: Window) -> Pieces:
        """Token ids with what tells the tokens apart."""
        return pieces(
            self._tokenizer,
            window.texts,
            self._prompt,
            window.first,
            overlap=self._overlap,
            parallel=window.parallel,
        )

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        """All tokens see each other."""
        return np.array([len(row) for row in tokenized.ids], dtype=np.int64)

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> list[Any]:
        """TokenVectors of each text, its rows' one after the other."""
        assert isinstance(tokenized, Pieces)
        nothing = np.empty((0, self._width), np.float32)
        rows: list[list[int]] = [[] for _ in range(tokenized.texts)]
        for row, text in enumerate(tokenized.owner.tolist()):
            rows[text].append(row)
        found = []
        for text, of_text in enumerate(rows):
            # A row without a single token has nothing from the graph.
            states = [nothing if results[row] is None else results[row][tokenized.taken[row]] for row in of_text]
            ids = [tokenized.ids[row][tokenized.taken[row]] for row in of_text]
            vectors = states[0] if len(states) == 1 else np.concatenate(states)
            made = TokenVectors(vectors, tokenized.offsets[text], tokenized.special[text], np.concatenate(ids))
            found.append(made)
        return found


class SpansCall(TokensCall):
    """Texts of one call for the vectors of their spans."""

    def __init__(self, encoder: TokenEncoder, settings: Settings, overlap: int, spans: Sequence[Any]) -> None:
        super().__init__(encoder, settings, overlap=overlap)
        self._settings = replace(settings, normalized_already=False)
        self._spans = spans
        self._checked: dict[int, list[Spans]] = {}  # by identity of what is tokenized: the next window is so ahead

    def tokenize(self, window: Window) -> Pieces:
        """Before the texts are run, the spans are looked at."""
        checked = [check_spans(self._spans[k], len(text), k) for k, text in enumerate(window.texts, window.first)]
        made = super().tokenize(window)
        self._checked[id(made)] = checked
        return made

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> list[Any]:
        """Vectors (spans, dim) of each text."""
        spans = self._checked.pop(id(tokenized))
        found = super().finish(tokenized, results)
        return [self._settings.finish(means(tokens, own)) for tokens, own in zip(found, spans, strict=True)]


def means(tokens: TokenVectors, spans: Spans) -> Vectors:
    """Means of the states of the tokens that overlap each span: (spans, width); zeros where none does."""
    starts, ends = tokens.offsets.T
    out = np.zeros((len(spans), tokens.vectors.shape[1]), np.float32)
    for k, (start, stop) in enumerate(spans.tolist()):
        inside = (starts < stop) & (ends > start) & ~tokens.special
        if start < stop and inside.any():
            out[k] = tokens.vectors[inside].mean(axis=0)
    return out


def check_spans(spans: Any, length: int, text: int) -> Spans:
    """Spans of a text of so many characters: (spans, 2).

    Raises:
        InvalidTypeError: not pairs of whole numbers.
        InvalidInputError: a span that is not inside the text.
    """
    try:
        found = np.asarray(spans)
    except ValueError:  # rows of several lengths
        found = np.empty((1, 0))
    if found.size == 0 and found.ndim <= 2 and len(found) == 0:
        return np.empty((0, 2), np.int64)
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu":
        raise InvalidTypeError(f"spans of text {text} are not pairs of characters, such as [(0, 12), (12, 40)]")
    wrong = np.flatnonzero((found[:, 0] < 0) | (found[:, 0] > found[:, 1]) | (found[:, 1] > length))
    if len(wrong):
        start, stop = found[wrong[0]].tolist()
        raise InvalidInputError(
            f"span {wrong[0]} of text {text}, ({start}, {stop}), is not in a text of {length} characters"
        )
    return found.astype(np.int64)
