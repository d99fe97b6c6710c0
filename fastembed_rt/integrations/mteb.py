"""MTEB: models of ours as its encoders and cross-encoders, with prompts by task. Needs mteb, which brings torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import EmbeddingModel, Reranker
from ..errors import InvalidInputError
from ..models.base import LoadedModel
from ..models.prompts import OF_ROLES
from ..models.travel import ticket
from ..vectors.dense import Vectors
from .opening import needs, open_model

with needs("mteb", "mteb"):
    import torch
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder, get_prompt
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType

__all__ = ["FastEmbedRtCrossEncoder", "FastEmbedRtEncoder"]
THEIRS = ("batch_size",)  # options of MTEB's calls that mean nothing here: batches are bounded by tokens


class FastEmbedRtEncoder(AbsEncoder):
    """An EmbeddingModel for `mteb.evaluate`: prompts are chosen as MTEB chooses them for sentence-transformers.

    `mteb_model_meta` names the checkpoint and the precision, with the vectors' fingerprint and a digest of the prompts
    as the revision, so that results of two precisions, or with two sets of prompts, are two rows and not one.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] | EmbeddingModel,
        revision: str | None = None,
        *,
        device: str | None = None,
        model_prompts: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the model.

        Args:
            model_name: a model directory, a checkpoint or a hub repository; or an EmbeddingModel that is open.
            revision: branch, tag or commit on the hub.
            device: "cpu" or "cuda", as the provider is called here; None leaves it to kwargs.
            model_prompts: texts by task name, task type, "query", "document", or "NAME-query", instead of the model's.
            **kwargs: options of `EmbeddingModel.from_checkpoint`.

        Raises:
            InvalidInputError: another device; others as `EmbeddingModel.from_checkpoint`.
        """
        self.model = open_model(EmbeddingModel, model_name, _options(revision, device, kwargs))
        self._given = model_prompts is not None
        wanted = self.model.prompts if model_prompts is None else dict(model_prompts)
        # Names that are no task of MTEB's are left out of what it looks for, as it does for others.
        self.model_prompts = AbsEncoder.validate_task_to_prompt_name(wanted, raise_for_invalid_keys=False)[0]
        similarity = ScoringFunction.from_str(self.model.manifest.similarity)
        self.mteb_model_meta = _meta(
            self.model,
            type(self),
            ["dense"],
            max_tokens=self.model.max_length,
            embed_dim=self.model.dim,
            similarity_fn_name=similarity,
            use_instructions=bool(wanted),
            revision=self._revision(wanted),
        )

    def _revision(self, prompts: Mapping[str, str]) -> str:
        """The vectors' fingerprint, with a digest of what else decides them: the encoder of each role, all prompts."""
        encoders = [self.model.fingerprint(role=role, prompt="") for role in OF_ROLES]
        told = json.dumps([encoders, dict(prompts), self._given], sort_keys=True)
        return f"{self.model.fingerprint()}-prompts.{_digest(told)}"

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Vectors (n, dim) of a DataLoader's texts: queries and documents in their roles, others in none."""
        texts = [text for batch in inputs for text in batch["text"]]
        prompt = get_prompt(self.model_prompts, task_metadata, prompt_type)  # the method of this name gives its name
        if prompt is None and self._given:
            prompt = ""  # the caller's prompts took the place of the model's
        options = {name: value for name, value in kwargs.items() if name not in THEIRS}
        vectors: Vectors = self._call(prompt_type)(texts, prompt=prompt, **options)
        return vectors

    def _call(self, prompt_type: PromptType | None) -> Callable[..., Any]:
        if prompt_type is None:
            return self.model.encode
        return self.model.encode_query if prompt_type == PromptType.query else self.model.encode_document

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """The model's own similarity: (n, dim) and (m, dim) -> (n, m)."""
        left, right = (np.atleast_2d(np.asarray(side, dtype=np.float32)) for side in (embeddings1, embeddings2))
        return torch.from_numpy(self.model.similarity(left, right))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """The same of rows that stand beside each other: (n, dim) and (n, dim) -> (n,)."""
        left, right = (np.asarray(side, dtype=np.float64) for side in (embeddings1, embeddings2))
        name = self.model.manifest.similarity
        if name in ("cosine", "dot"):
            found = (left * right).sum(axis=1)
            if name == "cosine":
                found /= np.maximum(np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1), 1e-12)
        else:
            found = -np.linalg.norm(left - right, ord=2 if name == "euclidean" else 1, axis=1)
        return torch.from_numpy(found.astype(np.float32))


class FastEmbedRtCrossEncoder:
    """A Reranker for `mteb.evaluate`."""

    def __init__(
        self,
        model_name: str | os.PathLike[str] | Reranker,
        revision: str | None = None,
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the model; as for FastEmbedRtEncoder."""
        self.model = open_model(Reranker, model_name, _options(revision, device, kwargs))
        self.mteb_model_meta = _meta(
            self.model,
            type(self),
            ["cross-encoder"],
            max_tokens=self.model.max_length,
            revision=self._revision(),
        )

    def _revision(self) -> str:
        """What runs, by the contents of its files, with a digest of what else decides the scores."""
        model = self.model
        prompt = model.prompts[model.default_prompt_name] if model.default_prompt_name is not None else ""
        told = json.dumps([prompt, model.max_length, model.activation])
        return f"{ticket(model).identity}-{_digest(told)}"

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Any:
        """Scores (n,) of the texts of two DataLoaders, side by side."""
        left, right = ([text for batch in side for text in batch["text"]] for side in (inputs1, inputs2))
        options = {name: value for name, value in kwargs.items() if name not in THEIRS}
        return self.model.predict(list(zip(left, right, strict=True)), **options)


def _options(revision: str | None, device: str | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(kwargs)
    if revision is not None:
        options["revision"] = revision
    if device is not None:
        provider = device.partition(":")[0]
        if provider not in ("cpu", "cuda"):
            raise InvalidInputError(f"device {device!r} is not possible; expected cpu or cuda, or provider= by name")
        options.setdefault("provider", provider)
    return options


def _digest(told: str) -> str:
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _meta(model: LoadedModel, loader: type, kinds: list[str], **facts: Any) -> Any:
    source = model.manifest.source.checkpoint
    known = {
        "name": f"fastembed-rt/{source.rstrip('/').rpartition('/')[2]}-{model.precision}",
        "loader": loader,
        "framework": ["ONNX"],
        "adapted_from": source,
        "model_type": kinds,
        "modalities": ["text"],
    }
    return ModelMeta.create_empty(overwrites={**known, **facts})
