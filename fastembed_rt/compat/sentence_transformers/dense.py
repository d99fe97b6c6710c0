"""SentenceTransformer on a model directory: the calls of sentence-transformers, the vectors of EmbeddingModel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ...manifest import Manifest
from ...models.embedding import EmbeddingModel
from ...models.options import without_nulls
from ...models.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from ...text.inputs import check_iterable
from ...vectors.dense import normalized
from ...vectors.quantized import FLOAT32, KINDS, quantize_embeddings
from .. import tensors
from . import functions
from .base import CompatModel, refuse_unknown, the_texts
from .tokens import features, token_states

SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"


class SentenceTransformer(CompatModel):
    """A sentence encoder with sentence-transformers' calls; see docs/from-sentence-transformers.md for what differs."""

    opens = EmbeddingModel
    model_type = "SentenceTransformer"
    organization = "sentence-transformers"
    default_prompts = {"query": "", "document": ""}  # noqa: RUF012 - read only
    positions = (
        "prompt_name prompt batch_size show_progress_bar output_value precision convert_to_numpy convert_to_tensor "
        "device normalize_embeddings truncate_dim pool chunk_size"
    ).split()
    SUPPORTED_SIMILARITY_FN_NAMES = functions.NAMES
    _model: EmbeddingModel

    def __init__(
        self,
        model_name_or_path: Any = None,
        modules: Any = None,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: Any = None,
        cache_folder: Any = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: Any = None,
        use_auth_token: Any = None,
        truncate_dim: int | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: Any = None,
        backend: str = "torch",
        *,
        processor_kwargs: Mapping[str, Any] | None = None,
        **ours: Any,
    ) -> None:
        """Load a model directory, or a checkpoint, which is exported when it is first loaded; here or on the hub.

        Arguments as in sentence-transformers; `**ours` are options of EmbeddingModel (precision, target, provider,
        threads, max_batch_tokens, ...), which come first.

        Raises:
            NotFoundError: neither a directory nor a repository; a FileNotFoundError.
            InvalidInputError: an argument for which there is nothing here; a ValueError.
        """
        self._set_up(
            model_name_or_path,
            modules=modules,
            device=device,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            cache_folder=cache_folder,
            trust_remote_code=trust_remote_code,
            revision=revision,
            local_files_only=local_files_only,
            token=use_auth_token if token is None else token,
            model_kwargs=model_kwargs,
            processor_kwargs=tokenizer_kwargs if processor_kwargs is None else processor_kwargs,
            config_kwargs=config_kwargs,
            model_card_data=model_card_data,
            backend=backend,
            ours=ours,
        )
        self.truncate_dim = truncate_dim
        own = self._model.manifest.similarity
        self.similarity_fn_name = own if similarity_fn_name is None else similarity_fn_name
        self.model_card_data.register_model(self)

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = SENTENCE,
        precision: str | None = FLOAT32,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        task: str | None = None,
        **others: Any,
    ) -> Any:
        """Vectors of texts: a str gives (dim,), several give (n, dim), float32, in input order.

        Args:
            inputs: one text or several; also as `sentences`.
            prompt_name: which of `prompts` stands in front; None takes `default_prompt_name`.
            prompt: a text to put in front; comes before `prompt_name`.
            batch_size: without effect: batches are made of tokens.
            show_progress_bar: a tqdm bar over the texts on stderr.
            output_value: "sentence_embedding"; "token_embeddings" (tokens, dim) of each text; None for a dict a text,
                which has no other precision than float32.
            precision: float32, int8, uint8, binary or ubinary.
            convert_to_numpy: False gives a list of tensors.
            convert_to_tensor: one tensor.
            device: where to run from now on; a list of CPUs changes nothing.
            normalize_embeddings: unit length, after any cut.
            truncate_dim: length of the vectors, instead of the model's own; they are cut, and no more.
            pool: of `start_multi_process_pool`.
            chunk_size: without effect.
            task: "query" or "document": which encoder, where the model has one for each.
            **others: `sentences`; anything else is refused.

        Raises:
            InvalidInputError, InvalidTypeError: as for EmbeddingModel.encode; ValueError and TypeError.
            MissingDependencyError: tensors asked for without torch.
        """
        if others:
            inputs = the_texts(inputs, others)
            refuse_unknown(f"{type(self).__name__}.encode", others)
        if batch_size <= 0:
            raise InvalidInputError(f"batch_size {batch_size} is not possible; expected 1 or more")
        precision = FLOAT32 if precision is None else precision
        if precision not in KINDS:
            raise InvalidInputError(f"precision {precision!r} of vectors is not known; known: {', '.join(KINDS)}")
        text = self._resolve_prompt(prompt, prompt_name)
        simple = device is None and pool is None and chunk_size is None
        model = self._model if simple else self._working(device, pool, chunk_size)
        if task is not None:
            model = self._for_task(model, task)
        cut = self.truncate_dim if truncate_dim is None else truncate_dim
        if output_value != SENTENCE:
            return self._of_tokens(model, inputs, text, output_value, cut, precision)
        single = isinstance(inputs, str)
        texts = inputs if single else list(without_nulls(check_iterable(inputs)))
        vectors = model.encode(
            texts,
            prompt=text,
            normalize=True if normalize_embeddings and cut is None else None,
            show_progress_bar=show_progress_bar,
        )
        if cut is not None:
            vectors = vectors[..., :cut]
            vectors = normalized(vectors) if normalize_embeddings else vectors
        empty = not single and not texts
        if precision != FLOAT32 and not empty:
            vectors = quantize_embeddings(vectors, precision)
        if convert_to_numpy and not convert_to_tensor:
            return np.array([]) if empty else vectors
        if empty:
            return tensors.require("encode").tensor([], device=self.device) if convert_to_tensor else []
        made = tensors.to_tensor(vectors, self._place)
        return made if convert_to_tensor or single else list(made)

    def _of_tokens(
        self, model: EmbeddingModel, inputs: Any, prompt: str, output_value: str | None, cut: int | None, precision: str
    ) -> Any:
        """Vectors of tokens, or everything of each text."""
        if output_value not in (TOKENS, None):
            raise InvalidInputError(f"output_value {output_value!r} is not known; known: {SENTENCE}, {TOKENS}, None")
        if output_value is None and precision != FLOAT32:
            raise InvalidInputError(
                f"precision {precision!r} is not possible with output_value=None; ask for {SENTENCE} or {TOKENS}"
            )
        single = isinstance(inputs, str)
        texts = [inputs] if single else list(without_nulls(check_iterable(inputs)))
        vectors = token_states(model, texts, prompt)
        if precision != FLOAT32:  # arrays, as there: what is quantized is no tensor
            codes = functions.quantize_embeddings(vectors, precision)
            return codes[0] if single else codes
        states = [tensors.like_theirs(array) for array in vectors]
        if output_value is None:
            states = self._everything(model, texts, prompt, states, cut)
        return states[0] if single else states

    def _everything(
        self, model: EmbeddingModel, texts: list[str], prompt: str, states: list[Any], cut: int | None
    ) -> list[Any]:
        """A dict for each text: its ids and mask, its tokens' vectors and its own; none is padded."""
        if not texts:
            return []
        vectors = model.encode(texts, prompt=prompt)
        found = []
        for text, vector, tokens in zip(texts, vectors, states, strict=True):
            own = features(model, [text], prompt)
            own = {name: value[0] if hasattr(value, "shape") else value for name, value in own.items()}
            finished = tensors.like_theirs(vector[:cut])
            found.append({**own, TOKENS: tokens, SENTENCE: finished})
        return found

    def encode_query(self, inputs: Any = None, *arguments: Any, **options: Any) -> Any:
        """`encode` with the prompt "query" when no other is asked for, by the encoder for queries if there is one."""
        return self._encode_role("query", QUERY_PROMPTS, inputs, arguments, options)

    def encode_document(self, inputs: Any = None, *arguments: Any, **options: Any) -> Any:
        """`encode` with the prompt "document", "passage" or "corpus", the first that there is."""
        return self._encode_role("document", DOCUMENT_PROMPTS, inputs, arguments, options)

    def encode_multi_process(
        self,
        sentences: Any,
        pool: dict[str, Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: str | None = FLOAT32,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """`encode` with a pool, (n, dim): the same vectors. Arguments as there, in an order of their own."""
        return self.encode(
            sentences,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
        )

    @property
    def similarity_fn_name(self) -> str:
        """cosine, dot, euclidean or manhattan: what `similarity` computes. May be assigned to, also as a member."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Any) -> None:
        self._similarity_fn_name = functions.similarity_name("cosine" if value is None else value, type(self).__name__)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """All with all: (n, dim) and (m, dim) -> (n, m) float32; a tensor where torch is installed, else an array."""
        return functions.matrix(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Row by row: (n, dim) and (n, dim) -> (n,) float32; a tensor where torch is installed, else an array."""
        return functions.pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    def get_embedding_dimension(self) -> int:
        """Length of the vectors that `encode` gives."""
        dim = self._model.manifest.dim
        return dim if self.truncate_dim is None else min(dim, self.truncate_dim)

    def get_sentence_embedding_dimension(self) -> int:
        """`get_embedding_dimension` under its older name."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within, `encode` gives vectors of this length."""
        before = self.truncate_dim
        self.truncate_dim = truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def truncate_sentence_embeddings(self, truncate_dim: int | None) -> Any:
        """`truncate_embeddings` under its older name."""
        return self.truncate_embeddings(truncate_dim)

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether these are one text."""
        return isinstance(inputs, str)

    def _settings(self, described: Manifest) -> dict[str, Any]:
        return {**super()._settings(described), "similarity": self.similarity_fn_name}
