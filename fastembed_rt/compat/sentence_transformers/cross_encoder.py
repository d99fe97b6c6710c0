"""CrossEncoder on a model directory: the calls of sentence-transformers, the scores of Reranker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ...manifest import ACTIVATIONS, Manifest
from ...models.reranker import Reranker, softmax
from ...text.inputs import check_iterable
from .. import tensors
from .base import CompatModel, logger, placed, refuse_unknown, renamed, the_texts

OLD_POSITIONS = ("num_labels", "max_length", "activation_fn", "device")
OLD_NAMES = {
    "model_name": "model_name_or_path",
    "automodel_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "tokenizer_kwargs": "processor_kwargs",
    "config_args": "config_kwargs",
    "cache_dir": "cache_folder",
    "default_activation_function": "activation_fn",
}
WITHOUT_EFFECT = ("num_workers",)


class Identity:
    """Scores as they are: torch.nn.Identity without torch."""

    name = "identity"

    def __call__(self, scores: Any) -> Any:
        """(...) -> (...)."""
        return scores

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Sigmoid(Identity):
    """1 / (1 + exp(-x)) of each score: torch.nn.Sigmoid without torch."""

    name = "sigmoid"

    def __call__(self, scores: Any) -> Any:
        """(...) -> (...)."""
        if tensors.is_tensor(scores):
            return scores.sigmoid()
        return (1.0 / (1.0 + np.exp(-np.asarray(scores, np.float64)))).astype(np.float32)


class CrossEncoder(CompatModel):
    """A cross-encoder with sentence-transformers' calls; see docs/from-sentence-transformers.md for what differs."""

    opens = Reranker
    model_type = "CrossEncoder"
    organization = "cross-encoder"
    _model: Reranker

    def __init__(self, model_name_or_path: Any = None, *positional: Any, **options: Any) -> None:
        """Load a model directory, or a checkpoint, which is exported when it is first loaded; here or on the hub.

        Keywords as in sentence-transformers, under the names of all its versions: num_labels, max_length,
        activation_fn, device, prompts, default_prompt_name, cache_folder, trust_remote_code, revision,
        local_files_only, token, model_kwargs, processor_kwargs, config_kwargs, model_card_data, backend; others are
        options of Reranker (precision, provider, threads, ...), which come first.

        Raises:
            NotFoundError: neither a directory nor a repository; a FileNotFoundError.
            InvalidInputError: an argument for which there is nothing here; a ValueError.
        """
        options = renamed(dict(options), **OLD_NAMES)
        options |= placed("CrossEncoder", OLD_POSITIONS, positional, options)
        name = options.pop("model_name_or_path", model_name_or_path)
        labels, activation = options.pop("num_labels", None), options.pop("activation_fn", None)
        for name_without_effect in ("keep_in_fp32_modules", "classifier_dropout"):
            options.pop(name_without_effect, None)
        named = ("device", "prompts", "default_prompt_name", "cache_folder", "revision", "token", "modules")
        more = ("model_kwargs", "processor_kwargs", "config_kwargs", "model_card_data")
        self._set_up(
            name,
            **{key: options.pop(key, None) for key in (*named, *more)},
            trust_remote_code=options.pop("trust_remote_code", False),
            local_files_only=options.pop("local_files_only", False),
            backend=options.pop("backend", "torch"),
            max_length=options.pop("max_length", None),
            ours=options,
        )
        if labels is not None and labels != self.num_labels:
            self._model.close()
            raise InvalidInputError(f"num_labels={labels} is not possible: the exported head gives {self.num_labels}")
        own = Sigmoid() if self._model.activation == "sigmoid" else Identity()
        self._activation: Callable[[Any], Any] = own if activation is None else activation
        self.model_card_data.register_model(self)

    @property
    def num_labels(self) -> int:
        """Scores a pair."""
        return len(self._model.labels)

    @property
    def config(self) -> Any:
        """num_labels, id2label and label2id."""
        names = dict(enumerate(self._model.labels))
        return SimpleNamespace(
            num_labels=self.num_labels, id2label=names, label2id={label: k for k, label in names.items()}
        )

    @property
    def max_length(self) -> int:
        """`max_seq_length` under its older name."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self.max_seq_length = value

    @property
    def activation_fn(self) -> Callable[[Any], Any]:
        """What makes scores of logits: a module of torch where torch is loaded. Assigned to, it holds from then on."""
        torch = tensors.loaded()
        if torch is None or not isinstance(self._activation, Identity):
            return self._activation
        made: Callable[[Any], Any] = getattr(torch.nn, type(self._activation).__name__)()
        return made

    @activation_fn.setter
    def activation_fn(self, function: Callable[[Any], Any]) -> None:
        self._activation = function

    @property
    def default_activation_function(self) -> Callable[[Any], Any]:
        """`activation_fn` under its older name."""
        return self.activation_fn

    def predict(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        **others: Any,
    ) -> Any:
        """Scores of pairs of texts, float32 in input order: (n,), or (n, labels); of one pair a number or (labels,).

        Args:
            inputs: (text, text), or several of them; also as `sentences`.
            prompt_name: which of `prompts` stands in front of the first texts.
            prompt: a text to put in front of them; comes before `prompt_name`.
            batch_size: without effect: batches are made of tokens.
            show_progress_bar: a tqdm bar over the pairs on stderr.
            activation_fn: what makes scores of logits, instead of `activation_fn`: a function or module of torch, which
                gets a tensor, or ours.
            apply_softmax: shares of the labels, where there are several.
            convert_to_numpy: False gives a list of tensors.
            convert_to_tensor: one tensor.
            device: where to run from now on.
            pool: of `start_multi_process_pool`.
            chunk_size: without effect.
            **others: `sentences`, `activation_fct`, `num_workers`; anything else is refused.

        Raises:
            InvalidInputError, InvalidTypeError: as for Reranker.predict; ValueError and TypeError.
        """
        if others:
            given = renamed(others, activation_fct="activation_fn")
            inputs, activation_fn = the_texts(inputs, given), given.pop("activation_fn", activation_fn)
            refuse_unknown("CrossEncoder.predict", {k: v for k, v in given.items() if k not in WITHOUT_EFFECT})
        if batch_size <= 0:
            raise InvalidInputError(f"batch_size {batch_size} is not possible; expected 1 or more")
        single = self.is_singular_input(inputs)
        pairs = [tuple(inputs)] if single else [_pair(entry) for entry in check_iterable(inputs)]
        text = self._resolve_prompt(prompt, prompt_name)
        model = self._working(device, pool, chunk_size)
        logits: Any = model.predict(pairs, prompt=text, activation="identity", show_progress_bar=show_progress_bar)
        if not pairs:
            return self._nothing(convert_to_numpy, convert_to_tensor)
        scores = activated(self._activation if activation_fn is None else activation_fn, logits)
        if apply_softmax and scores.ndim > 1:
            scores = softmax(tensors.to_array(scores))
        if convert_to_numpy and not convert_to_tensor:
            array = np.asarray(tensors.to_array(scores), dtype=np.float32)
            return array[0] if single else array
        made = scores if tensors.is_tensor(scores) else tensors.to_tensor(scores, self._place)
        if single:
            return made[0]
        return made if convert_to_tensor else list(made)

    def _nothing(self, convert_to_numpy: bool, convert_to_tensor: bool) -> Any:
        if convert_to_tensor:
            return tensors.require("predict").tensor([], device=self.device)
        return np.array([]) if convert_to_numpy else []

    def rank(
        self,
        query: str,
        documents: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        device: Any = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        **others: Any,
    ) -> list[dict[str, Any]]:
        """Documents by falling score to the query: dicts with "corpus_id", "score" and, if asked for, "text".

        Args:
            query: one text.
            documents: the texts to rank.
            top_k: only the best so many; None for all.
            return_documents: whether each dict has its text.
            prompt_name: see `predict`.
            prompt: see `predict`.
            batch_size: see `predict`.
            show_progress_bar: see `predict`.
            activation_fn: see `predict`.
            device: see `predict`.
            pool: see `predict`.
            chunk_size: see `predict`.
            **others: older names, as for `predict`; convert_to_numpy, convert_to_tensor, apply_softmax: without effect.

        Raises:
            InvalidInputError: a model with several labels, which has no one score to rank by.
        """
        if self.num_labels != 1:
            raise InvalidInputError(
                f"this model gives {self.num_labels} scores a pair, so it has no order of relevance; use predict"
            )
        for name in ("convert_to_numpy", "convert_to_tensor", "apply_softmax"):
            if others.pop(name, None) is not None:
                logger.warning("CrossEncoder.rank: %s is without effect", name)
        texts = list(check_iterable(documents))
        scores = self.predict(
            [(query, text) for text in texts],
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
            **others,
        ).tolist()
        order = sorted(range(len(texts)), key=lambda k: scores[k], reverse=True)[:top_k]
        return [{"corpus_id": k, "score": scores[k], **({"text": texts[k]} if return_documents else {})} for k in order]

    def _settings(self, described: Manifest) -> dict[str, Any]:
        assert described.reranking is not None  # the manifest is checked at birth
        reranking = replace(described.reranking, activation=_saved_as(self._activation))
        return {**super()._settings(described), "reranking": reranking}

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether this is one pair of texts, and not several."""
        if isinstance(inputs, np.ndarray):
            return inputs.size > 0 and inputs.ndim < 2 and not isinstance(inputs[0], (list, tuple))
        return isinstance(inputs, (list, tuple)) and len(inputs) > 0 and isinstance(inputs[0], str)


def _saved_as(function: Callable[[Any], Any]) -> str:
    """The name of an activation in a manifest.

    Raises:
        InvalidInputError: another function than the identity or the sigmoid, of ours or of torch.
    """
    kind = type(function)
    name = kind.__name__.lower()
    if name not in ACTIVATIONS or not (kind in (Identity, Sigmoid) or kind.__module__.startswith("torch.nn.")):
        raise InvalidInputError(
            f"activation_fn {function!r} cannot be saved: a model directory has {' or '.join(ACTIVATIONS)}; set one of "
            "them before, and pass activation_fn= to whoever opens what is saved"
        )
    return name


def _pair(entry: Any) -> Any:
    return tuple(entry.tolist()) if isinstance(entry, np.ndarray) else entry


def activated(function: Callable[[Any], Any], logits: Any) -> Any:
    """Scores of logits (n,) or (n, labels): by torch's functions on a tensor, by ours on the array."""
    if isinstance(function, Identity):
        return function(logits)
    # As there: one label is a column, and the function sees (n, labels) float32.
    column = logits[:, None] if logits.ndim == 1 else logits
    ours = function if not tensors.installed() else None
    scores = ours(column) if ours is not None else function(tensors.to_tensor(column))
    return scores[:, 0] if logits.ndim == 1 and scores.ndim > 1 else scores
