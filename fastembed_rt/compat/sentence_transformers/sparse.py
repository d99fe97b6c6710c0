"""SparseEncoder on a model directory: the calls of sentence-transformers, the vectors of SparseModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InvalidInputError, InvalidTypeError
from ...manifest import Manifest
from ...models.options import without_nulls
from ...models.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from ...models.sparse import SparseModel
from ...text.inputs import check_iterable
from ...vectors.sparse import SparseVector
from .. import tensors
from . import functions
from .base import CompatModel, refuse_unknown, the_texts


class SparseEncoder(CompatModel):
    """A sparse encoder with sentence-transformers' calls; see docs/from-sentence-transformers.md for what differs."""

    opens = SparseModel
    model_type = "SparseEncoder"
    organization = "sparse-encoder"
    default_prompts = {"query": "", "document": ""}  # noqa: RUF012 - read only
    positions = (
        "prompt_name prompt batch_size show_progress_bar convert_to_tensor convert_to_sparse_tensor save_to_cpu device "
        "max_active_dims pool chunk_size"
    ).split()
    SUPPORTED_SIMILARITY_FN_NAMES = functions.NAMES
    splade_pooling_chunk_size = None  # ours goes through the vocabulary in pieces by itself
    _model: SparseModel

    def __init__(
        self,
        model_name_or_path: Any = None,
        *,
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
        max_active_dims: int | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: Any = None,
        backend: str = "torch",
        **ours: Any,
    ) -> None:
        """Load a model directory, or a checkpoint, which is exported when it is first loaded; here or on the hub.

        Arguments as in sentence-transformers; `**ours` are options of SparseModel (precision, provider, threads, ...),
        which come first.

        Raises:
            NotFoundError: neither a directory nor a repository; a FileNotFoundError.
            InvalidInputError: an argument for which there is nothing here; a ValueError.
        """
        if max_active_dims is not None and (isinstance(max_active_dims, bool) or max_active_dims <= 0):
            raise InvalidInputError(f"max_active_dims {max_active_dims} is not possible; expected 1 or more")
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
            token=token,
            model_kwargs=model_kwargs,
            processor_kwargs=tokenizer_kwargs if processor_kwargs is None else processor_kwargs,
            config_kwargs=config_kwargs,
            model_card_data=model_card_data,
            backend=backend,
            ours=ours,
        )
        self.max_active_dims = self._model.max_active_dims if max_active_dims is None else max_active_dims
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
        convert_to_tensor: bool = True,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Any = None,
        max_active_dims: int | None = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        task: str | None = None,
        **others: Any,
    ) -> Any:
        """Sparse vectors of texts: a COO tensor (dim,) of a str, (n, dim) of several, float32, in input order.

        Without torch: a SparseVector or a list of them, and arrays where dense ones are asked for.

        Args:
            inputs: one text or several; also as `sentences`.
            prompt_name: which of `prompts` stands in front; None takes `default_prompt_name`.
            prompt: a text to put in front; comes before `prompt_name`.
            batch_size: without effect: batches are made of tokens.
            show_progress_bar: a tqdm bar over the texts on stderr.
            convert_to_tensor: False gives a list of vectors.
            convert_to_sparse_tensor: False gives them with their zeros.
            save_to_cpu: tensors on the CPU, wherever the model runs.
            device: where to run from now on.
            max_active_dims: words kept of each vector, the heaviest, instead of the model's number.
            pool: of `start_multi_process_pool`.
            chunk_size: without effect.
            task: "query" or "document": which encoder, where the model has one for each.
            **others: `sentences`; anything else is refused.

        Raises:
            InvalidInputError, InvalidTypeError: as for SparseModel.encode; ValueError and TypeError.
        """
        if others:
            inputs = the_texts(inputs, others)
            refuse_unknown("SparseEncoder.encode", others)
        if batch_size <= 0:
            raise InvalidInputError(f"batch_size {batch_size} is not possible; expected 1 or more")
        single = isinstance(inputs, str)
        texts = [inputs] if single else list(without_nulls(check_iterable(inputs)))
        most = self.max_active_dims if max_active_dims is None else max_active_dims
        found = self._for_task(self._working(device, pool, chunk_size), task).encode(
            texts,
            prompt=self._resolve_prompt(prompt, prompt_name),
            max_active_dims=self._model.dim if most is None else min(most, self._model.dim),
            show_progress_bar=show_progress_bar,
        )
        if not tensors.installed():
            if not convert_to_sparse_tensor:
                dense = functions.floats(found) if found else np.array([])
                return dense[0] if single else dense if convert_to_tensor else list(dense)
            return found[0] if single else found
        place = "cpu" if save_to_cpu else self._place
        if not found:
            empty = tensors.require("encode").tensor([], device=place)
            return [] if not convert_to_tensor else empty.to_sparse() if convert_to_sparse_tensor else empty
        made = coo(found).to(place)
        made = made if convert_to_sparse_tensor else made.to_dense()
        if single:
            return made[0]
        return made if convert_to_tensor else list(made)

    def encode_query(self, inputs: Any = None, *arguments: Any, **options: Any) -> Any:
        """`encode` with the prompt "query" when no other is asked for, by the encoder for queries if there is one."""
        return self._encode_role("query", QUERY_PROMPTS, inputs, arguments, options)

    def encode_document(self, inputs: Any = None, *arguments: Any, **options: Any) -> Any:
        """`encode` with the prompt "document", "passage" or "corpus", the first that there is."""
        return self._encode_role("document", DOCUMENT_PROMPTS, inputs, arguments, options)

    @property
    def similarity_fn_name(self) -> str:
        """cosine, dot, euclidean or manhattan: what `similarity` computes. May be assigned to, also as a member."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Any) -> None:
        self._similarity_fn_name = functions.similarity_name("dot" if value is None else value, type(self).__name__)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """All with all: (n, dim) and (m, dim) -> (n, m) float32; a tensor where torch is installed, else an array."""
        return functions.matrix(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Row by row: (n, dim) and (n, dim) -> (n,) float32; a tensor where torch is installed, else an array."""
        return functions.pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    def get_embedding_dimension(self) -> int:
        """Size of the vocabulary."""
        return self._model.dim

    def get_sentence_embedding_dimension(self) -> int:
        """`get_embedding_dimension` under its older name."""
        return self._model.dim

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether these are one text."""
        return isinstance(inputs, str)

    def decode(self, embeddings: Any, top_k: int | None = None) -> Any:
        """Words with their weights, the heaviest first: a list of (token, weight), or one for each row.

        Args:
            embeddings: what `encode` gave.
            top_k: only the heaviest so many words.

        Raises:
            InvalidInputError: `top_k` below one, or vectors of more than two dimensions.
        """
        if top_k is not None and top_k <= 0:
            raise InvalidInputError(f"top_k {top_k} is not possible; expected 1 or more")
        rows, single = _rows(embeddings)
        words = [self._model.decode(row, top_k=top_k) if len(row) else [] for row in rows]
        return words[0] if single else words

    @staticmethod
    def sparsity(embeddings: Any) -> dict[str, float]:
        """Means over the rows: "active_dims" and "sparsity_ratio"."""
        rows, _ = _rows(embeddings)
        if not rows or not rows[0].dim:
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}
        active = float(np.mean([len(row) for row in rows], dtype=np.float32))
        return {"active_dims": active, "sparsity_ratio": 1.0 - active / rows[0].dim}

    @staticmethod
    def intersection(embeddings_1: Any, embeddings_2: Any) -> Any:
        """Products of the weights of words that a vector (dim,) shares with another, or with each of several.

        Raises:
            InvalidInputError: more than one first vector, or another vocabulary.
        """
        (first, *more), single = _rows(embeddings_1)
        if more or not single:
            raise InvalidInputError("embeddings_1 are several vectors; expected one (dim,)")
        others, one = _rows(embeddings_2)
        found = [_shared(first, row) for row in others]
        if not tensors.installed() or _ours(embeddings_2):
            return found[0] if one else found
        made = coo(found).coalesce()
        return made[0].coalesce() if one else made

    def _settings(self, described: Manifest) -> dict[str, Any]:
        assert described.sparse is not None  # the manifest is checked at birth
        sparse = replace(described.sparse, max_active_dims=self.max_active_dims)
        return {**super()._settings(described), "similarity": self.similarity_fn_name, "sparse": sparse}


def coo(vectors: list[SparseVector]) -> Any:
    """A coalesced sparse tensor (n, dim) of n vectors, at least one."""
    torch = tensors.require("encode")
    rows = np.repeat(np.arange(len(vectors)), [len(vector) for vector in vectors])
    places = np.stack([rows, np.concatenate([vector.indices for vector in vectors])])
    values = np.concatenate([vector.values for vector in vectors])
    shape = (len(vectors), vectors[0].dim)
    return torch.sparse_coo_tensor(
        torch.from_numpy(places), torch.from_numpy(values), shape, is_coalesced=True, check_invariants=False
    )


def _ours(given: Any) -> bool:
    return isinstance(given, SparseVector) or (isinstance(given, list) and bool(given) and _ours(given[0]))


def _rows(given: Any) -> tuple[list[SparseVector], bool]:
    """Sparse vectors of what `encode` gives, and whether that was one.

    Raises:
        InvalidTypeError: something else.
        InvalidInputError: more than two dimensions.
    """
    if not _ours(given):
        if not (tensors.is_tensor(given) or isinstance(given, np.ndarray)):
            raise InvalidTypeError(f"embeddings are {type(given).__name__}; pass what encode gives")
        shape = np.shape(given) if not tensors.is_tensor(given) else tuple(given.shape)
        if len(shape) not in (1, 2):
            raise InvalidInputError(f"expected vectors (dim,) or (n, dim), got {len(shape)} dimensions")
        rows = functions.sparse(given)
        if rows is None:
            dense = np.atleast_2d(functions.floats(given))
            rows = [SparseVector(kept := np.flatnonzero(row), row[kept], len(row)) for row in dense]
        return rows, len(shape) == 1
    return ([given], True) if isinstance(given, SparseVector) else (list(given), False)


def _shared(left: SparseVector, right: SparseVector) -> SparseVector:
    if left.dim != right.dim:
        raise InvalidInputError(f"vectors of {left.dim} and {right.dim} dimensions do not fit together")
    words, a, b = np.intersect1d(left.indices, right.indices, assume_unique=True, return_indices=True)
    products = left.values[a] * right.values[b]
    kept = products > 0
    return SparseVector(words[kept], products[kept], left.dim)
