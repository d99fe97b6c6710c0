"""EmbeddingModel: a model directory composed with tokenizer, batches and session into texts -> vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack, overload

import numpy.typing as npt

from ..errors import InvalidInputError, InvalidTypeError
from ..manifest import EMBEDDING
from ..run.session import UNNORMALIZED
from ..text.columns import Texts
from ..text.inputs import check_iterable
from ..text.windows import ERROR, STREAM_TEXTS, windows
from ..vectors import quantized
from ..vectors.dense import Vectors
from ..vectors.fingerprint import fingerprint
from ..vectors.quantized import FLOAT32, Array
from .answers import answered
from .base import MAX_BATCH_TOKENS, LoadedModel
from .extras import asked
from .fixed import Chosen
from .opening import LoadOptions, Source, documented
from .options import Settings, all_texts, flag, optional_flag, positive
from .prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, Prompts
from .roles import Given, WithRoles
from .sentences import (
    SENTENCE,
    TOKENS,
    EncodeOptions,
    OtherOptions,
    SentencesCall,
    check_output,
    copies,
    encode_stored,
    encode_vectors,
)
from .shared import Arrival
from .stats import EncodeStats
from .work import Prepared

__all__ = ["MAX_BATCH_TOKENS", "EmbeddingModel", "EncodeStats"]


class EmbeddingModel(WithRoles):
    """A sentence encoder from a model directory. Safe to use from several threads and after a fork."""

    task = EMBEDDING

    @documented
    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        *,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncation: str = "truncate",
        route: str | None = None,
        **options: Unpack[LoadOptions],
    ) -> None:
        """Load a model.

        Args:
            path_or_name: a model directory, else a hub repository that holds one.
            max_length: tokens after which texts are cut, special tokens included; None takes the model's own.
            truncate_dim: length of the vectors returned (Matryoshka); cut vectors are normalized again if the
                model normalizes (sentence-transformers does so with normalize_embeddings=True only).
            prompts: texts put in front, by name, instead of the model's own.
            default_prompt_name: prompt of `encode` when none is named.
            truncation: what happens to a text over max_length. "truncate" cuts and counts it in `stats`, "warn" also
                warns, "error" raises, "chunk" encodes all of it in pieces of max_length and takes the mean of the
                pieces' vectors (a prompt stands in the first piece only), normalized again if the model normalizes.
            route: "query" or "document" loads the encoder for such texts alone, where the model has one for each; None
                loads the default one, and another when `encode_query` or `encode_document` first needs it.
            **options: as for all models.
        """
        source = Source(path_or_name=path_or_name, **options, route=route)
        self._set_up(
            source,
            max_length=max_length,
            truncate_dim=truncate_dim,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            truncation=truncation,
        )

    def _set_up(
        self,
        source: Source,
        arrival: Arrival | None = None,
        *,
        max_length: int | None,
        truncate_dim: int | None,
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        truncation: str,
        given: Given | None = None,
    ) -> None:
        LoadedModel.__init__(self, source, arrival)
        described = self.manifest
        self._max_length = positive("max_length", max_length, described.max_length, described.max_positions)
        self._truncate_dim = truncate_dim if truncate_dim is None else self._dim(truncate_dim)
        self._prompts = Prompts(described, prompts, default_prompt_name)
        self._tokenizer = self._load(self._max_length, truncation)
        self._given: Given = given or (max_length, prompts, default_prompt_name)
        self._others = {}

    def _settings_now(self) -> dict[str, Any]:
        return {
            "max_length": self._max_length,
            "truncate_dim": self._truncate_dim,
            "prompts": self._prompts.by_name,
            "default_prompt_name": self._prompts.default,
            "truncation": self.truncation,
            "given": self._given,
        }

    @property
    def max_seq_length(self) -> int:
        """`max_length` under sentence-transformers' name."""
        return self._max_length

    @max_seq_length.setter
    def max_seq_length(self, wanted: int) -> None:
        self.max_length = wanted

    @property
    def truncate_dim(self) -> int | None:
        """Length of the vectors returned, None for all of it. Assigned to, it holds for the calls to come."""
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, wanted: int | None) -> None:
        self._truncate_dim = wanted if wanted is None else self._dim(wanted)
        for other in self._loaded_others():
            assert isinstance(other, EmbeddingModel)
            other.truncate_dim = wanted

    @property
    def dim(self) -> int:
        """Length of the vectors that `encode` returns."""
        return self._truncate_dim or self.manifest.dim

    @Chosen
    def truncation(self) -> str:
        """Policy for texts over max_length."""
        return self._tokenizer.truncation

    @overload
    def encode(self, inputs: Texts, **options: Unpack[EncodeOptions]) -> Array: ...

    @overload
    def encode(self, inputs: Texts, **options: Unpack[OtherOptions]) -> Any: ...

    @answered
    def encode(
        self,
        inputs: Texts,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        show_progress_bar: bool | None = None,
        precision: str = FLOAT32,
        ranges: npt.ArrayLike | None = None,
        calibration_embeddings: npt.ArrayLike | None = None,
        on_null: str = "error",
        return_tokens: bool = False,
        output: str = SENTENCE,
        out: npt.NDArray[Any] | None = None,
    ) -> Any:
        """Vectors of texts: a str gives (dim,), a list gives (n, dim), float32, in input order.

        Args:
            inputs: one text or several: a sequence of str, or a column of pyarrow, pandas, polars or numpy.
            prompt_name: which of `prompts` stands in front; None takes the default prompt, if there is one.
            prompt: a text to put in front, instead of a named one.
            truncate_dim: length of the vectors, instead of the model's.
            normalize: True for unit length; None leaves it to the model; False is refused where the graph normalizes.
            show_progress_bar: a tqdm bar over the texts on stderr.
            precision: of the vectors: float32, float16, int8, uint8, or packed bits: binary, ubinary (dim / 8 bytes).
            ranges: (2, dim), least and greatest number of each dimension, for int8 and uint8.
            calibration_embeddings: (n, dim) vectors to take the ranges from. Without either, the ranges come from this
                call's vectors, with a warning: such vectors cannot be compared with those of another call.
            on_null: what a row without a text (None, NaN, pandas' NA) gives: "error"; "empty", the vector of the empty
                text; "zero", zeros.
            return_tokens: give `Encoded`, the vectors with the tokens of each text, (n,) int64 or an int for a str: as
                they ran, special tokens and prompt included, and without what was cut.
            output: "sentence", or "tokens" for `TokenVectors` of each text: the encoder's states (tokens, width), which
                are neither pooled nor normalized, with offsets (tokens, 2) in characters of the text and a mark for
                special tokens. Of a directory that was exported with --tokens.
            out: an array for the vectors, which is then what is returned: of the result's shape and type, contiguous
                and writable. After an error, it may hold some of them.

        Raises:
            InvalidTypeError: something that is not a str, such as a null under on_null="error"; an `out` that is no
                array of the vectors' type.
            InvalidInputError: a lone surrogate, an unknown prompt, a dim that the model does not have, ranges that do
                not fit, int8 or uint8 of a single text without ranges, an `out` of another shape, with gaps, read-only.
            TextTooLongError: under truncation="error".
        """
        show_progress_bar = optional_flag("show_progress_bar", show_progress_bar)
        return_tokens = flag("return_tokens", return_tokens)
        if output != SENTENCE:
            from .token_states import encode_tokens  # only here: few calls want it

            check_output(output, truncate_dim, normalize, precision, ranges, calibration_embeddings, out)
            settings = self._settings(prompt_name, prompt, None, None)
            return encode_tokens(self, inputs, settings, show_progress_bar, on_null, return_tokens=return_tokens)
        if precision != FLOAT32 or ranges is not None or calibration_embeddings is not None:
            to_store = self._form(precision, truncate_dim, ranges, calibration_embeddings)
            options: OtherOptions = {
                "prompt_name": prompt_name,
                "prompt": prompt,
                "truncate_dim": truncate_dim,
                "normalize": normalize,
                "show_progress_bar": show_progress_bar,
                "on_null": on_null,
                "return_tokens": return_tokens,
            }
            return encode_stored(self, inputs, to_store, out, options)
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        return encode_vectors(self, inputs, settings, show_progress_bar, on_null, out, return_tokens=return_tokens)

    @answered
    def encode_spans(
        self,
        inputs: Texts,
        spans: Sequence[Any],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        overlap: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Any:
        """Vectors of parts of texts out of one pass over the whole text (late chunking, arXiv:2409.04701).

        (spans, dim) float32 for a str, a list of them for a list, in input order: the mean of the states of all tokens
        that overlap a span, special ones and those of the prompt left out, cut and normalized as the model's vectors
        are; zeros for a span without a token. Of a directory that was exported with --tokens.

        Args:
            inputs: one text or several.
            spans: (start, stop) in characters of the text, as slices have them; for several texts, a list for each.
            prompt_name: which of `prompts` stands in front; None takes the default prompt, if there is one.
            prompt: a text to put in front, instead of a named one.
            truncate_dim: length of the vectors, instead of the model's.
            normalize: True for unit length; None leaves it to the model.
            overlap: a text over max_length is encoded in windows of that length, each with prompt and special tokens,
                and this is how many tokens of one the next begins with, which count in the first; None takes an eighth.
                Under truncation="error", such a text is an error.
            show_progress_bar: a tqdm bar over the texts on stderr.

        Raises:
            InvalidTypeError: something that is not a str, spans that are not pairs of whole numbers.
            InvalidInputError: a span outside its text, an overlap without room, a model whose vectors are no means.
            TextTooLongError: under truncation="error".
            ModelFormatError: an export without --tokens.
        """
        from .token_states import encode_spans  # only here: few calls want it

        show_progress_bar = optional_flag("show_progress_bar", show_progress_bar)
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        return encode_spans(self, inputs, spans, settings, overlap, show_progress_bar)

    def _unnormalized(self) -> EmbeddingModel:
        """The encoder whose vectors have their own lengths, where the graph normalizes."""
        from .unnormalized import UnnormalizedEncoder  # only here: few calls want it

        return self._other(UnnormalizedEncoder, UNNORMALIZED, self._source)

    def prepare(
        self,
        *,
        role: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        truncation: str | None = None,
        truncation_side: str | None = None,
        output: str = SENTENCE,
    ) -> Prepared[Any]:
        """What `encode` does with texts, for callers that gather those of many calls into batches: vectors (n, dim).

        `role` is "query" or "document", as in `encode_query` and `encode_document`; `truncation` ("truncate", "warn",
        "error", "chunk") and `truncation_side` ("right", "left") stand in for the model's. Other arguments and errors
        as for `encode`; output="tokens" gives `TokenVectors` of each text.
        """
        normalize = optional_flag("normalize", normalize)
        if role is not None:
            model, options = self._in_role(role, prompt_name, prompt)
            return model.prepare(
                **options,
                truncate_dim=truncate_dim,
                normalize=normalize,
                truncation=truncation,
                truncation_side=truncation_side,
                output=output,
            )
        if normalize is False and self.manifest.normalize and output == SENTENCE:
            return self._unnormalized().prepare(
                prompt=self._prompts.text(prompt_name, prompt),  # by name, it would look among its own
                truncate_dim=truncate_dim,
                truncation=truncation,
                truncation_side=truncation_side,
            )
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        if output == TOKENS:
            from .token_states import TokensCall, token_encoder

            encoder = token_encoder(self)
            tokenizer = encoder._tokenizer.with_policy(truncation, truncation_side)
            return encoder._prepared(TokensCall(encoder, settings, tokenizer), tokenizer, settings.prompt)
        tokenizer = self._tokenizer.with_policy(truncation, truncation_side)
        return self._prepared(SentencesCall(tokenizer, settings), tokenizer, settings.prompt)

    @overload
    async def aencode(self, inputs: Texts, **options: Unpack[EncodeOptions]) -> Array: ...

    @overload
    async def aencode(self, inputs: Texts, **options: Unpack[OtherOptions]) -> Any: ...

    async def aencode(self, inputs: Texts, **options: Any) -> Any:
        """`encode` for asyncio, (dim,) or (n, dim): the event loop stays free, and calls that wait are run together.

        A cancelled call gives up its result and disturbs no other.
        """
        return await self._aside(self.encode, inputs, **options)

    @overload
    def encode_query(self, inputs: Texts, **options: Unpack[EncodeOptions]) -> Array: ...

    @overload
    def encode_query(self, inputs: Texts, **options: Unpack[OtherOptions]) -> Any: ...

    @answered
    def encode_query(self, inputs: Texts, **options: Any) -> Any:
        """`encode`, (dim,) or (n, dim), with the prompt "query", when there is one and no other is asked for."""
        return self.for_role("query").encode(inputs, **self._prompts.for_role(QUERY_PROMPTS, options))

    @overload
    def encode_document(self, inputs: Texts, **options: Unpack[EncodeOptions]) -> Array: ...

    @overload
    def encode_document(self, inputs: Texts, **options: Unpack[OtherOptions]) -> Any: ...

    @answered
    def encode_document(self, inputs: Texts, **options: Any) -> Any:
        """`encode`, (dim,) or (n, dim), with the prompt "document", "passage" or "corpus", when there is one.

        Another that is asked for comes before it.
        """
        return self.for_role("document").encode(inputs, **self._prompts.for_role(DOCUMENT_PROMPTS, options))

    async def aencode_query(self, inputs: Texts, **options: Any) -> Any:
        """`encode_query` for asyncio; see `aencode`."""
        return await self._aside(self.encode_query, inputs, **options)

    async def aencode_document(self, inputs: Texts, **options: Any) -> Any:
        """`encode_document` for asyncio; see `aencode`."""
        return await self._aside(self.encode_document, inputs, **options)

    @answered
    def embed(
        self,
        inputs: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        precision: str = FLOAT32,
        ranges: npt.ArrayLike | None = None,
        calibration_embeddings: npt.ArrayLike | None = None,
        on_null: str = "error",
        output: str = SENTENCE,
    ) -> Iterator[Any]:
        """Vectors (dim,) of any number of texts, one by one and in order, in bounded memory; or their `TokenVectors`.

        Arguments and errors as for `encode`; an error names the text by its number from the beginning. int8 and uint8
        need ranges or calibration_embeddings: the vectors to come are not known.
        """
        if isinstance(inputs, str):
            raise InvalidTypeError("inputs are one text; pass an iterable of str, or use encode for a single text")
        if output != SENTENCE:
            from .token_states import embed_tokens

            check_output(output, truncate_dim, normalize, precision, ranges, calibration_embeddings)
            settings = self._settings(prompt_name, prompt, None, None)
            return embed_tokens(self, check_iterable(inputs), settings, on_null)
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        to_store = self._form(precision, truncate_dim, ranges, calibration_embeddings)
        if to_store.needs_ranges:
            raise InvalidInputError(f"embed as {precision} needs ranges= or calibration_embeddings=")
        vectors = self._stream(check_iterable(inputs), settings, on_null)
        return copies(vectors) if precision == FLOAT32 else map(to_store, vectors)

    def _stream(self, inputs: Iterator[str], settings: Settings, on_null: str) -> Iterator[Vectors]:
        work, _ = asked(SentencesCall(self._tokenizer, settings), on_null, lambda: 0.0, return_tokens=False)
        return self._one_by_one(windows(inputs, STREAM_TEXTS, nulls=on_null != ERROR), work)

    @answered
    def similarity(
        self,
        left: npt.ArrayLike,
        right: npt.ArrayLike,
        *,
        precision: str = FLOAT32,
        ranges: npt.ArrayLike | None = None,
    ) -> Vectors:
        """The model's own similarity (cosine, dot, or a negated distance): (n, dim) and (m, dim) -> (n, m) float32.

        `precision` says what int8 and uint8 arrays hold. binary, ubinary: the number of bits that differ, negated;
        int8, uint8: the model's similarity of the vectors restored with `ranges`, where one side may be float.
        """
        return quantized.similarity(self.manifest.similarity, left, right, precision, ranges)

    @answered
    def fingerprint(
        self,
        *,
        role: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        precision: str = FLOAT32,
        ranges: npt.ArrayLike | None = None,
        calibration_embeddings: npt.ArrayLike | None = None,
    ) -> str:
        """A short name of the vectors that `encode` gives under these options: the same name, comparable vectors.

        `role` is "query" or "document": of the vectors of `encode_query` or `encode_document`.
        """
        if role is not None:
            model, options = self._in_role(role, prompt_name, prompt)
            return model.fingerprint(
                **options,
                truncate_dim=truncate_dim,
                normalize=normalize,
                precision=precision,
                ranges=ranges,
                calibration_embeddings=calibration_embeddings,
            )
        settings = self._settings(prompt_name, prompt, truncate_dim, normalize)
        return fingerprint(
            self.manifest,
            self.variant,
            self._form(precision, truncate_dim, ranges, calibration_embeddings),
            prompt=settings.prompt,
            normalize=settings.normalize,
            max_length=self.max_length,
            chunked=self.truncation == "chunk",
        )

    @answered
    def count_tokens(self, inputs: Texts, *, prompt_name: str | None = None, prompt: str | None = None) -> Any:
        """Tokens before any cut, special tokens and prompt included: an int for a str, (n,) int64 for a list."""
        texts = all_texts([inputs] if isinstance(inputs, str) else inputs)
        counts = self._tokenizer.count(texts, self._prompts.text(prompt_name, prompt))
        return int(counts[0]) if isinstance(inputs, str) else counts

    def _facts(self) -> str:
        return f"dim={self.dim}, max_length={self.max_length}"

    def _settings(
        self, prompt_name: str | None, prompt: str | None, truncate_dim: int | None, normalize: bool | None
    ) -> Settings:
        normalize = optional_flag("normalize", normalize)
        if normalize is False and self.manifest.normalize:
            raise InvalidInputError(
                "normalize=False is not possible: this model normalizes in its graph; "
                "export the checkpoint with --no-normalize"
            )
        self._check_open()
        text = self._prompts.text(prompt_name, prompt)
        left_out = 0 if self.manifest.include_prompt or not text else self._tokenizer.prompt_tokens(text)
        return Settings(
            prompt=text,
            prompt_tokens=left_out,
            dim=self.dim if truncate_dim is None else self._dim(truncate_dim),
            normalize=self.manifest.normalize if normalize is None else normalize,
            normalized_already=self.manifest.normalize,
        )

    def _form(self, precision: str, truncate_dim: int | None, *ranges: npt.ArrayLike | None) -> quantized.Form:
        return quantized.form(precision, self.dim if truncate_dim is None else self._dim(truncate_dim), *ranges)

    def _dim(self, wanted: int) -> int:
        return positive("truncate_dim", wanted, self.manifest.dim, self.manifest.dim)
