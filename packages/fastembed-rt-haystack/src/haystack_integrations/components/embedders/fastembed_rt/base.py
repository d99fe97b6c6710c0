"""What the embedders share: their arguments, and the texts that are embedded."""

from __future__ import annotations

import os
from typing import Any

from haystack_integrations.common.fastembed_rt import ModelComponent, check_documents, name_of, text_of


class Embedder(ModelComponent):
    """An embedder of texts."""

    def __init__(
        self,
        model: str | os.PathLike[str],
        prefix: str = "",
        suffix: str = "",
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        progress_bar: bool = False,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first text.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            prefix: put before each text, behind the model's own prompt.
            suffix: put behind each text.
            model_kwargs: options of the class's `from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of its `encode`, such as prompt_name, prompt, and of vectors normalize,
                truncate_dim, of words max_active_dims.
            progress_bar: on stderr.
        """
        self.model = name_of(model)
        self.prefix = prefix
        self.suffix = suffix
        self.model_kwargs = model_kwargs or {}
        self.encode_kwargs = encode_kwargs or {}
        self.progress_bar = progress_bar

    def _text(self, text: Any) -> str:
        if not isinstance(text, str):
            raise TypeError(
                f"{type(self).__name__} expects a str, not {type(text).__name__}; documents have an embedder"
            )
        return f"{self.prefix}{text}{self.suffix}"


class OfDocuments(Embedder):
    """An embedder of documents."""

    def __init__(
        self,
        model: str | os.PathLike[str],
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first documents.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            prefix: put before each text, behind the model's own prompt.
            suffix: put behind each text.
            meta_fields_to_embed: fields of `meta` that stand before a document's content.
            embedding_separator: between those fields and the content.
            model_kwargs: options of the class's `from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of its `encode`; see the embedder of texts.
            progress_bar: on stderr.
        """
        super().__init__(model, prefix, suffix, model_kwargs, encode_kwargs, progress_bar)
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def _texts(self, documents: Any) -> list[str]:
        known = check_documents(documents, type(self).__name__)
        return [self._text(text_of(one, self.meta_fields_to_embed, self.embedding_separator)) for one in known]
